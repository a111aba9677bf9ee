//! The state shared by the connections of one worker.

use std::{sync::Arc, time::Instant};

use super::{encode_cache::EncodeCache, limiter::LimiterClock};
use crate::wall_clock::WallClock;

/// The encode cache of a worker's connections, the clock of their limiters, and the hub's clock.
#[derive(Debug)]
pub struct WorkerContext {
    pub(super) cache: EncodeCache,
    pub(super) clock: LimiterClock,
    wall_clock: Arc<WallClock>,
}

impl WorkerContext {
    pub fn new(wall_clock: Arc<WallClock>) -> Self {
        Self { cache: EncodeCache::default(), clock: LimiterClock::new(), wall_clock }
    }

    /// Milliseconds since 1970.
    pub fn clock_ms(&self, now: Instant) -> u64 {
        self.wall_clock.at(now)
    }
}
