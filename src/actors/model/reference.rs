//! What was published, and what history must still hold: the simplest thing that is right.

use std::{
    collections::{HashMap, HashSet},
    time::Instant,
};

use crate::{config::Conflate, domain::policy::Policies};

/// An event as its publisher knows it; its data is its index.
#[derive(Debug)]
pub struct Record {
    pub topic: String,
    pub partition: u16,
    /// How often Redis was emptied before.
    pub era: u64,
    pub sequence: u64,
    pub event_type: Option<&'static str>,
    pub key: Option<&'static str>,
    pub at: Instant,
    /// Whether Redis has lost it, though it was acknowledged.
    pub is_lost: bool,
}

/// Everything published so far.
pub struct Reference {
    pub policies: Policies,
    pub records: Vec<Record>,
    held: HashMap<String, Vec<usize>>,
    /// What a resuming stream can no longer be given, superseded events aside.
    evicted: HashSet<usize>,
}

impl Reference {
    pub fn new(policies: Policies) -> Self {
        Self { policies, records: Vec::new(), held: HashMap::new(), evicted: HashSet::new() }
    }

    pub fn publish(&mut self, record: Record) {
        let now = record.at;
        self.expire(now);
        let index = self.records.len();
        let topic = record.topic.clone();
        self.records.push(record);
        let mut held = self.held.remove(&topic).unwrap_or_default();
        held.retain(|older| !self.is_same_item(*older, index));
        held.push(index);
        while held.len() > self.policies.of(&topic).history_events {
            self.evicted.insert(held.remove(0));
        }
        self.held.insert(topic, held);
    }

    /// Events that history does not hold, though nothing has superseded them there.
    pub fn evicted(&mut self, now: Instant) -> &HashSet<usize> {
        self.expire(now);
        &self.evicted
    }

    /// What came after a sequence of a partition is lost.
    pub fn lose(&mut self, partition: u16, kept: u64) {
        let records = &mut self.records;
        for held in self.held.values_mut() {
            held.retain(|index| {
                let record = &mut records[*index];
                record.is_lost |= record.partition == partition && record.sequence > kept;
                !record.is_lost
            });
        }
        for record in records.iter_mut() {
            record.is_lost |= record.partition == partition && record.sequence > kept;
        }
        // What a lost event had superseded does not come back in this Redis.
        let lost = records.iter().filter(|record| record.is_lost);
        let topics: HashSet<String> = lost.map(|record| record.topic.clone()).collect();
        for record in records.iter_mut().filter(|record| topics.contains(&record.topic)) {
            record.is_lost |= self.policies.of(&record.topic).conflates();
        }
    }

    /// Nothing is held any more.
    pub fn evict_all(&mut self) {
        self.evicted.extend(self.held.drain().flat_map(|(_, held)| held));
    }

    /// Whether the later event takes the place of the earlier.
    pub fn is_same_item(&self, earlier: usize, later: usize) -> bool {
        let (earlier, later) = (&self.records[earlier], &self.records[later]);
        !later.is_lost
            && earlier.topic == later.topic
            && earlier.era == later.era
            && match self.policies.of(&earlier.topic).conflate {
                Conflate::None => false,
                Conflate::Latest => true,
                Conflate::LatestByKey => earlier.key.is_some() && earlier.key == later.key,
            }
    }

    fn expire(&mut self, now: Instant) {
        for (topic, held) in &mut self.held {
            let ttl = self.policies.of(topic).history_ttl;
            let (expired, kept) =
                held.iter().partition(|index| self.records[**index].at + ttl <= now);
            *held = kept;
            self.evicted.extend::<Vec<usize>>(expired);
        }
    }
}
