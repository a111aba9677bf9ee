//! The history of one topic: its events available for resume, and the highest missing sequence. A
//! conflating topic keeps its conflated view.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::Instant,
};

use crate::{
    event::SequencedEvent,
    interest::TypeFilter,
    policy::{Conflate, Policy},
};

/// Event types of a topic with separately recorded evictions.
const MAX_TYPES: usize = 16;

/// The last removal of an event: the event's sequence, and the removal's number in the partition.
#[derive(Debug, Clone, Copy, Default)]
struct Removal {
    sequence: u64,
    number: u64,
}

/// A topic's events in sequence order.
#[derive(Debug)]
pub struct HistoryRing {
    pub policy: Arc<Policy>,
    events: VecDeque<Arc<SequencedEvent>>,
    /// Sequence of each key's event, if the policy conflates by key.
    keys: HashMap<Box<str>, u64>,
    /// Highest sequence removed by other means than conflation. A stream at a lower position has
    /// missed something.
    evicted_through: u64,
    /// The number of the last such removal.
    evicted_at: u64,
    /// Highest sequence lost in every log: the policy removed it. A log in Redis may hold more than
    /// this ring.
    lost_through: u64,
    /// As `evicted_through`, for each event type: a stream with a type filter gets no gap for other
    /// types. At most [`MAX_TYPES`] entries; further types count as wanted by all streams.
    evicted_types: Vec<(Option<Box<str>>, Removal)>,
    evicted_other_types: Removal,
    /// Sequence of the topic's last event.
    last: u64,
    /// Whether the partition has listed the topic as idle, without events.
    pub is_listed_idle: bool,
    /// Whether the partition has listed the topic for the expiry of its oldest event.
    pub is_listed_to_expire: bool,
}

impl HistoryRing {
    pub fn new(policy: Arc<Policy>) -> Self {
        Self {
            policy,
            events: VecDeque::new(),
            keys: HashMap::new(),
            evicted_through: 0,
            evicted_at: 0,
            lost_through: 0,
            evicted_types: Vec::new(),
            evicted_other_types: Removal::default(),
            last: 0,
            is_listed_idle: false,
            is_listed_to_expire: false,
        }
    }

    /// Stores a new event and returns the events removed for it. `number` counts the removals of
    /// the partition.
    pub fn push(&mut self, event: Arc<SequencedEvent>, number: u64) -> Vec<Arc<SequencedEvent>> {
        self.last = event.sequence;
        let mut left = self.supersede(&event);
        if let (Conflate::LatestByKey, Some(key)) = (self.policy.conflate, &event.body.key) {
            self.keys.insert(key.clone(), event.sequence);
        }
        self.events.push_back(event);
        while self.events.len() > self.policy.history_events {
            left.extend(self.lose_oldest(number));
        }
        left
    }

    /// Records that this ring has nothing through `sequence`. Another log may have it.
    pub fn begin_after(&mut self, sequence: u64) {
        self.evicted_through = self.evicted_through.max(sequence);
    }

    /// Merges events of another log. `lost_through` is the highest sequence lost there. `begin` is set
    /// if the ring is then complete after this sequence: the other log's events must reach to the
    /// ring's own complete part. Returns the ring's events before the merge: the caller releases
    /// their bytes from the budget, and adds the bytes of all events in the ring.
    pub fn merge(
        &mut self,
        older: Vec<Arc<SequencedEvent>>,
        begin: Option<u64>,
        lost_through: u64,
        number: u64,
    ) -> Vec<Arc<SequencedEvent>> {
        let before: Vec<_> = std::mem::take(&mut self.events).into();
        let last = self.last;
        // Both logs may have an event: sort by sequence, each event once.
        let mut all: BTreeMap<u64, Arc<SequencedEvent>> = BTreeMap::new();
        all.extend(before.iter().chain(&older).map(|event| (event.sequence, event.clone())));
        self.keys.clear();
        self.evicted_through =
            begin.map_or(self.evicted_through, |begin| self.evicted_through.min(begin));
        self.evicted_through = self.evicted_through.max(lost_through);
        self.lost_through = self.lost_through.max(lost_through);
        for event in all.into_values() {
            self.push(event, number);
        }
        // `push` set the last event in the ring; the topic's last event may have been evicted.
        self.last = self.last.max(last);
        before
    }

    /// Removes the oldest event. A stream without it gets a gap later.
    pub fn evict_oldest(&mut self, number: u64) -> Option<Arc<SequencedEvent>> {
        let event = self.events.pop_front()?;
        self.evicted_through = self.evicted_through.max(event.sequence);
        self.evicted_at = number;
        self.note_evicted_type(&event, number);
        self.forget_key(&event);
        Some(event)
    }

