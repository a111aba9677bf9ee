//! Changes of an open stream's subscription: topics added and removed, kinds muted. A stream runs
//! one change at a time. A change finishes after all partitions have attached the added topics, or
//! have answered with the first page of their replay: every event published after the answer reaches
//! the stream. The next change waits for the last page.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    mem::take,
    sync::Arc,
    time::Instant,
};

use crate::{
    batch::WaitingEvent,
    ids::StreamId,
    interest::{Interest, StartFrom, Topics},
    partition::InterestChange,
    partition_log::Replay,
    pattern_set::{PatternSet, PatternSetId},
    sse::ShutdownReason,
    subscription::{Change, ResolvedSubscription, TooMany},
    topic::{Pattern, Topic},
    topic_manager::{
        ManagerState,
        frame::{ChangeStep, Frame, Frames, Page},
        page_bytes,
        streams::{Attachment, Outlet, ReplayPart, Slot, SlotRef},
    },
};

/// The number of a change. The waiting caller finds its outcome by it.
pub type Ticket = u64;

/// The outcome of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeOutcome {
    /// The topics and patterns of the stream after the change.
    Changed(Box<[String]>),
    /// The caller may not change the stream, or may not add these names. The subscription is
    /// unchanged.
    Forbidden(Box<[String]>),
    /// The stream would exceed a limit. The subscription is unchanged.
    TooMany(TooMany),
    /// Too many changes of the stream wait already. The subscription is unchanged; a feed ends.
    Busy,
    /// The client changes the stream too fast. The subscription is unchanged.
    TooFast,
    /// The stream ended before the change finished.
    Ended,
}

/// Changes of one stream waiting for earlier ones.
const MAX_WAITING: usize = 16;

/// The highest bit marks the id of an attachment added by a change. No stream's id has it.
const LATER: StreamId = 1 << 63;

/// The unfinished changes of one stream.
#[derive(Debug, Default)]
pub struct Changes {
    waiting: VecDeque<(Ticket, Change)>,
    running: Option<RunningChange>,
}

#[derive(Debug)]
struct RunningChange {
    ticket: Ticket,
    /// Partitions yet to answer for the added topics.
    awaited: usize,
    /// The subscription before the change.
    before: Arc<ResolvedSubscription>,
    /// Attachments to detach afterwards.
    detach: Vec<Attachment>,
}

impl Changes {
    /// Whether one more change may wait. A partition may answer late, and callers give up before:
    /// without a bound, their changes would gather here.
    pub(super) fn has_room(&self, change: &Change, max_topics: usize) -> bool {
        let names = |change: &Change| change.add.len() + change.remove.len();
        let waiting: usize = self.waiting.iter().map(|(_, change)| names(change)).sum();
        self.waiting.is_empty()
            || self.waiting.len() < MAX_WAITING && waiting + names(change) <= 2 * max_topics
    }

    /// The partition has dropped all attachments itself: nothing is left to detach there.
    pub fn forget_attachments(&mut self, partition: u16) {
        if let Some(running) = &mut self.running {
            running.detach.retain(|gone| gone.partition != partition);
        }
    }
}

impl<O: Outlet> ManagerState<O> {
    /// Changes a stream's subscription, after its earlier changes. [`Self::take_finished`] returns
    /// the outcome.
    pub fn change(&mut self, ticket: Ticket, reference: SlotRef, change: Change, now: Instant) {
        match self.streams.get_mut(reference) {
            Some(slot) => {
                if let Some(names) = change.refused_by(slot.grant()) {
                    return self.finished.push((ticket, ChangeOutcome::Forbidden(names)));
                }
                let changes = slot.changes.get_or_insert_default();
                if changes.has_room(&change, self.spec.limits.max_topics) {
                    changes.waiting.push_back((ticket, change));
                    return self.start_changes(reference, now);
                }
                // A feed without this change would be wrong. Its client returns to the present one.
                if slot.subscription.feed_of().is_some() {
                    slot.outlet.end(ShutdownReason::Drain, None, Frames::new());
                }
                self.finished.push((ticket, ChangeOutcome::Busy));
            }
            None => self.finished.push((ticket, ChangeOutcome::Ended)),
        }
    }

