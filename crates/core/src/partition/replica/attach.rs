//! Streams waiting for their attach, and its conditions.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use crate::{
    history::HistoryRing,
    ids::{ManagerId, StreamId},
    interest::{Interest, StartFrom},
    log::{Changed, Channel},
    partition::replica::{
        Replica,
        reads::{ReadTopic, StreamRead},
    },
    partition_log::{Missed, MissedReason, Replay},
    topic::Topic,
};

/// Bound on the topics named by a gap, so that it stays a small event.
const MAX_MISSED_TOPICS: usize = 100;

/// The changed topics of a partition, and the head of their list.
#[derive(Debug)]
pub(super) struct ChangedTopics {
    pub changed: Changed,
    pub head: u64,
}

/// A stream waiting for its attach.
#[derive(Debug)]
pub(super) struct PendingAttach {
    pub manager: ManagerId,
    pub stream: StreamId,
    pub interest: Arc<Interest>,
    pub from: StartFrom,
    /// Number of the last request before the stream came.
    pub came_after: u64,
    /// Whether a head requested since then has arrived.
    pub has_head: bool,
    /// The changed topics for a stream with patterns, once listed.
    pub changed: Option<Arc<ChangedTopics>>,
    /// The number of the stream's read in flight.
    pub asked: Option<u64>,
    /// The stream's answered read.
    pub read: Option<Arc<StreamRead>>,
    /// The stream needs all events after this position, beside its list and its read.
    pub pinned_after: Option<u64>,
}

impl PendingAttach {
    /// Needs the events after a position, until the stream begins.
    pub fn pin(&mut self, after: u64) {
        self.pinned_after = Some(self.pinned_after.map_or(after, |pinned| pinned.min(after)));
    }

    /// Forgets all answers.
    pub fn ask_anew(&mut self) {
        (self.changed, self.asked, self.read, self.pinned_after) = (None, None, None, None);
    }
}

/// The requests needed by waiting streams.
#[derive(Debug, Default)]
pub(super) struct Needs {
    /// The head, by a request after this number.
    pub head_after: Option<u64>,
    /// The topics changed after this sequence, the lowest one needed.
    pub changes_after: Option<u64>,
    /// The topics to read, each after the lowest sequence needed.
    pub reads: BTreeMap<Topic, u64>,
}

impl Needs {
    pub fn read(&mut self, topic: Topic, after: u64) {
        let lowest = self.reads.entry(topic).or_insert(after);
        *lowest = after.min(*lowest);
    }
}

/// The decision about a waiting stream.
pub(super) enum AttachVerdict {
    Begins(Replay),
    /// An answer in flight comes first.
    Waits,
    NeedsHead,
    /// The list of topics changed after a sequence comes first.
    NeedsChanges {
        after: u64,
    },
    /// A read of these topics comes first.
    NeedsRead {
        topics: Vec<Topic>,
        after: u64,
    },
}

/// A topic of a replay, with the two sources of its events.
struct ReplayTopic<'a> {
    topic: &'a Topic,
    history: Option<&'a HistoryRing>,
    /// Its events up to the read's head; none if the log has all of them.
    read: Option<&'a ReadTopic>,
    /// The log must be complete after this sequence.
    after: u64,
}

