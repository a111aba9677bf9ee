//! Redis' clock in terms of ours.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Tokio's clock: tests can pause it.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

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

    /// The clock before the first answer: assumes Redis' clock equals ours.
    pub fn local() -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::new(now(), since_1970.as_micros() as u64)
    }

    /// The moment of Redis' time. A time outside our clock's range counts as the present.
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
