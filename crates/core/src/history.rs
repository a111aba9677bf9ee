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
    policy::{Conflate, Policies, Policy},
    topic::{Topic, fnv1a},
};

/// Event types of a topic with separately recorded evictions.
const MAX_TYPES: usize = 16;

/// The last removal of an event of some type: the type's hash, the removal's number in the partition
/// and the event's sequence. The number is cut to its low bits, to save memory.
#[derive(Debug, Clone, Copy, Default)]
struct Removal {
    hash: u32,
    number: u32,
    sequence: u64,
}

impl Removal {
    /// Whether an event after `sequence` was removed, after the removal number `told`; 0 is before
    /// all. The numbers of two pages of a replay are less than 2^31 apart.
    fn is_lost(&self, sequence: u64, told: u64) -> bool {
        let is_later = told == 0 || (self.number.wrapping_sub(told as u32) as i32) > 0;
        self.sequence > sequence && is_later
    }
}

/// The keys of a topic conflated by key.
#[derive(Debug, Default)]
struct Keys {
    /// The sequence of each key's newest event.
    newest: HashMap<Box<str>, u64>,
    /// The sequences of all other events in the ring, ascending: of removed keys, and without a key.
    /// Only these leave by number and age.
    passing: VecDeque<u64>,
}

impl Keys {
    fn forget_passing(&mut self, sequence: u64) {
        if let Ok(place) = self.passing.binary_search(&sequence) {
            self.passing.remove(place);
        }
    }
}

/// The event types of evicted events, as hashes: a name has up to 256 bytes, and a topic is
/// remembered long after its events. Two types of the same hash count as one, so a stream can get a
/// gap too much, never one too few.
#[derive(Debug)]
enum EvictedTypes {
    None,
    /// One type, evicted up to `evicted_through`. The usual case, without memory of its own.
    One(u32),
    Many(Box<ManyTypes>),
}

#[derive(Debug)]
struct ManyTypes {
    /// Each type with its last removal; at most [`MAX_TYPES`].
    known: Vec<Removal>,
    /// The last removal of all further types. They count as wanted by all streams.
    others: Removal,
}

impl ManyTypes {
    fn note(&mut self, removal: Removal) {
        let place = self.known.iter().position(|known| known.hash == removal.hash);
        let last = match place {
            Some(place) => &mut self.known[place],
            None if self.known.len() < MAX_TYPES => {
                return self.known.push(removal);
            }
            None => &mut self.others,
        };
        *last = removal;
    }
}

/// An event without a type has the type `message` (WHATWG HTML §9.2.6). The log on disk keeps these
/// hashes, so they must never change.
fn type_hash(event_type: Option<&str>) -> u32 {
    fnv1a(event_type.unwrap_or("message").as_bytes())
}

/// The last removals of each event type of a topic, by the hash of the type.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RemovedTypes {
    pub known: Vec<(u32, u64)>,
    /// The last removal of all further types.
    pub others: u64,
}

/// A topic's events in sequence order.
#[derive(Debug)]
pub struct HistoryRing {
    pub topic: Topic,
    pub policy: Arc<Policy>,
    events: VecDeque<Arc<SequencedEvent>>,
    /// Set if the policy conflates by key and the ring has an event.
    keys: Option<Box<Keys>>,
    /// Highest sequence removed by other means than conflation. A stream at a lower position has
    /// missed something.
    evicted_through: u64,
    /// The low bits of the number of the last such removal.
    evicted_at: u32,
    /// Highest sequence lost in every log: the policy removed it. A log in Redis may hold more than
    /// this ring.
    lost_through: u64,
    /// Highest sequence perhaps missing in this ring only. The current values of keys outlive the
    /// events removed by the policy: the log in Redis may have values up to here.
    absent_through: u64,
    /// Whether the last removal made room for a new event of the topic.
    was_trimmed: bool,
    /// As `evicted_through`, for each event type: a stream with a type filter gets no gap for other
    /// types.
    evicted_types: EvictedTypes,
    /// Sequence of the topic's last event.
    last: u64,
    /// The bytes of the topic without its events, as last counted by the partition, and whether they
    /// were counted as idle.
    pub counted: (u32, bool),
    /// Whether the partition has listed the topic as idle, without events.
    pub is_listed_idle: bool,
    /// Whether the partition has listed the topic for the expiry of its oldest event.
    pub is_listed_to_expire: bool,
}

