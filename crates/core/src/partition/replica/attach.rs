//! Streams waiting for their attach, and its conditions.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    ids::{ManagerId, StreamId},
    interest::{Interest, StartFrom},
    log::{Changed, Channel},
    partition::replica::Replica,
    partition_log::{Missed, MissedReason, Replay},
    topic::Topic,
};

/// Bound on the reads for one stream. The budget may evict the events of each read again; then the
/// stream begins with the events at hand.
const MAX_ROUNDS: u8 = 3;

/// Bound on the topics named by a gap, so that it stays a small event.
const MAX_MISSED_TOPICS: usize = 100;

/// A stream waiting for its attach.
#[derive(Debug)]
pub(super) struct PendingAttach {
    pub manager: ManagerId,
    pub stream: StreamId,
    pub interest: Arc<Interest>,
    pub from: StartFrom,
    /// The changed topics for a stream with patterns, once listed.
    pub changed: Option<Arc<Changed>>,
    /// Number of the last request before the stream came.
    pub came_after: u64,
    /// Whether a head requested since then has arrived.
    pub has_head: bool,
    /// The number of reads requested for the stream; at most [`MAX_ROUNDS`].
    pub rounds: u8,
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
    pub fn read(&mut self, topic: &Topic, after: u64) {
        let lowest = self.reads.entry(topic.clone()).or_insert(after);
        *lowest = after.min(*lowest);
    }
}

/// The decision about a waiting stream.
pub(super) enum AttachVerdict {
    Begins(Replay),
    /// An answer in flight or a needed request comes first.
    Waits,
    /// A read for the stream comes first. It counts as a round.
    WaitsForRead,
}

impl<P> Replica<P> {
    /// Decides about one waiting stream, and adds its needed requests to `needs`.
    pub(super) fn judge(&self, waiting: &PendingAttach, needs: &mut Needs) -> AttachVerdict {
        let PendingAttach { interest, from, .. } = waiting;
        // 1. All channels are confirmed. Before, the stream could miss an event without a trace.
        if channels_of(interest).any(|channel| self.coverage.since(&channel).is_none()) {
            return AttachVerdict::Waits;
        }
        // 2. The stream's start: the sequence before its first event.
        let (after, is_foreign) = match *from {
            StartFrom::Live => {
                return AttachVerdict::Begins(self.log.replay_with(interest, *from, None));
            }
            StartFrom::Snapshot | StartFrom::Earliest => (0, false),
            // The cursor is ahead of this replica. Another instance may have been faster: ask for
            // the head before calling the cursor foreign.
            StartFrom::After { epoch, sequence }
                if !waiting.has_head
                    && (epoch, sequence) > (self.log.epoch(), self.log.sequence()) =>
            {
                needs.head_after = needs.head_after.max(Some(waiting.came_after));
                return AttachVerdict::Waits;
            }
            // The head is here, and the cursor still belongs to another life of the sequences.
            StartFrom::After { epoch, sequence }
                if epoch != self.log.epoch() || sequence > self.log.sequence() =>
            {
                (0, true)
            }
            StartFrom::After { sequence, .. } => (sequence, false),
        };
        // 3. The topics with possibly missing events. Patterns may need a list from the log.
        let Some(topics) = self.topics_to_replay(waiting, after, needs) else {
            return AttachVerdict::Waits;
        };
        // 4. These topics' events are here, or their read is in flight: no second read then.
        let lacking: Vec<&Topic> = topics.iter().filter(|topic| self.lacks(topic, after)).collect();
        let is_asked = |topic: &&Topic| self.reading.get(*topic).is_some_and(|at| *at <= after);
        if lacking.iter().any(is_asked) {
            return AttachVerdict::Waits;
        }
        if !lacking.is_empty() && waiting.rounds < MAX_ROUNDS {
            lacking.into_iter().for_each(|topic| needs.read(topic, after));
            return AttachVerdict::WaitsForRead;
        }
        // 5. Begin. Still lacking events become a gap for a resuming stream.
        let missed = match from {
            StartFrom::After { .. } if is_foreign => {
                Some(Missed { reason: MissedReason::Epoch, topics: Vec::new() })
            }
            StartFrom::After { .. } => self.missed(&topics, waiting, after),
            StartFrom::Live | StartFrom::Snapshot | StartFrom::Earliest => None,
        };
        AttachVerdict::Begins(self.log.replay_with(interest, *from, missed))
    }

    /// The topics with possibly missing events. `None` without the list of changed topics: `needs`
    /// then requests it.
    fn topics_to_replay(
        &self,
        waiting: &PendingAttach,
        after: u64,
        needs: &mut Needs,
    ) -> Option<Vec<Topic>> {
        let interest = &waiting.interest;
        let mut topics = interest.topics.to_vec();
        // A replica covering all topics since `after`, with no event evicted, needs no list.
        let has_all = |since| since <= after && self.log.is_whole_after(after);
        if !interest.patterns.is_empty() && !self.coverage.since(&Channel::All).is_some_and(has_all)
        {
            let Some(changed) = &waiting.changed else {
                let lowest = needs.changes_after.unwrap_or(after);
                needs.changes_after = Some(lowest.min(after));
                return None;
            };
            let matching = changed
                .topics
                .iter()
                .filter(|(topic, last)| *last > after && interest.matches_pattern(topic));
            topics.extend(matching.map(|(topic, _)| topic.clone()));
        }
        // A snapshot contains conflated topics only.
        if waiting.from == StartFrom::Snapshot {
            topics.retain(|topic| self.spec.partition.policies.of(topic.as_str()).conflates());
        }
        Some(topics)
    }

    /// Whether the log may have events of the topic after a sequence missing in this replica.
    fn lacks(&self, topic: &Topic, after: u64) -> bool {
        match self.log.history(topic) {
            Some(history) => history.may_reach_back_elsewhere(after),
            None => self.begin_of(topic) > after,
        }
    }

    /// The missing events after a sequence, for the stream's gap.
    fn missed(&self, topics: &[Topic], waiting: &PendingAttach, after: u64) -> Option<Missed> {
        let is_missed = |topic: &&Topic| match self.log.history(topic) {
            Some(history) => history.evicted_through() > after,
            None => self.begin_of(topic) > after,
        };
        let missed: Vec<Topic> =
            topics.iter().filter(is_missed).take(MAX_MISSED_TOPICS).cloned().collect();
        let is_forgotten =
            waiting.changed.as_ref().is_some_and(|changed| changed.forgotten_through > after);
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