impl<P> Replica<P> {
    /// Decides about one waiting stream.
    pub(super) fn judge(&self, waiting: &PendingAttach) -> AttachVerdict {
        let PendingAttach { interest, from, .. } = waiting;
        let from = self.located(*from);
        // 1. All channels are confirmed. Before, the stream could miss an event without a trace.
        if waiting.asked.is_some()
            || channels_of(interest).any(|channel| self.coverage.since(&channel).is_none())
        {
            return AttachVerdict::Waits;
        }
        // 2. The stream's start: the sequence before its first event.
        let (after, is_foreign) = match from {
            StartFrom::Live | StartFrom::Since { .. } => {
                return AttachVerdict::Begins(self.log.replay_with(interest, from, None));
            }
            StartFrom::Snapshot | StartFrom::Earliest => (0, false),
            // The cursor is ahead of this replica. Another instance may have been faster: ask for
            // the head before calling the cursor foreign.
            StartFrom::After { epoch, sequence, .. }
                if !waiting.has_head
                    && (epoch, sequence) > (self.log.epoch(), self.log.sequence()) =>
            {
                return AttachVerdict::NeedsHead;
            }
            // The head is here, and the cursor still belongs to another life of the sequences.
            StartFrom::After { epoch, sequence, .. }
                if epoch != self.log.epoch() || sequence > self.log.sequence() =>
            {
                (0, true)
            }
            StartFrom::After { sequence, .. } => (sequence, false),
        };
        // 3. The topics with possibly missing events. Patterns may need a list from the log.
        if self.needs_changes(waiting, after) {
            return AttachVerdict::NeedsChanges { after };
        }
        let topics = self.topics_of(waiting, after);
        // 4. The events of these topics are here.
        if topics.iter().any(|topic| self.lacks(topic)) {
            let lacking = topics.iter().filter(|topic| topic.read.is_some() || self.lacks(topic));
            let topics = lacking.map(|topic| topic.topic.clone()).collect();
            return AttachVerdict::NeedsRead { topics, after };
        }
        // 5. Begin. Events lost in every log become a gap for a resuming stream.
        let missed = match from {
            StartFrom::After { .. } if is_foreign => {
                Some(Missed { reason: MissedReason::Epoch, topics: Vec::new() })
            }
            StartFrom::After { since, .. } => self.missed(&topics, waiting, after, since),
            StartFrom::Live
            | StartFrom::Snapshot
            | StartFrom::Earliest
            | StartFrom::Since { .. } => None,
        };
        AttachVerdict::Begins(self.replay_of(&topics, waiting, from, after, missed))
    }

    /// Whether the replay needs the list of changed topics: the log may lack a topic matching a
    /// pattern.
    fn needs_changes(&self, waiting: &PendingAttach, after: u64) -> bool {
        let has_all = |since| since <= after && self.log.is_whole_after(after);
        waiting.changed.is_none()
            && !waiting.interest.patterns.is_empty()
            && !self.coverage.since(&Channel::All).is_some_and(has_all)
    }