impl HistoryRing {
    pub fn new(topic: Topic, policies: &Policies) -> Self {
        Self {
            policy: policies.of(topic.as_str()).clone(),
            topic,
            events: VecDeque::new(),
            keys: None,
            evicted_through: 0,
            evicted_at: 0,
            lost_through: 0,
            absent_through: 0,
            was_trimmed: false,
            evicted_types: EvictedTypes::None,
            last: 0,
            counted: (0, false),
            is_listed_idle: false,
            is_listed_to_expire: false,
        }
    }

    /// Stores a new event and returns the events removed for it. `number` counts the removals of
    /// the partition.
    pub fn push(&mut self, event: Arc<SequencedEvent>, number: u64) -> Vec<Arc<SequencedEvent>> {
        self.last = event.sequence;
        let mut left = self.supersede(&event);
        if self.policy.conflate == Conflate::LatestByKey {
            let keys = self.keys.get_or_insert_default();
            if let Some(key) = &event.body.key {
                keys.newest.insert(key.clone(), event.sequence);
            }
            if !event.is_current_value() {
                keys.passing.push_back(event.sequence);
            }
        }
        if self.events.capacity() == 0 {
            // Room for one: very many topics have a single event.
            self.events.reserve_exact(1);
        }
        self.events.push_back(event);
        while self.passing_count() > self.policy.history_events {
            left.extend(self.lose_oldest(number));
            self.was_trimmed = true;
        }
        left
    }

    /// Records that this ring has nothing through `sequence`. Another log may have it.
    pub fn begin_after(&mut self, sequence: u64) {
        self.evicted_through = self.evicted_through.max(sequence);
        self.absent_through = self.absent_through.max(sequence);
    }

    /// Drops all events. Another log may have some of them up to `sequence`.
    pub fn begin_anew(&mut self, sequence: u64) -> Vec<Arc<SequencedEvent>> {
        self.begin_after(sequence);
        self.keys = None;
        std::mem::take(&mut self.events).into()
    }

    /// The removals by event type.
    pub fn removed_types(&self) -> RemovedTypes {
        match &self.evicted_types {
            EvictedTypes::None => RemovedTypes::default(),
            EvictedTypes::One(hash) => {
                RemovedTypes { known: vec![(*hash, self.evicted_through)], others: 0 }
            }
            EvictedTypes::Many(many) => {
                let known = many.known.iter().map(|removal| (removal.hash, removal.sequence));
                RemovedTypes { known: known.collect(), others: many.others.sequence }
            }
        }
    }

    /// Adds the removals of an earlier time, and the sequence of the last event then. `number` is
    /// the number of these removals in the partition.
    pub fn restore_removals(
        &mut self,
        last: u64,
        evicted_through: u64,
        earlier: &RemovedTypes,
        number: u64,
    ) {
        let number = number as u32;
        let own = self.removed_types();
        let mut many = ManyTypes { known: Vec::new(), others: Removal::default() };
        let mut known: BTreeMap<u32, u64> = BTreeMap::new();
        for (hash, sequence) in own.known.iter().chain(&earlier.known) {
            let last = known.entry(*hash).or_default();
            *last = (*last).max(*sequence);
        }
        known
            .into_iter()
            .for_each(|(hash, sequence)| many.note(Removal { hash, number, sequence }));
        let others = own.others.max(earlier.others).max(many.others.sequence);
        many.others = Removal { hash: 0, number, sequence: others };
        self.last = self.last.max(last);
        self.evicted_through = self.evicted_through.max(evicted_through);
        self.evicted_at = number;
        let is_one =
            others == 0 && matches!(&many.known[..], [one] if one.sequence == self.evicted_through);
        self.evicted_types = match is_one {
            true => EvictedTypes::One(many.known[0].hash),
            false => EvictedTypes::Many(Box::new(many)),
        };
    }

