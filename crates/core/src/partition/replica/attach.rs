//! Streams waiting for their attach, and its conditions.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use crate::{
    event::SequencedEvent,
    history::HistoryRing,
    ids::{ManagerId, StreamId},
    interest::{Begun, Interest, Rest, StartFrom, Told},
    log::{Changed, Channel},
    partition::replica::{
        Replica,
        reads::{NeededRead, ReadTopic, StreamRead},
    },
    partition_log::{Missed, MissedReason, Replay},
    topic::Topic,
};

/// Bound on the topics named by a gap, so that it stays a small event.
const MAX_MISSED_TOPICS: usize = 100;

/// Topics with losses remembered between two pages. Past this bound, a later page may tell a loss
/// again.
const MAX_TOLD_TOPICS: usize = 1000;

/// The losses known to a stream from earlier pages.
#[derive(Debug, Default)]
pub(super) struct ToldLosses {
    /// Each topic with its highest lost sequence.
    topics: BTreeMap<Topic, u64>,
    /// The last known record of a failover's loss.
    tails_recorded_at: u64,
}

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
    /// Bound on a page of its replay.
    pub max_bytes: usize,
    /// The losses told by earlier pages.
    pub told: ToldLosses,
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
    /// Seconds with unknown positions.
    pub seconds: BTreeSet<u64>,
    /// The topics changed after this sequence, the lowest one needed.
    pub changes_after: Option<u64>,
    pub reads: Vec<NeededRead>,
}

impl Needs {
    /// Adds the topics of a stream, each after a sequence. Returns the place of the read.
    pub fn read(&mut self, topics: &[(Topic, u64)], max_bytes: usize) -> usize {
        let near = self.reads.iter().position(|read| read.is_near(topics));
        match near {
            Some(place) => self.reads[place].add(topics, max_bytes),
            None => self.reads.push(NeededRead::new(topics, max_bytes)),
        }
        near.unwrap_or(self.reads.len() - 1)
    }
}

/// The decision about a waiting stream.
pub(super) enum AttachVerdict {
    Begins(Replay, ToldLosses),
    /// An answer in flight comes first.
    Waits,
    NeedsHead,
    /// The position of a time comes first.
    NeedsPosition {
        second: u64,
    },
    /// The list of topics changed after a sequence comes first.
    NeedsChanges {
        after: u64,
    },
    /// A read of these topics comes first, each after a sequence.
    NeedsRead {
        topics: Vec<(Topic, u64)>,
    },
}

/// A topic of a replay, with the two sources of its events.
struct ReplayTopic<'a> {
    topic: &'a Topic,
    history: Option<&'a HistoryRing>,
    /// Its events up to the read's head; none if the log has all of them.
    read: Option<&'a ReadTopic>,
    /// The sequence before its first wanted event.
    from: u64,
    /// The log must be complete after this sequence.
    after: u64,
}

