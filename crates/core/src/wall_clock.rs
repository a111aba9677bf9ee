//! The time of day, computed from the moments passed to the states.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

/// Converts moments to milliseconds since 1970. The application sets it now and then; with Redis,
/// from Redis' clock.
#[derive(Debug)]
pub struct WallClock {
    base: Instant,
    /// Milliseconds since 1970 at `base`.
    base_ms: AtomicU64,
}

impl WallClock {
    /// At this moment it is `unix_ms`.
    pub fn new(now: Instant, unix_ms: u64) -> Self {
        Self { base: now, base_ms: AtomicU64::new(unix_ms) }
    }

    /// Corrects the clock, also back. Its readers keep their own order.
    pub fn set(&self, now: Instant, unix_ms: u64) {
        self.base_ms.store(unix_ms.saturating_sub(self.since_base(now)), Ordering::Relaxed);
    }

    /// The time at a moment.
    pub fn at(&self, now: Instant) -> u64 {
        self.base_ms.load(Ordering::Relaxed) + self.since_base(now)
    }

    fn since_base(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.base).as_millis() as u64
    }
}
