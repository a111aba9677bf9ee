//! The ends of keys with a time to live, of a partition with its log in memory.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    time::{Duration, Instant},
};

use crate::{event::SequencedEvent, partition_log::PartitionLog, topic::Topic};

/// Bytes of ends kept without a look for stale ones.
const SPARE_BYTES: usize = 64 * 1024;

/// An end counts while its value is the current one of its key; a later publish of the key leaves
/// the entry stale. Stale entries take at most as many bytes as the others, and [`SPARE_BYTES`].
#[derive(Debug)]
pub(super) struct KeyEnds {
    ends: BinaryHeap<KeyEnd>,
    bytes: usize,
    /// Above it, stale entries go.
    max_bytes: usize,
}

/// The moment, the sequence of the value, and its topic.
type KeyEnd = Reverse<(Instant, u64, Topic)>;

impl Default for KeyEnds {
    fn default() -> Self {
        Self { ends: BinaryHeap::new(), bytes: 0, max_bytes: SPARE_BYTES }
    }
}

impl KeyEnds {
    /// Adds the end of an event's key.
    pub fn add(&mut self, now: Instant, ttl: Duration, event: &SequencedEvent, log: &PartitionLog) {
        self.add_at(now.checked_add(ttl), event, log);
    }

    /// Adds the end of an event's key at a moment. A time beyond the range of the clock never ends.
    pub fn add_at(&mut self, at: Option<Instant>, event: &SequencedEvent, log: &PartitionLog) {
        let Some(at) = at else { return };
        self.bytes += bytes_of(&event.topic);
        self.ends.push(Reverse((at, event.sequence, event.topic.clone())));
        if self.bytes > self.max_bytes {
            self.drop_stale(log);
        }
    }

    fn drop_stale(&mut self, log: &PartitionLog) {
        self.ends.retain(|Reverse((_, sequence, topic))| key_of(log, topic, *sequence).is_some());
        self.ends.shrink_to(self.ends.len() * 2);
        self.bytes = self.ends.iter().map(|Reverse((.., topic))| bytes_of(topic)).sum();
        self.max_bytes = 2 * self.bytes + SPARE_BYTES;
    }

    /// Takes the next key at its end, with the sequence of its value.
    pub fn take_due(&mut self, now: Instant, log: &PartitionLog) -> Option<(u64, Topic, Box<str>)> {
        while self.next().is_some_and(|at| at <= now) {
            let Reverse((_, sequence, topic)) = self.ends.pop()?;
            self.bytes = self.bytes.saturating_sub(bytes_of(&topic));
            if let Some(key) = key_of(log, &topic, sequence) {
                return Some((sequence, topic, key));
            }
        }
        None
    }

    /// The next end, perhaps of a stale entry.
    pub fn next(&self) -> Option<Instant> {
        self.ends.peek().map(|Reverse((at, ..))| *at)
    }
}

/// The bytes of an end. A stale one may be the last to have its topic's name.
fn bytes_of(topic: &Topic) -> usize {
    size_of::<KeyEnd>() + topic.as_str().len()
}

/// The key with the event of this sequence as its current value.
fn key_of(log: &PartitionLog, topic: &Topic, sequence: u64) -> Option<Box<str>> {
    let event = log.history(topic)?.get(sequence)?;
    event.body.key.clone().filter(|_| event.is_current_value())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        budget::HistoryBudget,
        policy::{Conflate, Policies},
        testing,
    };

    #[test]
    fn stale_ends_of_long_names_are_bounded_in_bytes_and_no_current_one_is_dropped() {
        let (now, ttl) = (Instant::now(), Duration::from_secs(10));
        let policy = testing::policy(Conflate::LatestByKey);
        let policies = Policies::new((*policy).clone(), Vec::new());
        let budget = std::sync::Arc::new(HistoryBudget::new(usize::MAX / 2, 1, now));
        let mut log =
            PartitionLog::new(crate::cursor::Epoch::new(1), 0, 0, 0, policies.into(), budget, 100);
        let mut ends = KeyEnds::default();
        // A current value, and publishes without a place in history.
        let (kept, _) = log.append(&Topic::parse("kept").unwrap(), now, |sequence, history| {
            let event = testing::sequenced("kept", sequence, Some("k"), &history.policy);
            std::sync::Arc::into_inner(event).unwrap()
        });
        ends.add(now, ttl, &kept, &log);
        for number in 1..5000 {
            let topic = format!("{number:0>250}");
            ends.add(now, ttl, &testing::sequenced(&topic, number, Some("k"), &policy), &log);
            assert!(ends.bytes <= ends.max_bytes && ends.max_bytes < 2 * SPARE_BYTES);
        }
        assert!(ends.ends.len() < 300);
        let due = ends.take_due(now + ttl, &log).unwrap();
        assert_eq!((due.1.as_str(), &*due.2), ("kept", "k"));
        assert_eq!((ends.take_due(now + ttl, &log), ends.bytes), (None, 0));
    }
}
