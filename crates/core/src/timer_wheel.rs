//! A timer wheel: one structure for the deadlines of all streams of a worker.
//!
//! Deadlines are rounded up to the wheel's resolution, so a storm of streams opened together costs
//! one wake-up.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Items by their deadlines.
#[derive(Debug)]
pub struct TimerWheel<T> {
    start: Instant,
    resolution: Duration,
    slots: BTreeMap<u64, Vec<T>>,
}

impl<T> TimerWheel<T> {
    /// An empty wheel with slots of the width `resolution`.
    pub fn new(start: Instant, resolution: Duration) -> Self {
        Self { start, resolution: resolution.max(Duration::from_millis(1)), slots: BTreeMap::new() }
    }

    /// Adds an item. It is due at `deadline`, or up to one resolution later.
    pub fn schedule(&mut self, deadline: Instant, item: T) {
        let slot = self.slot(deadline) + 1;
        self.slots.entry(slot).or_default().push(item);
    }

    /// The due time of the next item; none for an empty wheel.
    pub fn next_due(&self) -> Option<Instant> {
        let slot = *self.slots.first_key_value()?.0;
        Some(self.start + Duration::from_nanos(self.resolution.as_nanos() as u64 * slot))
    }

    /// Takes the due items, in order of their slots.
    pub fn expire(&mut self, now: Instant) -> Vec<T> {
        let later = self.slots.split_off(&(self.slot(now) + 1));
        let due = std::mem::replace(&mut self.slots, later);
        due.into_values().flatten().collect()
    }

    fn slot(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.start).as_nanos();
        (since / self.resolution.as_nanos()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_due_early_and_all_within_one_resolution() {
        let start = Instant::now();
        let millis = Duration::from_millis;
        let mut wheel = TimerWheel::new(start, millis(10));
        wheel.schedule(start + millis(25), "late");
        wheel.schedule(start + millis(5), "early");
        assert_eq!(wheel.expire(start + millis(5)), Vec::<&str>::new());
        assert_eq!(wheel.next_due(), Some(start + millis(10)));
        assert_eq!(wheel.expire(start + millis(10)), ["early"]);
        assert_eq!(wheel.expire(start + millis(24)), Vec::<&str>::new());
        assert_eq!(wheel.expire(start + millis(35)), ["late"]);
        assert_eq!(wheel.next_due(), None);
    }
}