    /// The open stream with this id and secret.
    pub fn find_stream(&self, stream: StreamId, secret: u64) -> Option<SlotRef> {
        let reference = self.streams.find(stream)?;
        (self.streams.get(reference)?.subscription.secret == secret).then_some(reference)
    }

    /// The stream of an attachment added by a change, while the partition owes an answer.
    pub fn stream_of_attachment(&self, id: StreamId) -> Option<StreamId> {
        let reference = self.joining.get(&id)?;
        Some(self.streams.get(*reference)?.stream)
    }

    /// Takes the outcomes of finished changes.
    pub fn take_finished(&mut self) -> Vec<(Ticket, ChangeOutcome)> {
        take(&mut self.finished)
    }

    /// Starts the next waiting change, unless a change is running or the stream still awaits its
    /// opening, the last page of its replay, or a reread.
    pub(super) fn start_changes(&mut self, reference: SlotRef, now: Instant) {
        // A loop: a change without new attachments finishes at once, and the next one can start.
        loop {
            let Some(slot) = self.streams.get_mut(reference) else { return };
            if slot.awaited > 0 || slot.replay.is_some() {
                return;
            }
            let Some(changes) = slot.changes.as_mut().filter(|all| all.running.is_none()) else {
                return;
            };
            let Some((ticket, change)) = changes.waiting.pop_front() else {
                slot.changes = None;
                slot.attachments.unite();
                return;
            };
            self.start(reference, ticket, change, now);
        }
    }

    fn start(&mut self, reference: SlotRef, ticket: Ticket, change: Change, now: Instant) {
        let add: Vec<Pattern> = change.add.into_iter().map(|name| self.known(name)).collect();
        let change = Change { add, ..change };
        let Some(slot) = self.streams.get_mut(reference) else { return };
        // Again: the grant can be renewed to less while the change waits.
        if let Some(names) = change.refused_by(slot.grant()) {
            return self.finished.push((ticket, ChangeOutcome::Forbidden(names)));
        }
        let (limits, partition_count) = (self.spec.limits, self.spec.partition_count);
        let changed = match slot.subscription.changed(change, limits, partition_count) {
            Ok(changed) => changed,
            Err(too_many) => {
                return self.finished.push((ticket, ChangeOutcome::TooMany(too_many)));
            }
        };
        let (gone, added) = Difference::between(&changed, &slot.subscription);
        // Pending events of dropped topics, and all if the mutes change, belong to the old
        // subscription: send them before the connection gets the new one.
        let mutes_change = changed.muted() != slot.subscription.muted();
        self.queue_pending(reference, now, |topic| mutes_change || gone.contains(topic));
        let Some(slot) = self.streams.get_mut(reference) else { return };
        // Split while the old subscription is here: the attached interests follow from it.
        slot.attachments.split(slot.stream, &slot.subscription, self.spec.partition_count);
        let changed = Arc::new(changed);
        let before = std::mem::replace(&mut slot.subscription, changed.clone());
        slot.outlet.change(&changed, ChangeStep::Began);
        self.leave_sets(reference, before.patterns.without(&changed.patterns));
        self.join_sets(reference, changed.patterns.without(&before.patterns));
        let Some(slot) = self.streams.get_mut(reference) else { return };
        let additions = added.interests(&slot.subscription, self.spec.partition_count);
        let mut renewed = Vec::new();
        // Detach old attachments only after the partitions have answered all new ones: a topic may
        // be in both, and detaching first would lose events in between.
        let detach = self.leave(reference, &gone, &mut renewed);
        self.join(reference, &added);
        let Some(slot) = self.streams.get_mut(reference) else { return };
        let awaited = additions.len() + renewed.len();
        let max_bytes = page_bytes(additions.len());
        let subscription = slot.subscription.clone();
        let running = RunningChange { ticket, awaited, before, detach };
        slot.changes.get_or_insert_default().running = Some(running);
        for (partition, interest) in additions {
            let from = subscription.start_of_addition(partition);
            self.attach(reference, partition, Arc::new(interest), from, max_bytes);
        }
        for (partition, interest) in renewed {
            self.attach(reference, partition, Arc::new(interest), StartFrom::Live, max_bytes);
        }
        // Without new attachments, no answer will come.
        self.finish_if_attached(reference, now);
    }

