//! Streams waiting to begin, and the conditions for their start.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    ids::{ManagerId, StreamId},
    interest::{Interest, StartFrom},
    log::{Changed, Channel},
    partition::replica::Replica,
    partition_log::{Missed, MissedReason, Replay},
    topic::Topic,
};

/// How often evicted data is read again for one stream.
const MAX_ROUNDS: u8 = 3;

/// A gap names no more topics than this, so that it stays a small event.
const MAX_MISSED_TOPICS: usize = 100;

/// A stream that is not attached yet.
#[derive(Debug)]
pub(super) struct PendingAttach {
    pub manager: ManagerId,
    pub stream: StreamId,
    pub interest: Arc<Interest>,
    pub from: StartFrom,
    /// The topics changed for its patterns, once known.
    pub changed: Option<Arc<Changed>>,
    /// Number of the last request before it came.
    pub came_after: u64,
    /// Whether the head was asked for and told since.
    pub has_head: bool,
    /// How often something was asked for it.
    pub rounds: u8,
}

/// The requests needed by waiting streams.
#[derive(Debug, Default)]
pub(super) struct Needs {
    /// The head, asked for after the request of this number.
    pub head_after: Option<u64>,
    /// The lowest position needing the list of changed topics.
    pub changes_after: Option<u64>,
    /// Topics to be read, each after the lowest sequence wanted.
    pub reads: BTreeMap<Topic, u64>,
}

impl Needs {
    pub fn read(&mut self, topic: &Topic, after: u64) {
        let lowest = self.reads.entry(topic.clone()).or_insert(after);
        *lowest = after.min(*lowest);
    }
}

/// Whether a stream can begin.
pub(super) enum AttachVerdict {
    Begins(Replay),
    Waits,
    /// For something that is asked for it now.
    WaitsForRead,
}

impl<P> Replica<P> {
    /// Decides about one waiting stream, and adds its needs.
    pub(super) fn judge(&self, waiting: &PendingAttach, needs: &mut Needs) -> AttachVerdict {
        let PendingAttach { interest, from, .. } = waiting;
        if channels_of(interest).any(|channel| self.coverage.since(&channel).is_none()) {
            return AttachVerdict::Waits;
        }
        let (after, is_foreign) = match *from {
            StartFrom::Live => {
                return AttachVerdict::Begins(self.log.replay_with(interest, *from, None));
            }
            StartFrom::Snapshot | StartFrom::Earliest => (0, false),
            // Another instance may be ahead of this one.
            StartFrom::After { epoch, sequence }
                if !waiting.has_head
                    && (epoch, sequence) > (self.log.epoch(), self.log.sequence()) =>
            {
                needs.head_after = needs.head_after.max(Some(waiting.came_after));
                return AttachVerdict::Waits;
            }
            StartFrom::After { epoch, sequence }
                if epoch != self.log.epoch() || sequence > self.log.sequence() =>
            {
                (0, true)
            }
            StartFrom::After { sequence, .. } => (sequence, false),
        };
        let Some(topics) = self.topics_to_replay(waiting, after, needs) else {
            return AttachVerdict::Waits;
        };
        let lacking: Vec<&Topic> = topics.iter().filter(|topic| self.lacks(topic, after)).collect();
        let is_asked = |topic: &&Topic| self.reading.get(*topic).is_some_and(|at| *at <= after);
        if lacking.iter().any(is_asked) {
            return AttachVerdict::Waits;
        }
        if !lacking.is_empty() && waiting.rounds < MAX_ROUNDS {
            lacking.into_iter().for_each(|topic| needs.read(topic, after));
            return AttachVerdict::WaitsForRead;
        }
        let missed = match from {
            StartFrom::After { .. } if is_foreign => {
                Some(Missed { reason: MissedReason::Epoch, topics: Vec::new() })
            }
            StartFrom::After { .. } => self.missed(&topics, waiting, after),
            StartFrom::Live | StartFrom::Snapshot | StartFrom::Earliest => None,
        };
        AttachVerdict::Begins(self.log.replay_with(interest, *from, missed))
    }

    /// The topics with possibly missing events; `None` if the list must be requested first.
    fn topics_to_replay(
        &self,
        waiting: &PendingAttach,
        after: u64,
        needs: &mut Needs,
    ) -> Option<Vec<Topic>> {
        let interest = &waiting.interest;
        let mut topics = interest.topics.to_vec();
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
        if waiting.from == StartFrom::Snapshot {
            topics.retain(|topic| self.spec.partition.policies.of(topic.as_str()).conflates());
        }
        Some(topics)
    }

    /// Whether the log may hold more of the topic after a sequence than is kept here.
    fn lacks(&self, topic: &Topic, after: u64) -> bool {
        match self.log.history(topic) {
            Some(history) => history.may_reach_back_elsewhere(after),
            None => self.begin_of(topic) > after,
        }
    }

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

    /// The sequence before the known part of a topic missing in the log.
    pub(super) fn begin_of(&self, topic: &Topic) -> u64 {
        let since = self.coverage.topic_since(topic).unwrap_or_else(|| self.log.sequence());
        since.max(self.log.forgotten_through())
    }
}

/// The channels needed by a stream.
pub(super) fn channels_of(interest: &Interest) -> impl Iterator<Item = Channel> {
    let all = (!interest.patterns.is_empty()).then_some(Channel::All);
    interest.topics.iter().cloned().map(Channel::Topic).chain(all)
}
