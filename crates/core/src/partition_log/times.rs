//! The times of a partition's events, to find the position at a time.

use std::collections::VecDeque;

/// Times with events, each to the millisecond.
const MAX_RECENT: usize = 4096;

/// Older times, one a second.
const MAX_OLDER: usize = 8192;

/// The last sequence at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct TimeMark {
    unix_ms: u64,
    sequence: u64,
}

/// Marks in ascending order, bounded: recent ones exact, older ones one a second.
#[derive(Debug)]
pub(super) struct EventTimes {
    /// The log has no event before this time.
    began_at: u64,
    began_after: u64,
    older: VecDeque<TimeMark>,
    recent: VecDeque<TimeMark>,
}

impl EventTimes {
    pub fn new(began_at: u64, began_after: u64) -> Self {
        Self { began_at, began_after, older: VecDeque::new(), recent: VecDeque::new() }
    }

    /// The time of the last event, or of the beginning.
    pub fn last(&self) -> u64 {
        self.recent.back().map_or(self.began_at, |mark| mark.unix_ms)
    }

    pub fn began_at(&self) -> u64 {
        self.began_at
    }

    /// Whether the log began after this time: it cannot tell the earlier events.
    pub fn began_after(&self, unix_ms: u64) -> bool {
        unix_ms < self.began_at
    }

    /// Records an event. Its time must not be before [`Self::last`].
    pub fn note(&mut self, unix_ms: u64, sequence: u64) {
        match self.recent.back_mut() {
            Some(last) if last.unix_ms >= unix_ms => last.sequence = sequence,
            _ => self.recent.push_back(TimeMark { unix_ms, sequence }),
        }
        if self.recent.len() > MAX_RECENT
            && let Some(oldest) = self.recent.pop_front()
        {
            self.keep_older(oldest);
        }
    }

    fn keep_older(&mut self, mark: TimeMark) {
        match self.older.back_mut() {
            Some(last) if last.unix_ms / 1000 == mark.unix_ms / 1000 => *last = mark,
            _ => self.older.push_back(mark),
        }
        if self.older.len() > MAX_OLDER {
            self.older.pop_front();
        }
    }

    /// Adds what is known of the time before all noted events: the log's beginning, and an event.
    pub fn begin(&mut self, began_at: u64, unix_ms: u64, sequence: u64) {
        self.began_at = began_at;
        let first = self.older.front().or_else(|| self.recent.front());
        let is_earlier =
            first.is_none_or(|first| unix_ms < first.unix_ms && sequence < first.sequence);
        if sequence > 0 && is_earlier {
            let mark = TimeMark { unix_ms, sequence };
            match self.recent.is_empty() {
                true => self.recent.push_front(mark),
                false => self.older.push_front(mark),
            }
        }
    }

    /// A sequence with all events up to it before the time: the highest known, at least the one at
    /// the beginning.
    pub fn before(&self, unix_ms: u64) -> u64 {
        self.known_before(unix_ms).unwrap_or(self.began_after)
    }

    /// The same; `None` if the time is before all events known.
    pub fn known_before(&self, unix_ms: u64) -> Option<u64> {
        let last_before = |marks: &VecDeque<TimeMark>| {
            let count = marks.partition_point(|mark| mark.unix_ms < unix_ms);
            count.checked_sub(1).map(|index| marks[index].sequence)
        };
        last_before(&self.recent).or_else(|| last_before(&self.older))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_position_before_a_time_has_all_earlier_events_and_no_later_one() {
        let mut times = EventTimes::new(1000, 7);
        for (unix_ms, sequence) in [(1000, 8), (1005, 9), (1005, 10), (1300, 11)] {
            times.note(unix_ms, sequence);
        }
        let positions = [999, 1000, 1001, 1005, 1006, 1300, 1301, 9999].map(|ms| times.before(ms));
        assert_eq!(positions, [7, 7, 8, 8, 10, 10, 11, 11]);
        assert!(times.began_after(999) && !times.began_after(1000));
    }

    #[test]
    fn old_times_are_kept_by_the_second_and_their_position_is_never_too_high() {
        let mut times = EventTimes::new(0, 0);
        let count = 3 * MAX_RECENT as u64;
        for sequence in 1..=count {
            times.note(100 * sequence, sequence);
        }
        assert!(times.older.len() < 2 * MAX_RECENT / 10 + 2);
        for sequence in 1..=count {
            let before = times.before(100 * sequence);
            assert!(before < sequence && before + 10 >= sequence, "{before} {sequence}");
        }
    }
}
