//! The breaker of the webhook: while the application fails, most requests are refused at once
//! instead of each waiting for its time limit.

use std::time::{Duration, Instant};

/// Failures in a row before the breaker opens.
const MAX_FAILURES: u32 = 5;

/// Pause after the breaker opened. It doubles with each failed trial, up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// A recovered application is noticed within this time.
const MAX_PAUSE: Duration = Duration::from_secs(8);

/// Counts failures in a row.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    failed_count: u32,
    /// The next trial, while the breaker is open.
    tries_at: Option<Instant>,
}

impl Breaker {
    /// Whether a request may be sent. An open breaker lets one request a pause through, as a trial.
    pub fn may_ask(&mut self, now: Instant) -> bool {
        let Some(tries_at) = self.tries_at else { return true };
        if now < tries_at {
            return false;
        }
        self.tries_at = Some(now + self.pause());
        true
    }

    pub fn on_answer(&mut self) {
        *self = Self::default();
    }

    pub fn on_failure(&mut self, now: Instant) {
        self.failed_count = self.failed_count.saturating_add(1);
        if self.failed_count >= MAX_FAILURES {
            self.tries_at = Some(now + self.pause());
        }
    }

    fn pause(&self) -> Duration {
        let doublings = self.failed_count.saturating_sub(MAX_FAILURES).min(16);
        FIRST_PAUSE.saturating_mul(1 << doublings).min(MAX_PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_failures_in_a_row_and_closes_with_an_answer() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        for _ in 0..MAX_FAILURES - 1 {
            breaker.on_failure(now);
        }
        assert!(breaker.may_ask(now));
        breaker.on_answer();
        for _ in 0..MAX_FAILURES {
            assert!(breaker.may_ask(now));
            breaker.on_failure(now);
        }
        assert!(!breaker.may_ask(now));
        let later = now + FIRST_PAUSE;
        assert!(breaker.may_ask(later) && !breaker.may_ask(later));
        breaker.on_answer();
        assert!(breaker.may_ask(later) && breaker.may_ask(later));
    }

    #[test]
    fn trials_get_rarer_up_to_a_bound() {
        let (mut breaker, mut now) = (Breaker::default(), Instant::now());
        for _ in 0..100 {
            breaker.on_failure(now);
            now += MAX_PAUSE;
            assert!(breaker.may_ask(now));
        }
    }
}
