//! The log of one partition. It numbers events, keeps their history, and computes replays.
//!
//! Not here: listeners (`partition`), the encoding of events (`sse`). `pages` computes the replays.

mod eviction;
mod losses;
mod pages;
mod times;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
    sync::Arc,
    time::Instant,
};

use times::EventTimes;

pub use losses::Losses;

use crate::{
    budget::HistoryBudget,
    cursor::{Epoch, ReplayKind},
    event::SequencedEvent,
    history::HistoryRing,
    interest::{Interest, Rest, StartFrom},
    policy::Policies,
    topic::Topic,
};

/// The answer to an attach: a page of the missing events.
#[derive(Debug)]
pub struct Replay {
    pub epoch: Epoch,
    /// The stream's position before the first of `events`.
    pub start: u64,
    /// The stream's position after the last of `events`. After the last page, all newer events
    /// arrive live.
    pub head: u64,
    /// The events before the live events, in sequence order.
    pub events: Vec<Arc<SequencedEvent>>,
    /// The missed events not in `events`, if any.
    pub missed: Option<Missed>,
    /// The start of the next page. None for the last page: the stream is then attached.
    pub next: Option<Rest>,
    /// The mark in the stream's cursor until the replay's end, if it needs one.
    pub mark: Option<(ReplayKind, u64)>,
}

/// The missed events a replay cannot restore. The stream gets a gap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missed {
    pub reason: MissedReason,
    /// The known topics of missed events: at most 100.
    pub topics: Vec<Topic>,
}

/// The reason of a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissedReason {
    /// History does not reach back to the position.
    History,
    /// The cursor belongs to another epoch.
    Epoch,
}

/// Bound on the topics named by a `gap`, so that it stays a small event.
const MAX_MISSED_TOPICS: usize = 100;

/// Sequence and history of one partition.
#[derive(Debug)]
pub struct PartitionLog {
    epoch: Epoch,
    partition: u16,
    sequence: u64,
    policies: Arc<Policies>,
    budget: Arc<HistoryBudget>,
    /// Boxes: the table has spare places.
    topics: HashMap<Topic, Box<HistoryRing>>,
    /// All events in sequence order. Stale entries, gone from their topic's history, are dropped
    /// later.
    order: VecDeque<(u64, Topic)>,
    /// Current values of keys, moved here from the front of `order` when the budget needed room:
    /// younger events of other kinds leave before them. All are older than the events in `order`.
    held: VecDeque<(u64, Topic)>,
    /// Current values evicted by the budget, for [`Self::take_lost`]. Only the log itself loses a
    /// value; a cache of another log loses none.
    lost: Option<Vec<Arc<SequencedEvent>>>,
    kept_events: usize,
    /// Bytes of the events, and of the topics with events.
    kept_bytes: usize,
    /// Bytes of the topics without events.
    idle_bytes: usize,
    /// The next expiry check of each topic with events. Entries of forgotten topics are dropped
    /// later.
    expiries: BinaryHeap<Reverse<(Instant, Topic)>>,
    /// Topics without events, by the time of the last removal, each with its last sequence then.
    idle: VecDeque<(Topic, u64)>,
    max_idle_topics: usize,
    /// Highest last sequence of all forgotten topics.
    forgotten_through: u64,
    /// Highest sequence removed from any topic's history, except by conflation.
    evicted_through: u64,
    /// The number of the last change with such removals.
    evictions: u64,
    times: EventTimes,
    losses: Losses,
    /// The budget evicts no event after this sequence.
    pinned_after: Option<u64>,
    /// Events visited by pages since the last [`Self::take_visits`].
    visits: usize,
}

impl PartitionLog {
    /// An empty log starting after `sequence`, at this time (in milliseconds since 1970). Streams at
    /// lower positions have missed events.
    pub fn new(
        epoch: Epoch,
        partition: u16,
        sequence: u64,
        began_at: u64,
        policies: Arc<Policies>,
        budget: Arc<HistoryBudget>,
        max_idle_topics: usize,
    ) -> Self {
        Self {
            epoch,
            partition,
            sequence,
            policies,
            budget,
            topics: HashMap::new(),
            order: VecDeque::new(),
            held: VecDeque::new(),
            lost: None,
            kept_events: 0,
            kept_bytes: 0,
            idle_bytes: 0,
            expiries: BinaryHeap::new(),
            idle: VecDeque::new(),
            max_idle_topics,
            forgotten_through: sequence,
            evicted_through: sequence,
            evictions: 0,
            times: EventTimes::new(began_at, sequence),
            losses: Losses::default(),
            pinned_after: None,
            visits: 0,
        }
    }

    /// Collects evicted values of keys: this log is not a cache of another.
    #[must_use]
    pub fn telling_lost_values(mut self) -> Self {
        self.lost = Some(Vec::new());
        self
    }

