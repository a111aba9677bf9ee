//! Converts times of Redis' clock to moments of the local clock.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fanfare_core::wall_clock::WallClock;

/// The present by Tokio's clock: tests can pause it.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Converts Redis' times (microseconds since 1970) to moments in the same order.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    at: Instant,
    micros: u64,
}

impl Clock {
    /// Redis' clock showed `micros` at this moment.
    pub fn new(at: Instant, micros: u64) -> Self {
        Self { at, micros }
    }

    /// The clock before the first answer. It assumes equal clocks.
    pub fn local() -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::new(now(), since_1970.as_micros() as u64)
    }

    /// Sets the hub's clock by Redis'.
    pub fn set(&self, clock: &WallClock) {
        clock.set(self.at, Duration::from_micros(self.micros));
    }

    /// The moment of a time of Redis. A time before the local clock's range counts as the moment
    /// of [`Self::new`]. A later time is at most 2^50 µs (36 years) later.
    pub fn at(&self, micros: u64) -> Instant {
        match micros.checked_sub(self.micros) {
            Some(later) => self.at + Duration::from_micros(later.min(1 << 50)),
            None => {
                let earlier = Duration::from_micros(self.micros - micros);
                self.at.checked_sub(earlier).unwrap_or(self.at)
            }
        }
    }
}
