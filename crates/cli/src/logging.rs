//! The log on standard error. Lines of the HTTP framework are sampled: a client can cause one with
//! every invalid request, thousands a second.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use log::{Level, Log, Metadata, Record};

/// Lines of the framework in one interval.
const MAX_LINES: u32 = 10;

const INTERVAL: Duration = Duration::from_secs(1);

/// Installs the logger: `env_logger` with `RUST_LOG`, else with this level.
pub(crate) fn start(level: &str) {
    let env = env_logger::Env::default().default_filter_or(level);
    let logger = env_logger::Builder::from_env(env).build();
    log::set_max_level(logger.filter());
    let sampled = SampledLogger { logger, sample: Mutex::default() };
    log::set_boxed_logger(Box::new(sampled)).expect("no other logger is installed");
}

struct SampledLogger {
    logger: env_logger::Logger,
    sample: Mutex<Sample>,
}

impl Log for SampledLogger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.logger.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !record.target().starts_with("actix") || !self.logger.matches(record) {
            return self.logger.log(record);
        }
        let taken = self.sample.lock().map_or(Some(0), |mut sample| sample.take(Instant::now()));
        let Some(skipped) = taken else { return };
        if skipped > 0 {
            self.logger.log(
                &Record::builder()
                    .level(Level::Warn)
                    .target("fanfare")
                    .args(format_args!("{skipped} log lines of the HTTP framework skipped"))
                    .build(),
            );
        }
        self.logger.log(record);
    }

    fn flush(&self) {
        self.logger.flush();
    }
}

/// The lines of the present interval.
#[derive(Debug, Default)]
struct Sample {
    began_at: Option<Instant>,
    count: u32,
    skipped: u64,
}

impl Sample {
    /// Whether to write a line: `None` to skip it, else the number of lines skipped before.
    fn take(&mut self, now: Instant) -> Option<u64> {
        if self.began_at.is_none_or(|began_at| now.duration_since(began_at) >= INTERVAL) {
            (self.began_at, self.count) = (Some(now), 0);
        }
        if self.count >= MAX_LINES {
            self.skipped += 1;
            return None;
        }
        self.count += 1;
        Some(std::mem::take(&mut self.skipped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_counted() {
        let (mut sample, start) = (Sample::default(), Instant::now());
        let written = (0..1000).filter(|_| sample.take(start).is_some()).count();
        assert_eq!(written, MAX_LINES as usize);
        assert_eq!(sample.take(start + INTERVAL), Some(1000 - u64::from(MAX_LINES)));
        assert_eq!(sample.take(start + INTERVAL), Some(0));
    }
}