    /// Takes the current values of keys evicted by the budget. Their keys are removed: tell it.
    pub fn take_lost(&mut self) -> Vec<Arc<SequencedEvent>> {
        self.lost.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The number of events in history.
    pub fn event_count(&self) -> usize {
        self.kept_events
    }

    /// The last sequence given out.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The number of topics, including remembered topics without events.
    pub fn topic_count(&self) -> usize {
        self.topics.len()
    }

    /// Gives the next sequence to the event made by `build`, and stores it. `build` runs before any
    /// event changes, so its panic leaves the log's events unchanged.
    ///
    /// Returns the event. If the budget is exceeded, also returns the partition due to evict the
    /// oldest event, unless it is this one.
    pub fn append(
        &mut self,
        topic: &Topic,
        now: Instant,
        build: impl FnOnce(u64, &HistoryRing) -> SequencedEvent,
    ) -> (Arc<SequencedEvent>, Option<u16>) {
        self.append_at(self.sequence + 1, topic, now, build)
    }

    /// The same for an event with a given sequence. It must be higher than the last sequence.
    pub fn append_at(
        &mut self,
        sequence: u64,
        topic: &Topic,
        now: Instant,
        build: impl FnOnce(u64, &HistoryRing) -> SequencedEvent,
    ) -> (Arc<SequencedEvent>, Option<u16>) {
        let number = self.evictions + 1;
        let history = self.history_of(topic);
        // One copy of the name for all events of the topic: a publisher's copy goes.
        let topic = &history.topic.clone();
        let event = Arc::new(SequencedEvent { topic: topic.clone(), ..build(sequence, history) });
        let left = history.push(event.clone(), number);
        let is_kept = history.holds(event.sequence);
        let listing = listing_of(topic, history);
        self.sequence = event.sequence;
        self.times.note(event.unix_ms, event.sequence);
        if is_kept {
            self.order.push_back((event.sequence, topic.clone()));
        }
        self.expiries.extend(listing);
        self.count_in(&event);
        self.count_out(&left);
        self.note_evictions(topic);
        let excess = self.keep_within_budget();
        self.expire(now);
        (event, excess)
    }

    fn history_of(&mut self, topic: &Topic) -> &mut HistoryRing {
        let policies = &self.policies;
        self.topics
            .entry(topic.clone())
            .or_insert_with(|| Box::new(HistoryRing::new(topic.clone(), policies)))
    }

    fn list_to_expire(&mut self, topic: &Topic) {
        let listing = self.topics.get_mut(topic).and_then(|history| listing_of(topic, history));
        self.expiries.extend(listing);
    }

    /// The time of the last event, or of the log's beginning.
    pub fn last_time(&self) -> u64 {
        self.times.last()
    }

    /// The last sequence known to be before a time.
    pub fn known_before(&self, unix_ms: u64) -> Option<u64> {
        self.times.known_before(unix_ms)
    }

    /// Whether the log began after this time.
    pub fn began_after(&self, unix_ms: u64) -> bool {
        self.times.began_after(unix_ms)
    }

    /// The start with a time replaced by the position before it.
    pub fn located(&self, from: StartFrom) -> StartFrom {
        match from {
            StartFrom::Since { unix_ms, epoch } => StartFrom::After {
                epoch: epoch.unwrap_or(self.epoch),
                sequence: self.times.before(unix_ms),
                since: unix_ms,
            },
            other => other,
        }
    }

    // For a replica: a log caching a part of another log.

    /// The epoch of the sequences.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Names the same sequences by a new epoch.
    pub fn rename(&mut self, epoch: Epoch) {
        self.epoch = epoch;
    }

    /// Moves the last sequence forward. The caller has all wanted events up to it.
    pub fn advance(&mut self, sequence: u64) {
        self.sequence = self.sequence.max(sequence);
    }

    /// Begins a topic's history after this sequence: its older events are missing here.
    pub fn begin_topic(&mut self, topic: &Topic, sequence: u64) {
        self.history_of(topic).begin_after(sequence);
        self.note_evictions(topic);
    }

    /// Drops a topic's events, and begins its history after this sequence.
    pub fn begin_topic_anew(&mut self, topic: &Topic, sequence: u64) {
        let left = self.history_of(topic).begin_anew(sequence);
        self.count_out(&left);
        self.note_evictions(topic);
        self.tidy();
    }

    /// Drops all other topics with their history.
    pub fn keep_topics(&mut self, mut is_kept: impl FnMut(&Topic) -> bool) {
        let dropped = self.topics.extract_if(|topic, _| !is_kept(topic));
        let dropped: Vec<Box<HistoryRing>> = dropped.map(|(_, history)| history).collect();
        for history in dropped {
            self.count_out(&history.events().cloned().collect::<Vec<_>>());
            self.release_topic(history.counted);
        }
        self.tidy();
    }

    /// A topic's history; `None` for a forgotten topic, or one without events since the log began.
    pub fn history(&self, topic: &Topic) -> Option<&HistoryRing> {
        self.topics.get(topic).map(|history| &**history)
    }

    /// Highest last sequence of all forgotten topics. A topic without history may have lost events
    /// up to it.
    pub fn forgotten_through(&self) -> u64 {
        self.forgotten_through
    }

    /// Keeps the events after a sequence beyond the budget, or unpins all. The caller bounds their
    /// bytes. [`Self::trim`] evicts unpinned events.
    pub fn pin(&mut self, after: Option<u64>) {
        self.pinned_after = after;
    }

    /// Whether the budget has room for more bytes.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.budget.has_room(bytes)
    }

