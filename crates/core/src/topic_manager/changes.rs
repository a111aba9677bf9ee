//! Changes of an open stream's subscription: topics added and removed, kinds muted. A stream has
//! one change at a time. A change is done when every partition has attached the added topics, so
//! events published later reach the stream.

use std::{collections::VecDeque, mem::take, sync::Arc, time::Instant};

use crate::{
    ids::StreamId,
    interest::{Interest, PatternSet, StartFrom, Topics},
    partition::InterestChange,
    partition_log::Replay,
    subscription::{Change, ResolvedSubscription},
    topic::{Pattern, Topic},
    topic_manager::{
        ManagerState,
        frame::{Begin, Frame},
        streams::{Attachment, Outlet, Slot, SlotRef},
    },
};

/// Names a change to the waiting caller.
pub type Ticket = u64;

/// The outcome of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeOutcome {
    /// The stream now wants these.
    Changed(Box<[String]>),
    /// It would have had more topics than a stream may have; nothing was changed.
    TooManyTopics,
    /// The stream has ended meanwhile.
    Ended,
}

/// Marks the ids of attachments added later; they differ from their stream's id.
const LATER: StreamId = 1 << 63;

/// The changes of one stream.
#[derive(Debug, Default)]
pub struct Changes {
    waiting: VecDeque<(Ticket, Change)>,
    running: Option<RunningChange>,
}

#[derive(Debug)]
struct RunningChange {
    ticket: Ticket,
    /// Partitions yet to attach the added topics.
    awaited: usize,
    /// Attachments to detach after that.
    detach: Vec<Attachment>,
}

impl Changes {
    /// A partition has forgotten all of its own accord.
    pub fn forget_attachments(&mut self, partition: u16) {
        if let Some(running) = &mut self.running {
            running.detach.retain(|gone| gone.partition != partition);
        }
    }
}

impl<O: Outlet> ManagerState<O> {
    /// Changes a stream's subscription, after earlier changes still waiting.
    pub fn change(&mut self, ticket: Ticket, reference: SlotRef, change: Change, now: Instant) {
        match self.streams.get_mut(reference) {
            Some(slot) => {
                slot.changes.get_or_insert_default().waiting.push_back((ticket, change));
                self.start_changes(reference, now);
            }
            None => self.finished.push((ticket, ChangeOutcome::Ended)),
        }
    }

    /// The stream of this number and secret.
    pub fn find_stream(&self, stream: StreamId, secret: u64) -> Option<SlotRef> {
        let reference = self.streams.find(stream)?;
        (self.streams.get(reference)?.subscription.secret == secret).then_some(reference)
    }

    /// Takes the finished changes.
    pub fn take_finished(&mut self) -> Vec<(Ticket, ChangeOutcome)> {
        take(&mut self.finished)
    }