    /// The topics of a replay: the named ones, the listed ones, and the ones changed since the list.
    fn topics_of<'a>(&'a self, waiting: &'a PendingAttach, after: u64) -> Vec<ReplayTopic<'a>> {
        let interest = &waiting.interest;
        let read = waiting.read.as_deref();
        let topic = |topic: &'a Topic| {
            let history = self.log.history(topic);
            let used = read.and_then(|read| read.of(topic, after));
            let after = if used.is_some() { read.map_or(after, |read| read.head) } else { after };
            ReplayTopic { topic, history, read: used, after }
        };
        let listed = waiting.changed.as_deref().into_iter().flat_map(|list| &list.changed.topics);
        let listed =
            listed.filter(|(topic, last)| *last > after && interest.matches_pattern(topic));
        let listed = listed.map(|(topic, _)| topic);
        let mut topics: Vec<_> = interest.topics.iter().chain(listed).map(topic).collect();
        if !interest.patterns.is_empty() {
            // A topic missing in the list had no event from `after` to the list's head.
            let after = waiting.changed.as_ref().map_or(after, |list| list.head);
            let known: HashSet<&Topic> = topics.iter().map(|topic| topic.topic).collect();
            let others = match self.log.is_whole_after(after) {
                true => self.log.matching_after(interest, after),
                false => self.log.matching(interest),
            };
            let others = others.into_iter().filter(|(topic, _)| !known.contains(topic));
            let others: Vec<_> = others
                .map(|(topic, ring)| ReplayTopic { topic, history: Some(ring), read: None, after })
                .collect();
            topics.extend(others);
        }
        // A snapshot contains conflated topics only.
        if waiting.from == StartFrom::Snapshot {
            let policies = &self.spec.partition.policies;
            topics.retain(|topic| policies.of(topic.topic.as_str()).conflates());
        }
        topics
    }

    /// Whether the log elsewhere may have events of the topic missing here. Not beside a read: the
    /// pin keeps all later events.
    fn lacks(&self, topic: &ReplayTopic<'_>) -> bool {
        if topic.read.is_some() {
            return false;
        }
        match topic.history {
            Some(history) => history.may_reach_back_elsewhere(topic.after),
            None => self.begin_of(topic.topic) > topic.after,
        }
    }

    /// The events of a replay, in sequence order.
    fn replay_of(
        &self,
        topics: &[ReplayTopic<'_>],
        waiting: &PendingAttach,
        from: StartFrom,
        after: u64,
        missed: Option<Missed>,
    ) -> Replay {
        let mut events = Vec::new();
        for topic in topics {
            let read = topic.read.into_iter().flat_map(|read| &read.events);
            events.extend(read.filter(|event| event.sequence > after).cloned());
            let history = topic.history.into_iter().flat_map(|ring| ring.after(topic.after));
            events.extend(history.cloned());
        }
        events.retain(|event| waiting.interest.types.wants(event));
        events.sort_unstable_by_key(|event| event.sequence);
        self.log.replay_of(events, from, missed)
    }

    /// A start with the present name of its epoch, and with a time replaced by a position before it.
    /// This replica knows the times of its own events; an earlier time stands for the whole history.
    pub(super) fn located(&self, from: StartFrom) -> StartFrom {
        match from {
            StartFrom::After { epoch, sequence, since } => {
                StartFrom::After { epoch: self.present_epoch(epoch), sequence, since }
            }
            StartFrom::Since { unix_ms } => {
                let sequence = self.log.known_before(unix_ms).unwrap_or(0);
                StartFrom::After { epoch: self.log.epoch(), sequence, since: unix_ms }
            }
            other => other,
        }
    }

    /// The missing events after a sequence, or since a time, for the stream's gap.
    fn missed(
        &self,
        topics: &[ReplayTopic<'_>],
        waiting: &PendingAttach,
        after: u64,
        since: u64,
    ) -> Option<Missed> {
        let lost_through = |topic: &ReplayTopic<'_>| {
            let here = match topic.history {
                Some(history) => history.evicted_through(),
                None => self.log.forgotten_through(),
            };
            let here = if here > topic.after { here } else { 0 };
            here.max(topic.read.map_or(0, |read| read.lost_through))
        };
        // An event after the loss, but from before the time: nothing since the time is lost.
        let is_older = |topic: &ReplayTopic<'_>, lost: u64| {
            let read = topic.read.into_iter().flat_map(|read| &read.events);
            let history = topic.history.into_iter().flat_map(HistoryRing::events);
            read.chain(history).any(|event| event.sequence > lost && event.unix_ms < since)
        };
        let is_missed = |topic: &&ReplayTopic<'_>| {
            let lost = lost_through(topic);
            lost > after && !is_older(topic, lost)
        };
        let missed = topics.iter().filter(is_missed).take(MAX_MISSED_TOPICS);
        let missed: Vec<Topic> = missed.map(|topic| topic.topic.clone()).collect();
        let changed = waiting.changed.as_ref();
        let is_forgotten = changed.is_some_and(|list| list.changed.forgotten_through > after);
        (is_forgotten || !missed.is_empty())
            .then_some(Missed { reason: MissedReason::History, topics: missed })
    }

    /// For a topic without history here: the sequence before its complete part.
    pub(super) fn begin_of(&self, topic: &Topic) -> u64 {
        let since = self.coverage.topic_since(topic).unwrap_or_else(|| self.log.sequence());
        since.max(self.log.forgotten_through())
    }
}

/// The channels of a stream: one per topic, and the channel of all topics for patterns.
pub(super) fn channels_of(interest: &Interest) -> impl Iterator<Item = Channel> {
    let all = (!interest.patterns.is_empty()).then_some(Channel::All);
    interest.topics.iter().cloned().map(Channel::Topic).chain(all)
}
