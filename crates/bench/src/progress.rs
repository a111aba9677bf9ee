//! The progress of a run, on standard error. Without a terminal it shows nothing.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::run::Run;

/// Wide enough for the names of the steps.
const TEMPLATE: &str = "{prefix:9} [{bar:30}] {pos}/{len} {msg}";

/// One bar, reused by all steps.
pub(super) struct ProgressLine(ProgressBar);

impl ProgressLine {
    pub fn new() -> Self {
        // This target stays silent without a terminal.
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template(TEMPLATE);
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self(bar)
    }

    pub fn opening(&self, opened: u64, of: u64) {
        self.0.set_prefix("opening");
        self.0.set_message("streams");
        self.0.set_length(of);
        self.0.set_position(opened);
    }

    pub fn publishing(&self, elapsed: Duration, of: Duration, run: &Run) {
        let counters = &run.counters;
        let (delivered, ended) = (counters.delivered.load(Relaxed), counters.ended.load(Relaxed));
        self.0.set_prefix("measuring");
        self.0.set_message(format!("s, {delivered} deliveries, {ended} streams ended"));
        self.0.set_length(of.as_secs().max(1));
        self.0.set_position(elapsed.as_secs());
    }

    pub fn done(&self) {
        self.0.finish_and_clear();
    }
}
