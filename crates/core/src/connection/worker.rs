//! The state shared by the connections of one worker.

use super::{encode_cache::EncodeCache, limiter::LimiterClock};

/// The encode cache of a worker's connections, and the clock of their limiters.
#[derive(Debug)]
pub struct WorkerContext {
    pub(super) cache: EncodeCache,
    pub(super) clock: LimiterClock,
}

impl WorkerContext {
    pub fn new() -> Self {
        Self { cache: EncodeCache::default(), clock: LimiterClock::new() }
    }
}

impl Default for WorkerContext {
    fn default() -> Self {
        Self::new()
    }
}
