//! Redis' clock in terms of ours.

use std::time::{Duration, Instant};

/// Turns microseconds since 1970, as Redis counts them, into moments. They keep their order.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    at: Instant,
    micros: u64,
}

impl Clock {
    /// Redis said `micros` at this moment.
    pub fn new(at: Instant, micros: u64) -> Self {
        Self { at, micros }
    }

    /// The moment of Redis' time; one from before this machine started is its start.
    pub fn at(&self, micros: u64) -> Instant {
        match micros.checked_sub(self.micros) {
            Some(later) => self.at + Duration::from_micros(later.min(1 << 50)),
            None => {
                let earlier = Duration::from_micros(self.micros - micros);
                // The monotonic clock may not reach so far back.
                self.at.checked_sub(earlier).unwrap_or(self.at - self.at.elapsed())
            }
        }
    }
}