    /// Merges events of another log. `lost_through` is the highest sequence lost there; `is_trimmed`:
    /// it made room for a new event of the topic. `begin` is set if the ring is then complete after
    /// this sequence: the other log's events must reach to the ring's own complete part. Returns the
    /// ring's events before the merge: the caller releases their bytes from the budget, and adds the
    /// bytes of all events in the ring.
    pub fn merge(
        &mut self,
        older: Vec<Arc<SequencedEvent>>,
        begin: Option<u64>,
        lost_through: u64,
        is_trimmed: bool,
        number: u64,
    ) -> Vec<Arc<SequencedEvent>> {
        let before: Vec<_> = std::mem::take(&mut self.events).into();
        let last = self.last;
        // Both logs may have an event: sort by sequence, each event once.
        let mut all: BTreeMap<u64, Arc<SequencedEvent>> = BTreeMap::new();
        all.extend(before.iter().chain(&older).map(|event| (event.sequence, event.clone())));
        self.keys = None;
        self.evicted_through =
            begin.map_or(self.evicted_through, |begin| self.evicted_through.min(begin));
        self.absent_through =
            begin.map_or(self.absent_through, |begin| self.absent_through.min(begin));
        self.evicted_through = self.evicted_through.max(lost_through);
        if lost_through >= self.lost_through {
            self.was_trimmed = is_trimmed;
        }
        self.lost_through = self.lost_through.max(lost_through);
        for event in all.into_values() {
            self.push(event, number);
        }
        // `push` set the last event in the ring; the topic's last event may have been evicted.
        self.last = self.last.max(last);
        before
    }

    /// The number of events without the current values of keys.
    fn passing_count(&self) -> usize {
        self.keys.as_ref().map_or(self.events.len(), |keys| keys.passing.len())
    }

    /// The oldest event except the current values of keys.
    fn oldest_passing(&self) -> Option<&Arc<SequencedEvent>> {
        match &self.keys {
            Some(keys) => self.get(*keys.passing.front()?),
            None => self.events.front(),
        }
    }

    /// Removes an event for the budget: another log may have it. A stream without it gets a gap
    /// later.
    pub fn evict(&mut self, sequence: u64, number: u64) -> Option<Arc<SequencedEvent>> {
        let event = self.lose(sequence, number)?;
        self.absent_through = self.absent_through.max(sequence);
        Some(event)
    }

    fn lose(&mut self, sequence: u64, number: u64) -> Option<Arc<SequencedEvent>> {
        let event = self.remove(sequence)?;
        self.note_evicted_type(&event, number);
        self.evicted_through = self.evicted_through.max(event.sequence);
        self.evicted_at = number as u32;
        self.was_trimmed = false;
        self.forget_key(&event);
        if self.events.is_empty() {
            // An idle topic keeps no memory for events.
            (self.events, self.keys) = (VecDeque::new(), None);
        }
        Some(event)
    }

