//! The refusals of access control, by reason, and the sample of them for the log.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// Time between two lines of one reason: a client can cause thousands of refusals a second.
const PAUSE: Duration = Duration::from_secs(10);

/// Counters by reason. The lock is held to count one refusal, or for a scrape.
#[derive(Debug, Default)]
pub(crate) struct Refusals(Mutex<BTreeMap<&'static str, Refused>>);

#[derive(Debug, Default)]
struct Refused {
    count: u64,
    logged_count: u64,
    logged_at: Option<Instant>,
}

impl Refusals {
    /// Counts a refusal. Returns the number of refusals since the last line, if a line is due.
    pub fn count(&self, reason: &'static str) -> Option<u64> {
        self.0.lock().entry(reason).or_default().count_at(Instant::now())
    }

    /// The counters.
    pub fn all(&self) -> Vec<(&'static str, u64)> {
        self.0.lock().iter().map(|(reason, refused)| (*reason, refused.count)).collect()
    }
}

impl Refused {
    fn count_at(&mut self, now: Instant) -> Option<u64> {
        self.count += 1;
        if self.logged_at.is_some_and(|at| now < at + PAUSE) {
            return None;
        }
        self.logged_at = Some(now);
        let unlogged = self.count - self.logged_count;
        self.logged_count = self.count;
        Some(unlogged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_gets_a_sample_and_the_number_of_the_others() {
        let (mut refused, start) = (Refused::default(), Instant::now());
        assert_eq!(refused.count_at(start), Some(1));
        assert!((0..100).all(|_| refused.count_at(start + PAUSE / 2).is_none()));
        assert_eq!(refused.count_at(start + PAUSE), Some(101));
        assert_eq!(refused.count, 102);
    }
}