    /// Removes the oldest event because of the policy: other logs of the topic drop it too.
    fn lose_oldest(&mut self, number: u64) -> Option<Arc<SequencedEvent>> {
        let event = self.evict_oldest(number)?;
        self.lost_through = self.lost_through.max(event.sequence);
        Some(event)
    }

    /// Removes events older than the policy's time to live.
    pub fn expire(&mut self, now: Instant, number: u64) -> Vec<Arc<SequencedEvent>> {
        let mut left = Vec::new();
        while self.expires_at().is_some_and(|at| at <= now) {
            left.extend(self.lose_oldest(number));
        }
        left
    }

    /// The expiry of the oldest event.
    pub fn expires_at(&self) -> Option<Instant> {
        let oldest = self.events.front()?;
        // A time to live beyond the range of the clock never ends.
        oldest.published_at.checked_add(self.policy.history_ttl)
    }

    /// The events after a sequence, oldest first.
    pub fn after(&self, sequence: u64) -> impl Iterator<Item = &Arc<SequencedEvent>> {
        let first = self.events.partition_point(|event| event.sequence <= sequence);
        self.events.range(first..)
    }

    /// Whether wanted events after `sequence` were removed, after the removal number `told`.
    pub fn has_lost(&self, sequence: u64, types: &TypeFilter, told: u64) -> bool {
        let is_lost = |removal: &Removal| removal.sequence > sequence && removal.number > told;
        if types.is_all() {
            return self.evicted_through > sequence && self.evicted_at > told;
        }
        let mut types_lost = self.evicted_types.iter();
        is_lost(&self.evicted_other_types)
            || types_lost.any(|(event_type, removal)| {
                is_lost(removal) && types.wants_type(event_type.as_deref())
            })
    }

    /// The number of the last removal.
    pub fn evicted_at(&self) -> u64 {
        self.evicted_at
    }

    /// Highest sequence removed by other means than conflation.
    pub fn evicted_through(&self) -> u64 {
        self.evicted_through
    }

    /// Whether another log may have events after `sequence` missing here.
    pub fn may_reach_back_elsewhere(&self, sequence: u64) -> bool {
        self.evicted_through > sequence.max(self.lost_through)
    }

    /// All events in the ring, oldest first.
    pub fn events(&self) -> impl Iterator<Item = &Arc<SequencedEvent>> {
        self.events.iter()
    }

    /// Sequence of the topic's last event, in the ring or evicted.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Sequence of the oldest event in the ring.
    pub fn oldest(&self) -> Option<u64> {
        self.events.front().map(|event| event.sequence)
    }

    /// Whether the event of this sequence is in the ring.
    pub fn holds(&self, sequence: u64) -> bool {
        self.get(sequence).is_some()
    }

    /// The event of this sequence.
    pub fn get(&self, sequence: u64) -> Option<&Arc<SequencedEvent>> {
        let found = self.events.binary_search_by_key(&sequence, |event| event.sequence);
        found.ok().map(|index| &self.events[index])
    }

    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    fn note_evicted_type(&mut self, event: &SequencedEvent, number: u64) {
        let removal = Removal { sequence: event.sequence, number };
        let known =
            self.evicted_types.iter().position(|(known, _)| *known == event.body.event_type);
        match known {
            Some(index) => self.evicted_types[index].1 = removal,
            None if self.evicted_types.len() < MAX_TYPES => {
                self.evicted_types.push((event.body.event_type.clone(), removal));
            }
            None => self.evicted_other_types = removal,
        }
    }

    fn supersede(&mut self, event: &SequencedEvent) -> Vec<Arc<SequencedEvent>> {
        match self.policy.conflate {
            Conflate::None => Vec::new(),
            Conflate::Latest => self.events.drain(..).collect(),
            Conflate::LatestByKey => {
                let older = event.body.key.as_ref().and_then(|key| self.keys.remove(key));
                older.and_then(|sequence| self.remove(sequence)).into_iter().collect()
            }
        }
    }

    fn remove(&mut self, sequence: u64) -> Option<Arc<SequencedEvent>> {
        let index = self.events.binary_search_by_key(&sequence, |event| event.sequence).ok()?;
        self.events.remove(index)
    }

    fn forget_key(&mut self, event: &SequencedEvent) {
        if let Some(key) = &event.body.key
            && self.keys.get(key) == Some(&event.sequence)
        {
            self.keys.remove(key);
        }
    }
}
