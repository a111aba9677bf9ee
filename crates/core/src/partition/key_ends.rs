//! The ends of keys with a time to live, of a partition with its log in memory.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    time::{Duration, Instant},
};

use crate::{event::SequencedEvent, partition_log::PartitionLog, topic::Topic};

/// An end counts while its value is the current one of its key; a later publish of the key leaves
/// the entry stale.
#[derive(Debug, Default)]
pub(super) struct KeyEnds(BinaryHeap<Reverse<(Instant, u64, Topic)>>);

impl KeyEnds {
    /// Adds the end of an event's key.
    pub fn add(&mut self, now: Instant, ttl: Duration, event: &SequencedEvent, log: &PartitionLog) {
        self.add_at(now.checked_add(ttl), event, log);
    }

    /// Adds the end of an event's key at a moment. A time beyond the range of the clock never ends.
    pub fn add_at(&mut self, at: Option<Instant>, event: &SequencedEvent, log: &PartitionLog) {
        let Some(at) = at else { return };
        // Stale entries must not outnumber the events in history.
        if self.0.len() > 2 * log.event_count() + 1024 {
            self.0.retain(|Reverse((_, sequence, topic))| key_of(log, topic, *sequence).is_some());
        }
        self.0.push(Reverse((at, event.sequence, event.topic.clone())));
    }

    /// Takes the next key at its end, with the sequence of its value.
    pub fn take_due(&mut self, now: Instant, log: &PartitionLog) -> Option<(u64, Topic, Box<str>)> {
        while self.next().is_some_and(|at| at <= now) {
            let Reverse((_, sequence, topic)) = self.0.pop()?;
            if let Some(key) = key_of(log, &topic, sequence) {
                return Some((sequence, topic, key));
            }
        }
        None
    }

    /// The next end, perhaps of a stale entry.
    pub fn next(&self) -> Option<Instant> {
        self.0.peek().map(|Reverse((at, ..))| *at)
    }
}

/// The key with the event of this sequence as its current value.
fn key_of(log: &PartitionLog, topic: &Topic, sequence: u64) -> Option<Box<str>> {
    let event = log.history(topic)?.get(sequence)?;
    event.body.key.clone().filter(|_| event.is_current_value())
}