    /// Starts the next waiting change, unless one runs or the stream has not begun.
    pub(super) fn start_changes(&mut self, reference: SlotRef, now: Instant) {
        loop {
            let Some(slot) = self.streams.get_mut(reference).filter(|slot| slot.awaited == 0)
            else {
                return;
            };
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
        let Change { add, remove, muted } = change;
        let add: Vec<Pattern> = add.into_iter().map(|name| self.known(name)).collect();
        let Some(slot) = self.streams.get_mut(reference) else { return };
        let Some(changed) = slot.subscription.changed(&add, &remove, muted, self.spec.max_topics)
        else {
            return self.finished.push((ticket, ChangeOutcome::TooManyTopics));
        };
        let (gone, added) = Difference::between(&changed, &slot.subscription);
        let mutes_change = changed.muted != slot.subscription.muted;
        self.queue_pending(reference, now, |topic| mutes_change || gone.contains(topic));
        let Some(slot) = self.streams.get_mut(reference) else { return };
        slot.attachments.split(slot.stream, &slot.subscription, self.spec.partition_count);
        slot.subscription = Arc::new(changed);
        slot.outlet.change(&slot.subscription, None);
        let mut attach = added.interests(&slot.subscription, self.spec.partition_count);
        // Old attachments go only after all new ones are in place: a topic may be in both, and
        // detaching first would open a hole.
        let detach = self.leave(reference, &gone, &mut attach);
        self.join(reference, &added);
        let Some(slot) = self.streams.get_mut(reference) else { return };
        let running = RunningChange { ticket, awaited: attach.len(), detach };
        slot.changes.get_or_insert_default().running = Some(running);
        for (partition, interest) in attach {
            self.attach(reference, partition, Arc::new(interest));
        }
        self.finish_if_attached(reference);
    }

    /// The same name as other streams have it, so that all of them keep it once.
    fn known(&self, name: Pattern) -> Pattern {
        let topic = name.to_topic().and_then(|topic| self.topic_ids.get_key_value(&topic));
        topic.map_or(name, |(topic, _)| topic.clone().into())
    }

    /// Adds the stream to the subscribers of the added topics and patterns.
    fn join(&mut self, reference: SlotRef, added: &Difference) {
        for pattern in &added.patterns {
            self.patterns.insert(pattern, reference);
        }
        for topic in &added.topics {
            let id = self.topic_id(topic);
            self.topics[id].subscribers.push(reference);
            if let Some(slot) = self.streams.get_mut(reference) {
                slot.topics.push(id as u32);
            }
        }
        if let Some(slot) = self.streams.get_mut(reference) {
            // Events of removed topics may still be queued, so this never turns back to false.
            slot.may_interleave |= slot.topics.len() > 1 || !slot.subscription.patterns.is_empty();
        }
    }

    /// Removes the stream from the subscribers of the removed topics. Returns the attachments to
    /// detach; `attach` gets the rest of split pattern sets.
    fn leave(
        &mut self,
        reference: SlotRef,
        gone: &Difference,
        attach: &mut Vec<(u16, Interest)>,
    ) -> Vec<Attachment> {
        let topics = gone.topics.iter().filter_map(|topic| self.leave_topic(reference, topic));
        let mut detach: Vec<Attachment> = topics.collect();
        for pattern in &gone.patterns {
            self.patterns.remove(pattern, reference);
        }
        if !gone.patterns.is_empty() {
            self.renew_patterns(reference, &gone.patterns, attach, &mut detach);
        }
        detach
    }

    /// Events published before a change are treated by the old subscription: so they go to the
    /// connection now, and the connection drops muted ones.
    fn queue_pending(
        &mut self,
        reference: SlotRef,
        now: Instant,
        is_concerned: impl Fn(&Topic) -> bool,
    ) {
        let Some(slot) = self.streams.get_mut(reference) else { return };
        for id in self.pending.iter().flatten() {
            let entry = &self.topics[*id];
            if is_concerned(&entry.topic) && slot.wants(*id, &entry.topic) {
                slot.queued.extend(Frame::new(entry.pending.iter().cloned().collect()));
            }
        }
        self.hand_over(vec![reference], now);
    }

    fn attach(&mut self, reference: SlotRef, partition: u16, interest: Arc<Interest>) {
        self.last_attachment += 1;
        let id = LATER | self.last_attachment;
        let Some(slot) = self.streams.get_mut(reference) else { return };
        // Remove empty entries here, or they would accumulate with every change.
        slot.attachments.parts.retain(|one| one.partition != partition || !one.interest.is_empty());
        slot.attachments.parts.push(Attachment { partition, id, interest: interest.clone() });
        self.joining.insert(id, reference);
        let attach = InterestChange::Attach { stream: id, interest, from: StartFrom::Live };
        self.changes[usize::from(partition)].push(attach);
    }

    /// A partition has attached the added topics of a stream.
    pub(super) fn on_joined(
        &mut self,
        partition: u16,
        reference: SlotRef,
        replay: &Replay,
        now: Instant,
    ) {
        let Some(slot) = self.streams.get_mut(reference) else { return };
        let begin = Begin { partition, epoch: replay.epoch, head: replay.head };
        slot.outlet.change(&slot.subscription, Some(begin));
        if let Some(running) = slot.changes.as_mut().and_then(|all| all.running.as_mut()) {
            running.awaited -= 1;
        }
        self.finish_if_attached(reference);
        self.start_changes(reference, now);
    }

    fn finish_if_attached(&mut self, reference: SlotRef) {
        let Some(slot) = self.streams.get_mut(reference) else { return };
        let Some(changes) = &mut slot.changes else { return };
        let Some(running) = changes.running.take_if(|running| running.awaited == 0) else { return };
        let names = slot.subscription.names().map(str::to_owned).collect();
        self.finished.push((running.ticket, ChangeOutcome::Changed(names)));
        for gone in running.detach {
            self.detach(gone);
        }
    }

    /// Removes a named topic from the stream. Returns the attachments to detach.
    fn leave_topic(&mut self, reference: SlotRef, topic: &Topic) -> Option<Attachment> {
        let slot = self.streams.get_mut(reference)?;
        let id = self.topic_ids.get(topic).copied()?;
        slot.topics.retain(|other| *other != id as u32);
        let mut part = None;
        for attachment in &mut slot.attachments.parts {
            if attachment.interest.topics.contains(topic) {
                let (without, only) = attachment.interest.without(topic);
                attachment.interest = Arc::new(without);
                let interest = Arc::new(only);
                part = Some(Attachment { interest, ..*attachment });
            }
        }
        self.topics[id].subscribers.retain(|other| *other != reference);
        self.drop_topic_if_unused(id);
        part
    }

    /// Patterns are attached as sets. If a part of a set is removed, the rest is attached anew and
    /// only then the old set detached: so nothing is missed in between.
    fn renew_patterns(
        &mut self,
        reference: SlotRef,
        gone: &[Pattern],
        attach: &mut Vec<(u16, Interest)>,
        detach: &mut Vec<Attachment>,
    ) {
        let Some(slot) = self.streams.get_mut(reference) else { return };
        for attachment in &mut slot.attachments.parts {
            if !attachment.interest.patterns.iter().any(|pattern| gone.contains(pattern)) {
                continue;
            }
            let left = attachment.interest.patterns.iter().filter(|one| !gone.contains(one));
            let left: Vec<Pattern> = left.cloned().collect();
            let interest = &attachment.interest;
            let types = interest.types.clone();
            let only = |patterns, types| Interest { topics: Topics::new(), patterns, types };
            let old = Arc::new(only(interest.patterns.clone(), types.clone()));
            let topics = interest.topics.clone();
            detach.push(Attachment { interest: old, ..*attachment });
            attachment.interest =
                Arc::new(Interest { topics, patterns: PatternSet::none(), types: types.clone() });
            if !left.is_empty() {
                let patterns = PatternSet::of(left);
                attach.push((attachment.partition, only(patterns, types)));
            }
        }
    }

    pub(super) fn detach(&mut self, attachment: Attachment) {
        let Attachment { partition, id: stream, interest } = attachment;
        self.joining.remove(&stream);
        self.changes[usize::from(partition)].push(InterestChange::Detach { stream, interest });
    }

    /// Callers waiting for changes of an ended stream are answered.
    pub(super) fn end_changes(&mut self, slot: &mut Slot<O>) {
        let Some(changes) = slot.changes.take() else { return };
        let Changes { waiting, running } = *changes;
        let mut tickets: Vec<Ticket> = waiting.into_iter().map(|(ticket, _)| ticket).collect();
        if let Some(running) = running {
            tickets.push(running.ticket);
            running.detach.into_iter().for_each(|attachment| self.detach(attachment));
        }
        self.finished.extend(tickets.into_iter().map(|ticket| (ticket, ChangeOutcome::Ended)));
    }
}

/// The difference between two subscriptions.
struct Difference {
    topics: Vec<Topic>,
    patterns: Vec<Pattern>,
}

impl Difference {
    fn contains(&self, topic: &Topic) -> bool {
        self.topics.contains(topic) || self.patterns.iter().any(|one| one.matches(topic.as_str()))
    }

    /// The removed and the added part.
    fn between(now: &ResolvedSubscription, before: &ResolvedSubscription) -> (Self, Self) {
        let only = |here: &ResolvedSubscription, there: &ResolvedSubscription| Self {
            topics: minus(here.topics.iter(), |topic| there.topics.binary_search(topic).is_ok()),
            patterns: minus(here.patterns.iter(), |one| there.patterns.iter().any(|o| o == *one)),
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

fn minus<'a, T: Clone + 'a>(
    all: impl Iterator<Item = &'a T>,
    is_out: impl Fn(&&T) -> bool,
) -> Vec<T> {
    all.filter(|one| !is_out(one)).cloned().collect()
}
