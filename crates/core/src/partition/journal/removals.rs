//! Removals of keys by the hub itself: at the end of their time to live, and of values evicted by
//! the budget. They are records like any publish.
//!
//! A removal waits while an entry of its key is in flight: a later publish of the key cancels it,
//! but only once that publish is on disk.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use super::{
    JournaledPartition,
    accepted::Accepted,
    record::{BodyBytes, EventRecord},
};
use crate::{
    partition::memory::{Stamp, removal},
    partition_log::PartitionLog,
    topic::Topic,
};

/// Removals decided in one turn: about a millisecond.
const MAX_REMOVALS_A_TURN: usize = 256;

/// The pause after a refused removal: the disk is full.
const RETRY: Duration = Duration::from_secs(1);

/// A key to remove, unless it has been published again after this sequence.
struct Removal {
    topic: Topic,
    key: Box<str>,
    /// The sequence of the value.
    sequence: u64,
}

impl Removal {
    fn is_due(&self, log: &PartitionLog) -> bool {
        let history = log.history(&self.topic);
        let newest = history.and_then(|history| history.newest_of(&self.key));
        newest.is_none_or(|newest| newest <= self.sequence)
    }
}

#[derive(Default)]
pub(super) struct Removals {
    waiting: Vec<Removal>,
    retry_at: Option<Instant>,
    /// Other partitions due to trim their history after a removal.
    pub trims: Vec<u16>,
}

impl Removals {
    /// The journal refused the removal at this place: it comes again later.
    pub fn retry(&mut self, topic: Topic, key: Box<str>, stamp: Stamp, now: Instant) {
        self.waiting.push(Removal { topic, key, sequence: stamp.sequence });
        self.retry_at = Some(now + RETRY);
    }
}

impl<P: Clone> JournaledPartition<P> {
    /// Gathers the values evicted by the budget.
    pub(super) fn gather_lost(&mut self) {
        let lost = self.memory.log.take_lost().into_iter().filter_map(|value| {
            let key = value.body.key.clone()?;
            Some(Removal { topic: value.topic.clone(), key, sequence: value.sequence })
        });
        self.removals.waiting.extend(lost);
    }

    /// Adds the removal of a value lost before.
    pub(super) fn add_removal(&mut self, topic: Topic, key: Box<str>, sequence: u64) {
        self.removals.waiting.push(Removal { topic, key, sequence });
    }

    /// Accepts the removals of evicted values and of keys at the end of their time to live, as many
    /// as a short turn allows. Returns the time of the next one.
    pub fn end_keys(&mut self, now: Instant) -> Option<Instant> {
        while self.removals.waiting.len() < MAX_REMOVALS_A_TURN
            && let Some((sequence, topic, key)) =
                self.memory.key_ends.take_due(now, &self.memory.log)
        {
            self.removals.waiting.push(Removal { topic, key, sequence });
        }
        // Removals have no permits: the batches bound them. An answer of the journal starts a turn.
        if self.is_journal_busy() {
            return None;
        }
        let is_paused = self.removals.retry_at.is_some_and(|at| now < at);
        if !self.removals.waiting.is_empty() && !is_paused {
            self.removals.retry_at = None;
            self.accept_removals(now);
        }
        match self.removals.waiting.len() < MAX_REMOVALS_A_TURN {
            true => {
                let next = [self.memory.key_ends.next(), self.removals.retry_at];
                next.into_iter().flatten().min()
            }
            false => self.removals.retry_at,
        }
    }

    fn accept_removals(&mut self, now: Instant) {
        let mut in_flight = self.keys_in_flight();
        let mut accepted = 0;
        for removal in std::mem::take(&mut self.removals.waiting) {
            let key = (removal.topic.clone(), removal.key.clone());
            if accepted >= MAX_REMOVALS_A_TURN || in_flight.contains(&key) {
                self.removals.waiting.push(removal);
            } else if removal.is_due(&self.memory.log) {
                accepted += 1;
                in_flight.insert(key);
                self.accept_removal(removal, now);
            }
        }
    }

    /// The keys of all entries in flight.
    pub(super) fn keys_in_flight(&self) -> HashSet<(Topic, Box<str>)> {
        let keys = self.accepted.iter().flat_map(Accepted::keys);
        keys.map(|(topic, key)| (topic.clone(), key.into())).collect()
    }

    fn accept_removal(&mut self, due: Removal, now: Instant) {
        let Removal { topic, key, .. } = due;
        let stamp = self.stamp(now, 1);
        let body = removal(&topic, &key);
        let record = EventRecord {
            unix_ms: stamp.unix_ms,
            topic: topic.as_str(),
            id: None,
            ttl_ms: None,
            body: BodyBytes::of(&body),
        };
        let record = record.to_record(stamp.sequence);
        self.accept(Accepted::Removal { stamp, topic, key, body }, Some(record));
    }

    /// Takes the other partitions due to trim their history, besides those in the answers.
    pub fn take_trims(&mut self) -> Vec<u16> {
        let mut trims = std::mem::take(&mut self.removals.trims);
        trims.extend(self.memory.take_trims());
        trims
    }

    /// Evicts events while the budget is exceeded and this partition has the oldest.
    pub fn trim(&mut self) {
        let _ = self.memory.log.trim();
        self.gather_lost();
    }
}