    /// Removes the oldest event, except current values, because of the policy: other logs of the
    /// topic drop it too.
    fn lose_oldest(&mut self, number: u64) -> Option<Arc<SequencedEvent>> {
        let sequence = self.oldest_passing()?.sequence;
        let event = self.lose(sequence, number)?;
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

    /// The expiry of the oldest event. Current values of keys do not expire.
    pub fn expires_at(&self) -> Option<Instant> {
        let oldest = self.oldest_passing()?;
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
        let is_lost = |removal: &Removal| removal.is_lost(sequence, told);
        let (sequence_of_all, number) = (self.evicted_through, self.evicted_at);
        let all = Removal { hash: 0, number, sequence: sequence_of_all };
        let wants = |hash: u32| types.any(|wanted| type_hash(Some(wanted)) == hash);
        match &self.evicted_types {
            _ if types.is_all() => is_lost(&all),
            EvictedTypes::None => false,
            EvictedTypes::One(hash) => is_lost(&all) && wants(*hash),
            EvictedTypes::Many(many) => {
                let mut known = many.known.iter();
                is_lost(&many.others) || known.any(|known| is_lost(known) && wants(known.hash))
            }
        }
    }

    /// Whether all removals were before the partition reached this sequence. False if in doubt.
    pub fn has_lost_only_before(&self, head: u64) -> bool {
        self.was_trimmed && self.last <= head
    }

    /// Whether the last removal has this number.
    pub fn was_evicted_at(&self, number: u64) -> bool {
        self.evicted_at == number as u32
    }

    /// Highest sequence removed by other means than conflation.
    pub fn evicted_through(&self) -> u64 {
        self.evicted_through
    }

    /// Whether another log may have events after `sequence` missing here.
    pub fn may_reach_back_elsewhere(&self, sequence: u64) -> bool {
        let lost_through = match self.policy.conflate {
            Conflate::LatestByKey => 0,
            Conflate::None | Conflate::Latest => self.lost_through,
        };
        self.absent_through > sequence.max(lost_through)
    }

    /// All events in the ring, oldest first.
    pub fn events(&self) -> impl Iterator<Item = &Arc<SequencedEvent>> {
        self.events.iter()
    }

    /// Sequence of the topic's last event, in the ring or evicted.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Whether the key has a current value in the ring.
    pub fn has_value(&self, key: &str) -> bool {
        let newest = self.keys.as_ref().and_then(|keys| keys.newest.get(key));
        newest
            .and_then(|sequence| self.get(*sequence))
            .is_some_and(|event| event.is_current_value())
    }

    /// The sequence of the key's newest event in the ring, a removal included.
    pub fn newest_of(&self, key: &str) -> Option<u64> {
        self.keys.as_ref()?.newest.get(key).copied()
    }

    /// Whether the event of this sequence is in the ring.
    pub fn holds(&self, sequence: u64) -> bool {
        self.get(sequence).is_some()
    }

    /// The event of this sequence.
    pub fn get(&self, sequence: u64) -> Option<&Arc<SequencedEvent>> {
        self.place_of(sequence).map(|index| &self.events[index])
    }

    /// The index of an event. Nearly always it is the first or the last: a search would load a
    /// dozen events from memory.
    fn place_of(&self, sequence: u64) -> Option<usize> {
        let is_at = |index: usize| self.events.get(index).is_some_and(|at| at.sequence == sequence);
        let last = self.events.len().checked_sub(1)?;
        if is_at(0) {
            return Some(0);
        }
        if is_at(last) {
            return Some(last);
        }
        self.events.binary_search_by_key(&sequence, |event| event.sequence).ok()
    }

    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Approximate memory of the topic without its events: this ring, and its places in the maps and
    /// lists of the partition.
    pub fn topic_bytes(&self) -> usize {
        // A name has its text and two counters. A map has up to twice the places it uses, and so
        // have the list of expiries, with entries of forgotten topics, and the list of idle topics.
        const PLACES: usize = 2 * (size_of::<(Topic, Box<HistoryRing>)>() + 1)
            + 2 * size_of::<(Instant, Topic)>()
            + size_of::<(Topic, u64)>();
        let name = self.topic.as_str().len() + 2 * size_of::<usize>();
        let types = match &self.evicted_types {
            EvictedTypes::None | EvictedTypes::One(_) => 0,
            EvictedTypes::Many(many) => {
                size_of::<ManyTypes>() + many.known.capacity() * size_of::<Removal>()
            }
        };
        size_of::<Self>() + PLACES + name + types
    }

    /// Must come before the change of `evicted_through`.
    fn note_evicted_type(&mut self, event: &SequencedEvent, number: u64) {
        let hash = type_hash(event.event_type());
        let removal = Removal { hash, number: number as u32, sequence: event.sequence };
        let (sequence, number) = (self.evicted_through, self.evicted_at);
        match &mut self.evicted_types {
            EvictedTypes::None => self.evicted_types = EvictedTypes::One(hash),
            EvictedTypes::One(known) if *known == hash => {}
            EvictedTypes::One(known) => {
                let known = vec![Removal { hash: *known, number, sequence }, removal];
                self.evicted_types =
                    EvictedTypes::Many(Box::new(ManyTypes { known, others: Removal::default() }));
            }
            EvictedTypes::Many(many) => many.note(removal),
        }
    }

    fn supersede(&mut self, event: &SequencedEvent) -> Vec<Arc<SequencedEvent>> {
        match self.policy.conflate {
            Conflate::None => Vec::new(),
            Conflate::Latest => self.events.drain(..).collect(),
            Conflate::LatestByKey => {
                let keys = self.keys.as_mut();
                let older = keys.zip(event.body.key.as_ref());
                let older = older.and_then(|(keys, key)| {
                    let sequence = keys.newest.remove(key)?;
                    keys.forget_passing(sequence);
                    Some(sequence)
                });
                older.and_then(|sequence| self.remove(sequence)).into_iter().collect()
            }
        }
    }

    fn remove(&mut self, sequence: u64) -> Option<Arc<SequencedEvent>> {
        self.events.remove(self.place_of(sequence)?)
    }

    fn forget_key(&mut self, event: &SequencedEvent) {
        let Some(keys) = &mut self.keys else { return };
        keys.forget_passing(event.sequence);
        if let Some(key) = &event.body.key
            && keys.newest.get(key) == Some(&event.sequence)
        {
            keys.newest.remove(key);
        }
    }
}