    /// The topic's name in the allocation shared with other streams.
    fn known(&self, name: Pattern) -> Pattern {
        let topic = name.to_topic().and_then(|topic| self.topic_ids.get_key_value(&topic));
        topic.map_or(name, |(topic, _)| topic.clone().into())
    }

    /// Removes the stream from the subscribers of pattern sets.
    fn leave_sets<'a>(
        &mut self,
        reference: SlotRef,
        sets: impl Iterator<Item = &'a Arc<PatternSet>>,
    ) {
        for set in sets {
            if let Some((_, subscribers)) = self.patterns.get_mut(&set.id()) {
                subscribers.remove(reference);
                self.drop_set_if_unused(set);
            }
        }
    }

    /// Adds the stream to the subscribers of the added topics.
    fn join(&mut self, reference: SlotRef, added: &Difference) {
        for topic in &added.topics {
            let id = self.topic_id(topic);
            self.topics[id].subscribers.add(reference);
            if let Some(slot) = self.streams.get_mut(reference) {
                slot.topics.push(id as u32);
            }
        }
        if let Some(slot) = self.streams.get_mut(reference) {
            // Once true, it stays true: events of removed topics may still be queued.
            slot.may_interleave |= slot.topics.len() > 1 || !slot.subscription.patterns.is_empty();
        }
    }

    /// Removes the stream from the subscribers of the removed topics. Returns the attachments to
    /// detach. Adds the remaining patterns of a set to `attach`.
    fn leave(
        &mut self,
        reference: SlotRef,
        gone: &Difference,
        attach: &mut Vec<(u16, Interest)>,
    ) -> Vec<Attachment> {
        let mut detach = self.leave_topics(reference, &gone.topics);
        if !gone.patterns.is_empty() {
            self.renew_patterns(reference, &gone.patterns, attach, &mut detach);
        }
        detach
    }

    /// Hands the pending events of these topics to the connection. The old subscription applies to
    /// events published before a change; the connection drops muted events by it.
    fn queue_pending(
        &mut self,
        reference: SlotRef,
        now: Instant,
        is_concerned: impl Fn(&Topic) -> bool,
    ) {
        let Some(slot) = self.streams.get_mut(reference) else { return };
        for id in self.pending.iter().flatten() {
            let entry = &self.topics[*id];
            if is_concerned(&entry.topic) && slot.subscription.wants(&entry.topic) {
                slot.queued
                    .extend(Frame::new(entry.pending.iter().map(WaitingEvent::to_event).collect()));
            }
        }
        self.hand_over(vec![reference], now);
    }

    fn attach(
        &mut self,
        reference: SlotRef,
        partition: u16,
        interest: Arc<Interest>,
        from: StartFrom,
        max_bytes: usize,
    ) {
        // An id of its own: `on_attached` tells the answer from the stream's first attach by it.
        self.last_attachment += 1;
        let id = LATER | self.last_attachment;
        let Some(slot) = self.streams.get_mut(reference) else { return };
        // Remove empty entries here. Otherwise they would accumulate with every change.
        slot.attachments
            .parts_mut()
            .retain(|one| one.partition != partition || !one.interest.is_empty());
        slot.attachments.parts_mut().push(Attachment { partition, id, interest: interest.clone() });
        self.joining.insert(id, reference);
        let attach = InterestChange::Attach { stream: id, interest, from, max_bytes };
        self.changes[usize::from(partition)].push(attach);
    }

    /// A partition has attached the added topics of a stream, or answers with a page before.
    pub(super) fn on_joined(
        &mut self,
        partition: u16,
        id: StreamId,
        reference: SlotRef,
        mut replay: Replay,
        now: Instant,
    ) {
        let Some(slot) = self.streams.get_mut(reference) else { return };
        if slot.replay.as_ref().is_some_and(|replay| replay.is_by(id)) {
            return self.on_page(partition, reference, replay, now);
        }
        if let Some(running) = slot.changes.as_ref().and_then(|all| all.running.as_ref()) {
            let is_missed =
                |topic: &Topic| slot.subscription.is_missed_by_addition(&running.before, topic);
            leave_known_out(&mut replay, is_missed);
        }
        let next = replay.next;
        // The stream may be new in this partition: live events follow from the replay's head.
        let page = Page { stream: slot.stream, partition, replay };
        slot.outlet.change(&slot.subscription, ChangeStep::Joined(page));
        let mut attachments = slot.attachments.parts().iter();
        if let (Some(_), Some(attachment)) = (next, attachments.find(|one| one.id == id)) {
            // The partition attaches with the last page. The change does not wait for the client to
            // take all pages: the stream's position is in its id already.
            let interest = attachment.interest.clone();
            let part = ReplayPart { partition, interest, next, attachment: id };
            slot.begin_replay(part, &self.spec.replays);
        }
        if let Some(running) = slot.changes.as_mut().and_then(|all| all.running.as_mut()) {
            running.awaited -= 1;
        }
        self.finish_if_attached(reference, now);
        self.start_changes(reference, now);
    }

    /// Finishes the running change after the last partition's answer.
    fn finish_if_attached(&mut self, reference: SlotRef, now: Instant) {
        let Some(slot) = self.streams.get_mut(reference) else { return };
        let Some(changes) = &mut slot.changes else { return };
        let Some(running) = changes.running.take_if(|running| running.awaited == 0) else { return };
        slot.outlet.change(&slot.subscription, ChangeStep::Finished { at: now });
        let names = slot.subscription.names().map(str::to_owned).collect();
        self.finished.push((running.ticket, ChangeOutcome::Changed(names)));
        for gone in running.detach {
            self.detach(gone);
        }
    }

    /// Removes named topics from the stream. Returns the attachments to detach.
    fn leave_topics(&mut self, reference: SlotRef, gone: &[Topic]) -> Vec<Attachment> {
        let ids = gone.iter().filter_map(|topic| self.topic_ids.get(topic).copied());
        let ids: HashSet<usize> = ids.collect();
        let Some(slot) = self.streams.get_mut(reference) else { return Vec::new() };
        slot.topics.retain(|id| !ids.contains(&(*id as usize)));
        // All at once: a pass for each topic would take quadratic time.
        let gone: HashSet<&Topic> = gone.iter().collect();
        let mut detach = Vec::new();
        for attachment in slot.attachments.parts_mut() {
            if let Some((left, only)) = attachment.interest.without(&gone) {
                attachment.interest = Arc::new(left);
                detach.push(Attachment { interest: Arc::new(only), ..*attachment });
            }
        }
        for id in ids {
            self.topics[id].subscribers.remove(reference);
            self.drop_topic_if_unused(id);
        }
        detach
    }

    /// Partitions attach patterns as whole sets. If a change removes some patterns of a set, attach
    /// the remaining patterns as a new set, then detach the old set: no event is lost in between.
    fn renew_patterns(
        &mut self,
        reference: SlotRef,
        gone: &[Pattern],
        attach: &mut Vec<(u16, Interest)>,
        detach: &mut Vec<Attachment>,
    ) {
        let Some(slot) = self.streams.get_mut(reference) else { return };
        let gone: HashSet<&Pattern> = gone.iter().collect();
        // Most sets are attached in every partition.
        let mut renewed: HashMap<PatternSetId, Option<Arc<PatternSet>>> = HashMap::new();
        for attachment in slot.attachments.parts_mut() {
            let interest = attachment.interest.clone();
            let renew = || interest.patterns.without(&gone);
            let left = renewed.entry(interest.patterns.id()).or_insert_with(renew);
            let Some(left) = left else { continue };
            let types = &interest.types;
            let only = |patterns: &Arc<PatternSet>| {
                let (patterns, types) = (patterns.clone(), types.clone());
                Interest { topics: Topics::new(), patterns, types }
            };
            let old = Arc::new(only(&interest.patterns));
            detach.push(Attachment { interest: old, ..*attachment });
            let (topics, types) = (interest.topics.clone(), types.clone());
            attachment.interest =
                Arc::new(Interest { topics, patterns: PatternSet::none(), types });
            if !left.is_empty() {
                attach.push((attachment.partition, only(left)));
            }
        }
    }

    pub(super) fn detach(&mut self, attachment: Attachment) {
        let Attachment { partition, id: stream, interest, .. } = attachment;
        self.joining.remove(&stream);
        self.changes[usize::from(partition)].push(InterestChange::Detach { stream, interest });
    }

    /// Answers the callers of all unfinished changes: the stream has ended.
    pub(super) fn end_changes(&mut self, slot: &mut Slot<O>) {
        let Some(changes) = slot.changes.take() else { return };
        let Changes { waiting, running } = *changes;
        let mut tickets: Vec<Ticket> = waiting.into_iter().map(|(ticket, _)| ticket).collect();
        if let Some(running) = running {
            tickets.push(running.ticket);
            // The running change keeps these attachments, not the slot: detach them here.
            running.detach.into_iter().for_each(|attachment| self.detach(attachment));
        }
        self.finished.extend(tickets.into_iter().map(|ticket| (ticket, ChangeOutcome::Ended)));
    }
}

