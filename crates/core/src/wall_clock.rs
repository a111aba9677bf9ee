//! The time of day, computed from the moments passed to the states.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// Converts moments to milliseconds since 1970. The application sets it now and then; with Redis,
/// from Redis' clock.
#[derive(Debug)]
pub struct WallClock {
    base: Instant,
    /// Microseconds since 1970 at `base`: whole milliseconds would be late by up to one.
    base_micros: AtomicU64,
}

impl WallClock {
    /// At this moment this time has passed since 1970.
    pub fn new(now: Instant, since_1970: Duration) -> Self {
        Self { base: now, base_micros: AtomicU64::new(since_1970.as_micros() as u64) }
    }

    /// Corrects the clock, also back. Its readers keep their own order.
    pub fn set(&self, now: Instant, since_1970: Duration) {
        let base = since_1970.saturating_sub(self.since_base(now));
        self.base_micros.store(base.as_micros() as u64, Ordering::Relaxed);
    }

    /// The time at a moment, in milliseconds since 1970.
    pub fn at(&self, now: Instant) -> u64 {
        let base = Duration::from_micros(self.base_micros.load(Ordering::Relaxed));
        (base + self.since_base(now)).as_millis() as u64
    }

    fn since_base(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_millisecond_count() {
        let (base, half) = (Instant::now(), Duration::from_micros(500));
        let clock = WallClock::new(base, Duration::from_micros(1_500));
        assert_eq!((clock.at(base), clock.at(base + half)), (1, 2));
        clock.set(base + half, Duration::from_micros(4_500));
        assert_eq!((clock.at(base), clock.at(base + 2 * half)), (4, 5));
    }
}