impl ReplayTopic<'_> {
    /// Whether all losses were before the partition reached this sequence. False if in doubt.
    fn has_lost_only_before(&self, head: u64) -> bool {
        let is_read_known = self.read.is_none_or(|read| {
            read.lost_through <= self.from || read.is_trimmed && read.last <= head
        });
        let is_history_known = self.history.is_none_or(|history| {
            history.evicted_through() <= self.after || history.has_lost_only_before(head)
        });
        is_read_known && is_history_known
    }
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
        let (position, begun, since) = match from {
            StartFrom::Live => {
                return AttachVerdict::Begins(self.log.live_replay(), ToldLosses::default());
            }
            // A time before all events known here.
            StartFrom::Since { unix_ms, .. } => {
                return AttachVerdict::NeedsPosition { second: unix_ms / 1000 };
            }
            StartFrom::Snapshot => (None, Begun::Snapshot, 0),
            StartFrom::Earliest => (None, Begun::Earliest, 0),
            StartFrom::After { epoch, sequence, since } => {
                (Some((epoch, sequence)), Begun::After, since)
            }
            StartFrom::LiveAfter { epoch, sequence } => (Some((epoch, sequence)), Begun::After, 0),
            StartFrom::Continue(rest) => {
                (Some((rest.epoch, rest.sequence)), rest.begun, rest.since)
            }
        };
        // The cursor is ahead of this replica. Another instance may have been faster: ask for the
        // head before calling the cursor foreign.
        let present = (self.log.epoch(), self.log.sequence());
        if !waiting.has_head && position.is_some_and(|position| position > present) {
            return AttachVerdict::NeedsHead;
        }
        // The head is here, and the cursor still belongs to another life of the sequences.
        let is_foreign = |(epoch, sequence)| epoch != present.0 || sequence > present.1;
        let is_foreign = position.is_some_and(is_foreign);
        if is_foreign && matches!(from, StartFrom::LiveAfter { .. }) {
            // After a gap for another epoch, the client knows of the losses.
            return AttachVerdict::Begins(self.log.live_replay(), ToldLosses::default());
        }
        let begun = if is_foreign { Begun::Earliest } else { begun };
        let after = position.filter(|_| !is_foreign).map_or(0, |(_, sequence)| sequence);
        let head = match from {
            StartFrom::Continue(rest) if !is_foreign => rest.head,
            _ => present.1,
        };
        let told = match from {
            StartFrom::Continue(rest) if !is_foreign => rest.told,
            _ => Told::Through(0),
        };
        let rest = Rest { begun, epoch: present.0, sequence: after, head, since, told };
        // 3. The topics with possibly missing events. Patterns may need a list from the log.
        if self.needs_changes(waiting, after) {
            return AttachVerdict::NeedsChanges { after };
        }
        let topics = self.topics_of(waiting, rest);
        // 4. The events of these topics are here.
        if topics.iter().any(|topic| self.lacks(topic)) {
            let lacking = topics.iter().filter(|topic| topic.read.is_some() || self.lacks(topic));
            let topics = lacking.map(|topic| (topic.topic.clone(), topic.from)).collect();
            return AttachVerdict::NeedsRead { topics };
        }
        // 5. Begin. Events lost in every log become a gap for a resuming stream.
        let (missed, told) = self.losses(&topics, waiting, rest);
        let missed = match from {
            _ if is_foreign || self.may_lack_lost(waiting, after) => {
                Some(Missed { reason: MissedReason::Epoch, topics: Vec::new() })
            }
            StartFrom::After { .. } | StartFrom::Continue(_) | StartFrom::LiveAfter { .. } => {
                missed
            }
            StartFrom::Live
            | StartFrom::Snapshot
            | StartFrom::Earliest
            | StartFrom::Since { .. } => None,
        };
        // The times of a partition never step back: all events before the first one are too old. With
        // losses, the client returns to before them until it has the gap.
        let is_at_start = is_foreign
            || since > 0 && missed.is_none()
            || matches!(from, StartFrom::Earliest | StartFrom::Snapshot);
        let page = self.page_of(&topics, waiting, rest, is_at_start);
        if matches!(from, StartFrom::LiveAfter { .. }) {
            let missed = missed_before_live(interest, &page, missed);
            let replay = Replay { missed, ..self.log.live_replay() };
            return AttachVerdict::Begins(replay, ToldLosses::default());
        }
        let mark = rest.mark(missed.is_some(), present.1);
        AttachVerdict::Begins(Replay { missed, mark, ..page }, told)
    }

    /// Whether a server's successor has lost events, the stream may lack one of them, and its client
    /// does not know.
    fn may_lack_lost(&self, waiting: &PendingAttach, position: u64) -> bool {
        let is_told = waiting.told.tails_recorded_at >= self.losses.recorded_at();
        match waiting.from {
            StartFrom::Since { unix_ms, .. } => self.losses.may_concern_since(unix_ms),
            StartFrom::After { since, .. } if since > 0 => self.losses.may_concern_since(since),
            StartFrom::After { .. } => self.losses.may_concern(position),
            StartFrom::Continue(_) if is_told => false,
            StartFrom::Continue(Rest { told: Told::AtHead, head, .. }) => {
                head < self.losses.recorded_at() && self.losses.may_concern(position)
            }
            StartFrom::Continue(Rest { since, .. }) if since > 0 => {
                self.losses.may_concern_since(since)
            }
            StartFrom::Continue(_) => self.losses.may_concern(position),
            _ => false,
        }
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
    fn topics_of<'a>(&'a self, waiting: &'a PendingAttach, rest: Rest) -> Vec<ReplayTopic<'a>> {
        let (interest, after) = (&waiting.interest, rest.sequence);
        let policies = &self.spec.partition.policies;
        let read = waiting.read.as_deref();
        let topic = |topic: &'a Topic| {
            let history = self.log.history(topic);
            // A snapshot wants no older events of topics without conflation.
            let is_late = rest.begun == Begun::Snapshot && !policies.of(topic.as_str()).conflates();
            let from = if is_late { rest.head.max(after) } else { after };
            let used = read.and_then(|read| read.of(topic, from, rest.sequence));
            let after = if used.is_some() { read.map_or(from, |read| read.through) } else { from };
            ReplayTopic { topic, history, read: used, from, after }
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
            let others = others.map(|(name, _)| {
                let topic = topic(name);
                ReplayTopic { read: None, after: topic.from.max(after), ..topic }
            });
            let others: Vec<_> = others.collect();
            topics.extend(others);
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

    /// The next page of a replay. `is_at_start`: it begins with the first event in history.
    fn page_of(
        &self,
        topics: &[ReplayTopic<'_>],
        waiting: &PendingAttach,
        rest: Rest,
        is_at_start: bool,
    ) -> Replay {
        let mut events = Vec::new();
        for topic in topics {
            let read = topic.read.into_iter().flat_map(|read| &read.events);
            events.extend(read.filter(|event| event.sequence > topic.from).cloned());
            let history = topic.history.into_iter().flat_map(|ring| ring.after(topic.after));
            events.extend(history.cloned());
        }
        let bound = bound_of(topics, waiting);
        let since = rest.since;
        events.retain(|event| {
            event.sequence <= bound && event.unix_ms >= since && waiting.interest.types.wants(event)
        });
        events.sort_unstable_by_key(|event| event.sequence);
        if is_at_start && rest.begun == Begun::Snapshot {
            leave_out_removed(&mut events, rest.head);
        }
        let first = events.first().map(|event| event.sequence - 1);
        let next = cut(&mut events, waiting.max_bytes);
        let next = next.or(Some(bound).filter(|bound| *bound < u64::MAX));
        let changed = waiting.changed.as_ref();
        let through = |list: &Arc<ChangedTopics>| Told::Through(list.changed.forgotten_through);
        let told = changed.map_or(rest.told, through);
        let next = next.map(|sequence| Rest { sequence, told, ..rest });
        let (epoch, head) = (rest.epoch, next.map_or(self.log.sequence(), |next| next.sequence));
        let start = if is_at_start { first.unwrap_or(head) } else { rest.sequence };
        Replay { epoch, start, head, events, missed: None, next, mark: None }
    }

    /// A start with the present name of its epoch, and with a time replaced by a position before it.
    /// This replica knows the times of its own events; an earlier time stays, for [`Self::on_located`].
    pub(super) fn located(&self, from: StartFrom) -> StartFrom {
        match from {
            StartFrom::After { epoch, sequence, since } => {
                StartFrom::After { epoch: self.present_epoch(epoch), sequence, since }
            }
            StartFrom::LiveAfter { epoch, sequence } => {
                StartFrom::LiveAfter { epoch: self.present_epoch(epoch), sequence }
            }
            StartFrom::Since { unix_ms, epoch } => {
                let epoch = epoch.map_or(self.log.epoch(), |epoch| self.present_epoch(epoch));
                let is_foreign = epoch != self.log.epoch();
                match self.log.known_before(unix_ms).or(is_foreign.then_some(0)) {
                    Some(sequence) => StartFrom::After { epoch, sequence, since: unix_ms },
                    None => StartFrom::Since { unix_ms, epoch: Some(epoch) },
                }
            }
            StartFrom::Continue(rest) => {
                StartFrom::Continue(Rest { epoch: self.present_epoch(rest.epoch), ..rest })
            }
            other => other,
        }
    }

    /// The missing events of a page, for the stream's gap, and all losses so far: later pages do not
    /// tell them again.
    fn losses(
        &self,
        topics: &[ReplayTopic<'_>],
        waiting: &PendingAttach,
        rest: Rest,
    ) -> (Option<Missed>, ToldLosses) {
        let bound = bound_of(topics, waiting);
        let lost_through = |topic: &ReplayTopic<'_>| {
            let here = match topic.history {
                Some(history) => history.evicted_through(),
                None => self.log.forgotten_through(),
            };
            // A page of a bounded read does not reach to later events.
            let is_later = topic.read.is_some() && bound < u64::MAX;
            let here = if here > topic.after && !is_later { here } else { 0 };
            topic.read.map_or(here, |read| read.lost_through.max(here))
        };
        let lost = topics.iter().map(|topic| (topic, lost_through(topic)));
        // An event after the loss, but from before the time: nothing since the time is lost.
        let is_older = |topic: &ReplayTopic<'_>, lost: u64| {
            let read = topic.read.into_iter().flat_map(|read| &read.events);
            let history = topic.history.into_iter().flat_map(HistoryRing::events);
            read.chain(history).any(|event| event.sequence > lost && event.unix_ms < rest.since)
        };
        let lost = lost.filter(|(topic, lost)| *lost > topic.from && !is_older(topic, *lost));
        let lost: Vec<_> = lost.collect();
        let is_new = |(topic, lost): &&(&ReplayTopic<'_>, u64)| {
            let is_known = rest.told == Told::AtHead && topic.has_lost_only_before(rest.head);
            !is_known && waiting.told.topics.get(topic.topic).is_none_or(|told| told < lost)
        };
        let missed = lost.iter().filter(is_new).take(MAX_MISSED_TOPICS);
        let missed: Vec<Topic> = missed.map(|(topic, _)| topic.topic.clone()).collect();
        let forgotten_after = match rest.told {
            Told::Through(told) => rest.sequence.max(told),
            Told::AtHead => rest.sequence,
        };
        let changed = waiting.changed.as_ref();
        let is_forgotten =
            changed.is_some_and(|list| list.changed.forgotten_through > forgotten_after);
        let missed = (is_forgotten || !missed.is_empty())
            .then_some(Missed { reason: MissedReason::History, topics: missed });
        let told = lost.into_iter().take(MAX_TOLD_TOPICS);
        let topics = told.map(|(topic, lost)| (topic.topic.clone(), lost)).collect();
        (missed, ToldLosses { topics, tails_recorded_at: self.losses.recorded_at() })
    }

    /// For a topic without history here: the sequence before its complete part.
    pub(super) fn begin_of(&self, topic: &Topic) -> u64 {
        let since = self.coverage.topic_since(topic).unwrap_or_else(|| self.log.sequence());
        since.max(self.log.forgotten_through())
    }
}

/// The missed events of a live start, by the first page of the events before it.
fn missed_before_live(
    interest: &Interest,
    page: &Replay,
    missed: Option<Missed>,
) -> Option<Missed> {
    let is_missing = missed.is_some() || page.next.is_some() || !page.events.is_empty();
    let mut topics: Vec<Topic> = missed.into_iter().flat_map(|missed| missed.topics).collect();
    topics.extend(page.events.iter().map(|event| event.topic.clone()));
    if page.next.is_some() {
        // Perhaps others too: all names, or an empty list for unknown ones.
        topics = match interest.patterns.is_empty() {
            true => interest.topics.to_vec(),
            false => Vec::new(),
        };
    }
    topics.sort_unstable();
    topics.dedup();
    topics.truncate(MAX_MISSED_TOPICS);
    is_missing.then_some(Missed { reason: MissedReason::History, topics })
}

/// The channels of a stream: one per topic, and the channel of all topics for patterns.
pub(super) fn channels_of(interest: &Interest) -> impl Iterator<Item = Channel> {
    let all = (!interest.patterns.is_empty()).then_some(Channel::All);
    interest.topics.iter().cloned().map(Channel::Topic).chain(all)
}

/// The end of a bounded read: a page must not go past it. `u64::MAX` without one.
fn bound_of(topics: &[ReplayTopic<'_>], waiting: &PendingAttach) -> u64 {
    let read = waiting.read.as_ref().filter(|read| !read.is_whole);
    let read = read.filter(|_| topics.iter().any(|topic| topic.read.is_some()));
    read.map_or(u64::MAX, |read| read.through)
}

/// Cuts the events of a page. Returns the sequence of the last one left, if any were cut.
fn cut(events: &mut Vec<Arc<SequencedEvent>>, max_bytes: usize) -> Option<u64> {
    let mut bytes = 0;
    let full = events.iter().position(|event| {
        bytes += event.stream_bytes();
        bytes >= max_bytes
    });
    let count = full.map(|last| last + 1).filter(|count| *count < events.len())?;
    events.truncate(count);
    events.last().map(|last| last.sequence)
}

/// Leaves removed keys out of the first page of a snapshot: the removals up to `head`, and older
/// values. A removal can be newer than the read of its value. Later pages keep all removals, since an
/// earlier page may have sent the value.
fn leave_out_removed(events: &mut Vec<Arc<SequencedEvent>>, head: u64) {
    let is_removal = |event: &SequencedEvent| event.body.is_deletion && event.sequence <= head;
    let name = |event: &SequencedEvent| (event.topic.clone(), event.body.key.clone());
    let removals = events.iter().filter(|event| is_removal(event));
    let removed: HashMap<_, u64> = removals.map(|event| (name(event), event.sequence)).collect();
    if removed.is_empty() {
        return;
    }
    events.retain(|event| {
        let is_older = |removal: &u64| event.body.key.is_some() && event.sequence < *removal;
        !is_removal(event) && !removed.get(&name(event)).is_some_and(is_older)
    });
}
