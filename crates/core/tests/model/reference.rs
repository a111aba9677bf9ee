//! The reference: all published events, and the expected content of history, as simple as possible.

use std::{
    collections::{HashMap, HashSet},
    time::Instant,
};

use fanfare_core::{
    event::{EventBody, SequencedEvent},
    policy::{Conflate, Policies},
};

use crate::client::ModelLoss;

/// The topic, type and collapse key of mergeable events.
pub type CollapsedItem = (&'static str, Option<&'static str>, &'static str);

/// A published event.
#[derive(Debug)]
pub struct EventRecord {
    /// The number in its data. All events of a fan-out have the same number.
    pub number: usize,
    pub topic: &'static str,
    pub partition: u16,
    /// The number of times the model Redis was emptied before this event.
    pub era: u64,
    pub sequence: u64,
    pub event_type: Option<&'static str>,
    pub key: Option<&'static str>,
    /// Whether it removes its key.
    pub is_removal: bool,
    pub collapse: Option<&'static str>,
    pub at: Instant,
    /// Whether the model Redis lost the event after acknowledging it, perhaps together with the event
    /// superseding it.
    pub is_lost: bool,
    /// Whether the event itself is lost.
    pub is_gone: bool,
}

/// Everything published so far.
pub struct Reference {
    pub policies: Policies,
    pub records: Vec<EventRecord>,
    by_number: HashMap<usize, Vec<usize>>,
    by_place: HashMap<(&'static str, u64), usize>,
    held: HashMap<&'static str, Vec<usize>>,
    /// The same in the replicas still holding events lost by the model Redis: these make other events
    /// leave earlier. Only topics with such events.
    held_with_lost: HashMap<&'static str, Vec<usize>>,
    /// Partitions of the model Redis with lost events: after a sequence, up to another.
    lost_ranges: Vec<(u16, u64, u64)>,
    /// Events missing in history, except superseded ones: a resuming stream cannot get them.
    evicted: HashSet<usize>,
    /// For each of them, the partition's last sequence at the removal.
    evicted_at: HashMap<usize, u64>,
}

impl Reference {
    pub fn new(policies: Policies) -> Self {
        Self {
            policies,
            records: Vec::new(),
            by_number: HashMap::new(),
            by_place: HashMap::new(),
            held: HashMap::new(),
            held_with_lost: HashMap::new(),
            lost_ranges: Vec::new(),
            evicted: HashSet::new(),
            evicted_at: HashMap::new(),
        }
    }

    /// The indices of this number's events.
    pub fn of_number(&self, number: usize) -> &[usize] {
        self.by_number.get(&number).map_or(&[], |all| all)
    }

    /// The index of the last event with this number and topic.
    pub fn find(&self, number: usize, topic: &str) -> usize {
        let all = self.of_number(number).iter().rev();
        *all.into_iter().find(|index| self.records[**index].topic == topic).unwrap()
    }

    /// The last sequence of a partition.
    pub fn last_in(&self, partition: u16) -> u64 {
        let mut records = self.records.iter().rev();
        records.find(|record| record.partition == partition).map_or(0, |record| record.sequence)
    }

    /// These events of a partition as a loss.
    pub fn loss(&self, partition: u16, events: HashSet<usize>) -> ModelLoss {
        let topics = events.iter().map(|index| self.records[*index].topic.to_owned());
        ModelLoss { partition, topics: topics.collect(), events }
    }

    /// The indices of the event and of the events merged into it.
    pub fn all_in(&self, event: &SequencedEvent) -> Vec<usize> {
        let merged = event.merged().iter().copied().chain([event.sequence]);
        merged.map(|sequence| self.by_place[&(event.topic.as_str(), sequence)]).collect()
    }

    /// The item of a mergeable event; none if the event never merges.
    pub fn collapses_with(&self, index: usize) -> Option<CollapsedItem> {
        let record = &self.records[index];
        let is_collapsed = match self.policies.of(record.topic).conflate {
            Conflate::None => true,
            Conflate::Latest => false,
            Conflate::LatestByKey => record.key.is_none(),
        };
        let key = record.collapse.filter(|_| is_collapsed)?;
        Some((record.topic, record.event_type, key))
    }

    /// The number in an event's encoded data.
    pub fn number_of(body: &EventBody) -> usize {
        let data = std::str::from_utf8(&body.lines[body.data_at..]).unwrap();
        data.chars().filter(char::is_ascii_digit).collect::<String>().parse().unwrap()
    }

    pub fn publish(&mut self, record: EventRecord) {
        let now = record.at;
        self.expire(now);
        let (index, topic) = (self.records.len(), record.topic);
        self.by_number.entry(record.number).or_default().push(index);
        self.by_place.insert((record.topic, record.sequence), index);
        self.records.push(record);
        let mut held = self.held.remove(topic).unwrap_or_default();
        self.hold(&mut held, index);
        self.held.insert(topic, held);
        if let Some(mut held) = self.held_with_lost.remove(topic) {
            self.hold(&mut held, index);
            self.held_with_lost.insert(topic, held);
        }
    }

    /// Adds an event to its topic's history. The oldest leave for it.
    fn hold(&mut self, held: &mut Vec<usize>, index: usize) {
        held.retain(|older| !self.is_same_item(*older, index));
        held.push(index);
        let excess = held.iter().filter(|index| self.is_passing(**index)).count();
        for _ in self.policies.of(self.records[index].topic).history_events..excess {
            let oldest = held.iter().position(|index| self.is_passing(*index)).unwrap();
            self.evict(held.remove(oldest));
        }
    }

    /// Whether the event leaves history by number and age: it is not the value of a key.
    fn is_passing(&self, index: usize) -> bool {
        let record = &self.records[index];
        let policy = self.policies.of(record.topic);
        policy.conflate != Conflate::LatestByKey || record.key.is_none() || record.is_removal
    }

    /// Events missing in history without having been superseded.
    pub fn evicted(&mut self, now: Instant) -> &HashSet<usize> {
        self.expire(now);
        &self.evicted
    }

    /// Loses a partition's events after the sequence `kept`.
    pub fn lose(&mut self, partition: u16, kept: u64) {
        self.lost_ranges.push((partition, kept, self.last_in(partition)));
        let records = &mut self.records;
        let is_lost =
            |record: &EventRecord| record.partition == partition && record.sequence > kept;
        let lost = records.iter_mut().filter(|record| !record.is_lost && is_lost(record));
        let mut topics: HashSet<&str> = HashSet::new();
        for record in lost {
            (record.is_lost, record.is_gone) = (true, true);
            topics.insert(record.topic);
        }
        // A lost event has already removed the events superseded by it. The model Redis does not
        // restore them, so all events of a conflating topic count as lost.
        topics.retain(|topic| self.policies.of(topic).conflates());
        for record in records.iter_mut().filter(|record| topics.contains(record.topic)) {
            record.is_lost = true;
        }
        for (topic, held) in &mut self.held {
            let left = held.iter().copied().filter(|index| !is_lost(&records[*index]));
            let left: Vec<usize> = left.collect();
            let with_lost = std::mem::replace(held, left);
            if with_lost.len() > held.len() {
                self.held_with_lost.entry(topic).or_insert(with_lost);
            }
        }
    }

    /// Whether the model Redis lost events of a partition after the sequence `start`, up to `head`.
    pub fn has_lost(&self, partition: u16, start: u64, head: u64) -> bool {
        let mut ranges = self.lost_ranges.iter();
        ranges.any(|(number, kept, last)| *number == partition && *kept < head && start < *last)
    }

    /// Evicts all events from history.
    pub fn evict_all(&mut self) {
        let all: Vec<usize> = self.held.drain().flat_map(|(_, held)| held).collect();
        all.into_iter().for_each(|index| self.evict(index));
    }

    /// Whether the later event supersedes the earlier one.
    pub fn is_same_item(&self, earlier: usize, later: usize) -> bool {
        let (earlier, later) = (&self.records[earlier], &self.records[later]);
        earlier.topic == later.topic
            && earlier.era == later.era
            && match self.policies.of(earlier.topic).conflate {
                Conflate::None => false,
                Conflate::Latest => true,
                Conflate::LatestByKey => earlier.key.is_some() && earlier.key == later.key,
            }
    }

    /// Whether a removal of its key came after the event, up to this sequence.
    pub fn is_removed(&self, index: usize, head: u64) -> bool {
        (index + 1..self.records.len()).any(|later| {
            let record = &self.records[later];
            record.is_removal && record.sequence <= head && self.is_same_item(index, later)
        })
    }

    fn expire(&mut self, now: Instant) {
        let mut all: Vec<usize> = Vec::new();
        for (topic, mut held) in std::mem::take(&mut self.held) {
            let ttl = self.policies.of(topic).history_ttl;
            let is_expired =
                |index: &usize| self.is_passing(*index) && self.records[*index].at + ttl <= now;
            all.extend(held.extract_if(.., |index| is_expired(index)));
            self.held.insert(topic, held);
        }
        for (topic, mut held) in std::mem::take(&mut self.held_with_lost) {
            let ttl = self.policies.of(topic).history_ttl;
            held.retain(|index| !self.is_passing(*index) || self.records[*index].at + ttl > now);
            self.held_with_lost.insert(topic, held);
        }
        all.into_iter().for_each(|index| self.evict(index));
    }

    fn evict(&mut self, index: usize) {
        if self.evicted.insert(index) {
            self.evicted_at.insert(index, self.last_in(self.records[index].partition));
        }
    }

    /// Whether an event left history with its partition at this sequence, or later.
    pub fn was_evicted_from(&self, index: usize, head: u64) -> bool {
        self.evicted_at.get(&index).is_some_and(|at| *at >= head)
    }
}
