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

/// The flags of the log.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct LogArgs {
    /// Prints errors only, and no banner
    #[arg(short, long, conflicts_with_all = ["verbose", "log_level"])]
    pub quiet: bool,
    /// Logs the opening and closing of every stream too (level debug)
    #[arg(short, long, conflicts_with = "log_level")]
    pub verbose: bool,
    /// Level of the log: error, warn, info, debug or trace. RUST_LOG can also choose modules
    /// [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<Level>,
}

impl LogArgs {
    /// The filter chosen by these flags, in the syntax of `RUST_LOG`. The lines of the HTTP
    /// framework are about every request, so they start at `warn`.
    fn filter(&self) -> Option<String> {
        match (self.quiet, self.verbose, self.log_level) {
            (true, ..) => Some("error".to_owned()),
            (_, true, _) => Some("info,fanfare=debug,actix=warn".to_owned()),
            (.., Some(level)) => Some(format!("{level},actix={}", level.min(Level::Warn))),
            _ => None,
        }
    }
}

/// Installs the logger: `env_logger` with the flags, else `RUST_LOG`, else `default`.
pub(crate) fn start(args: &LogArgs, default: &str) {
    let env = env_logger::Env::default().default_filter_or(default);
    let logger = match args.filter() {
        Some(filter) => env_logger::Builder::new().parse_filters(&filter).build(),
        None => env_logger::Builder::from_env(env).build(),
    };
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
    fn the_framework_is_never_louder_than_warn_by_a_flag() {
        let filter = |level| LogArgs { log_level: Some(level), ..LogArgs::default() }.filter();
        assert_eq!(filter(Level::Debug).as_deref(), Some("DEBUG,actix=WARN"));
        assert_eq!(filter(Level::Error).as_deref(), Some("ERROR,actix=ERROR"));
        assert_eq!(LogArgs::default().filter(), None, "RUST_LOG decides");
    }

    #[test]
    fn a_flood_is_cut_and_counted() {
        let (mut sample, start) = (Sample::default(), Instant::now());
        let written = (0..1000).filter(|_| sample.take(start).is_some()).count();
        assert_eq!(written, MAX_LINES as usize);
        assert_eq!(sample.take(start + INTERVAL), Some(1000 - u64::from(MAX_LINES)));
        assert_eq!(sample.take(start + INTERVAL), Some(0));
    }
}