/// Leaves out the topics without missed events from the gap of a live start.
fn leave_known_out(replay: &mut Replay, is_missed: impl Fn(&Topic) -> bool) {
    let is_live = replay.start == replay.head;
    let named = replay.missed.as_mut().filter(|missed| is_live && !missed.topics.is_empty());
    if let Some(missed) = named {
        missed.topics.retain(is_missed);
        if missed.topics.is_empty() {
            replay.missed = None;
        }
    }
}

/// The difference between two subscriptions.
struct Difference {
    /// Sorted.
    topics: Vec<Topic>,
    patterns: Vec<Pattern>,
}

impl Difference {
    /// Whether the topic is in the difference, by name or pattern.
    fn contains(&self, topic: &Topic) -> bool {
        self.topics.binary_search(topic).is_ok()
            || self.patterns.iter().any(|one| one.matches(topic.as_str()))
    }

    /// The removed part, then the added part.
    fn between(now: &ResolvedSubscription, before: &ResolvedSubscription) -> (Self, Self) {
        let only = |here: &ResolvedSubscription, there: &ResolvedSubscription| Self {
            topics: minus(&here.topics, &there.topics),
            // Common sets have no difference.
            patterns: here
                .patterns
                .without(&there.patterns)
                .flat_map(|set| set.iter())
                .filter(|pattern| !there.patterns.contains(pattern))
                .cloned()
                .collect(),
        };
        (only(before, now), only(now, before))
    }

    fn interests(
        &self,
        subscription: &ResolvedSubscription,
        partition_count: u16,
    ) -> Vec<(u16, Interest)> {
        let patterns = PatternSet::of(self.patterns.clone());
        Interest::by_partition(&self.topics, &patterns, &subscription.types, partition_count, false)
    }
}

/// The items of `all` without those of `others`; both sorted.
fn minus<T: Clone + Ord>(all: &[T], others: &[T]) -> Vec<T> {
    let mut others = others.iter().peekable();
    let mut is_left = |one: &&T| {
        while others.next_if(|other| other < one).is_some() {}
        others.peek() != Some(one)
    };
    all.iter().filter(&mut is_left).cloned().collect()
}