    /// The topics matching a pattern of the interest, with their histories. Topics without an event
    /// here after the sequence may be left out.
    pub fn matching_after(&self, interest: &Interest, after: u64) -> Vec<(&Topic, &HistoryRing)> {
        if interest.patterns.is_empty() {
            return Vec::new();
        }
        if self.held.len() + self.order.len() - self.place_after(after) < self.topics.len() {
            // Fewer events since than topics: match only the topics of these events.
            let mut topics: Vec<&Topic> = self.topics_after(after).collect();
            topics.sort_unstable();
            topics.dedup();
            let matching = topics.into_iter().filter(|topic| interest.matches_pattern(topic));
            let known = matching.filter_map(|topic| self.topics.get_key_value(topic));
            return known.map(|(topic, history)| (topic, &**history)).collect();
        }
        self.matching(interest)
    }

    /// The same for all topics.
    pub fn matching(&self, interest: &Interest) -> Vec<(&Topic, &HistoryRing)> {
        let all = self.topics.iter().map(|(topic, history)| (topic, &**history));
        all.filter(|(topic, _)| interest.matches_pattern(topic)).collect()
    }

    fn place_after(&self, sequence: u64) -> usize {
        self.order.partition_point(|(other, _)| *other <= sequence)
    }

    /// The places of all events after a sequence, in sequence order.
    fn places_after(&self, sequence: u64) -> impl ExactSizeIterator<Item = &(u64, Topic)> {
        let held = self.held.partition_point(|(other, _)| *other <= sequence);
        let order = self.order.range(self.place_after(sequence)..);
        Places { held: self.held.range(held..), order }
    }

    fn topics_after(&self, sequence: u64) -> impl Iterator<Item = &Topic> {
        self.places_after(sequence).map(|(_, topic)| topic)
    }

    /// Whether no topic has evicted an event after a sequence.
    pub fn is_whole_after(&self, sequence: u64) -> bool {
        self.evicted_through <= sequence
    }

    /// Adds older events of a topic, see [`HistoryRing::merge`]. [`Self::settle_merges`] must
    /// follow. The budget applies at the next [`Self::trim`].
    pub fn merge(
        &mut self,
        topic: &Topic,
        older: Vec<Arc<SequencedEvent>>,
        begin: Option<u64>,
        lost_through: u64,
        is_trimmed: bool,
    ) {
        let number = self.evictions + 1;
        let history = self.history_of(topic);
        let before = history.merge(older, begin, lost_through, is_trimmed, number);
        let kept: Vec<_> = history.events().cloned().collect();
        for event in &kept {
            self.count_in(event);
        }
        self.count_out(&before);
        let sequences = kept.iter().map(|event| (event.sequence, topic.clone()));
        self.order.extend(sequences);
        self.list_to_expire(topic);
        self.note_evictions(topic);
    }

    /// Restores the sequence order after one or more merges.
    pub fn settle_merges(&mut self) {
        let mut all: Vec<_> = std::mem::take(&mut self.held).into();
        all.extend(std::mem::take(&mut self.order));
        // A stable sort: it is linear for a few ascending runs, the usual case.
        all.sort();
        all.dedup();
        self.order = all.into();
        self.tidy();
    }
}

/// Lists a topic's next expiry check, unless it is listed.
fn listing_of(topic: &Topic, history: &mut HistoryRing) -> Option<Reverse<(Instant, Topic)>> {
    if history.is_listed_to_expire {
        return None;
    }
    let at = history.expires_at()?;
    history.is_listed_to_expire = true;
    Some(Reverse((at, topic.clone())))
}

/// The places of events in sequence order, for [`PartitionLog::places_after`].
struct Places<'a> {
    held: std::collections::vec_deque::Iter<'a, (u64, Topic)>,
    order: std::collections::vec_deque::Iter<'a, (u64, Topic)>,
}

impl<'a> Iterator for Places<'a> {
    type Item = &'a (u64, Topic);

    fn next(&mut self) -> Option<Self::Item> {
        self.held.next().or_else(|| self.order.next())
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let length = self.held.len() + self.order.len();
        (length, Some(length))
    }
}

impl ExactSizeIterator for Places<'_> {}

impl Drop for PartitionLog {
    fn drop(&mut self) {
        self.budget.release(self.kept_bytes);
        self.budget.release_idle(self.idle_bytes);
        self.budget.set_oldest(self.partition, None);
    }
}

#[cfg(test)]
mod tests;
