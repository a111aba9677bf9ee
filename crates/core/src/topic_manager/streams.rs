//! The streams of one worker. A reference never comes to mean another stream.

use std::{
    collections::HashMap,
    mem::take,
    sync::Arc,
    time::{Duration, Instant},
};

use slab::Slab;
use smallvec::SmallVec;

use crate::{
    ids::StreamId,
    interest::Interest,
    partition_log::Replay,
    sse::ShutdownReason,
    subscription::ResolvedSubscription,
    topic::Topic,
    topic_manager::{
        Changes,
        frame::{Begin, Frames, Opening},
    },
};

/// How a manager reaches a connection. Nothing here waits.
pub trait Outlet {
    /// The first message: the stream's start.
    fn open(&self, opening: Opening);

    /// Frames of one turn.
    ///
    /// # Errors
    /// The connection's mailbox is full: the frames come back.
    fn deliver(&self, frames: Frames) -> Result<(), Frames>;

    /// The stream wants something else from now on, and stands in one more partition.
    fn change(&self, subscription: &Arc<ResolvedSubscription>, begin: Option<Begin>);

    /// Nothing was written for the heartbeat's time.
    fn beat(&self);

    /// The last message: the stream ends after earlier deliveries and these frames.
    fn end(&self, reason: ShutdownReason, reconnect: Option<Duration>, frames: Frames);
}

/// A stream as its manager sees it.
pub struct Slot<O> {
    pub stream: StreamId,
    pub outlet: O,
    /// Numbers of its named topics.
    pub topics: SmallVec<[u32; 4]>,
    pub subscription: Arc<ResolvedSubscription>,
    pub attachments: Attachments,
    /// Unfinished changes of its subscription.
    pub changes: Option<Box<Changes>>,
    /// Whether it may have several topics in one partition.
    pub may_interleave: bool,
    /// Reasons to wait before the stream gets anything: partitions yet to attach it, and a running
    /// reread of its feed.
    pub awaited: usize,
    /// Whether it has begun.
    pub is_open: bool,
    /// Whether its feed is being read again.
    pub is_rereading: bool,
    pub opening: Vec<(u16, Replay)>,
    pub queued: Frames,
    /// Whether its queue waits for more than the end of this turn.
    pub is_held: bool,
    pub last_write: Instant,
}

/// The stream's attachments in partitions, requested ones included.
#[derive(Debug, Default)]
pub struct Attachments {
    /// Partitions with all of the stream's interest attached. The subscription tells the interest,
    /// so most streams need nothing more.
    whole: SmallVec<[u16; 8]>,
    /// Separate attachments, while the subscription changes.
    pub parts: Vec<Attachment>,
    /// Whether a partition has forgotten its attachment of the stream.
    is_forgotten: bool,
}

impl Attachments {
    /// Splits all attachments into single ones, before the subscription changes or the stream ends.
    pub fn split(
        &mut self,
        stream: StreamId,
        subscription: &ResolvedSubscription,
        partition_count: u16,
    ) {
        if self.whole.is_empty() {
            return;
        }
        let mut interests: HashMap<_, _> =
            subscription.interests(partition_count).into_iter().collect();
        self.parts.extend(take(&mut self.whole).into_iter().map(|partition| {
            let interest = interests.remove(&partition);
            let interest = interest.unwrap_or_else(|| Arc::new(subscription.no_interest()));
            Attachment { partition, id: stream, interest }
        }));
    }

    /// Unites attachments once all changes are attached. Patterns stay separate: they are attached
    /// in sets unknown to the subscription.
    pub fn unite(&mut self) {
        if !self.is_forgotten && self.parts.iter().all(|one| one.interest.patterns.is_empty()) {
            let partitions = take(&mut self.parts).into_iter().map(|one| one.partition);
            self.whole = self.whole.iter().copied().chain(partitions).collect();
            self.whole.sort_unstable();
            self.whole.dedup();
        }
    }

    /// A partition has forgotten its attachment of the stream: it must not be detached later.
    /// Attachments still to be requested stay.
    pub fn forget(&mut self, partition: u16) -> Vec<Attachment> {
        self.is_forgotten = true;
        self.whole.retain(|other| *other != partition);
        let parts = take(&mut self.parts).into_iter();
        let (forgotten, left) = parts.partition(|one| one.partition == partition);
        self.parts = left;
        forgotten
    }

    /// Whether the stream stands in a partition.
    pub fn touches(&self, partition: u16) -> bool {
        self.whole.contains(&partition) || self.parts.iter().any(|one| one.partition == partition)
    }
}

impl FromIterator<u16> for Attachments {
    fn from_iter<I: IntoIterator<Item = u16>>(partitions: I) -> Self {
        Self { whole: partitions.into_iter().collect(), ..Self::default() }
    }
}

/// One attachment in a partition, requested ones included.
#[derive(Debug)]
pub struct Attachment {
    pub partition: u16,
    /// The stream's id, or an id of its own if it was added later.
    pub id: StreamId,
    pub interest: Arc<Interest>,
}

impl<O> Slot<O> {
    /// Whether the topic is named, or matched by a pattern.
    pub fn wants(&self, id: usize, topic: &Topic) -> bool {
        self.topics.contains(&(id as u32)) || self.subscription.patterns.matches(topic)
    }
}

/// Refers to a stream for as long as it is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotRef {
    index: u32,
    /// Low bits of the stream's id: the slot's next tenant has others.
    tenant: u32,
}

/// All streams of a worker.
pub struct Streams<O> {
    slots: Slab<Slot<O>>,
    by_stream: HashMap<StreamId, SlotRef>,
}

impl<O> Default for Streams<O> {
    fn default() -> Self {
        Self { slots: Slab::new(), by_stream: HashMap::new() }
    }
}

impl<O> Streams<O> {
    pub fn insert(&mut self, slot: Slot<O>) -> SlotRef {
        let stream = slot.stream;
        let reference = SlotRef { index: self.slots.insert(slot) as u32, tenant: stream as u32 };
        self.by_stream.insert(stream, reference);
        reference
    }

    pub fn remove(&mut self, stream: StreamId) -> Option<(SlotRef, Slot<O>)> {
        let reference = self.by_stream.remove(&stream)?;
        let slot = self.slots.try_remove(reference.index as usize)?;
        Some((reference, slot))
    }

    pub fn find(&self, stream: StreamId) -> Option<SlotRef> {
        self.by_stream.get(&stream).copied()
    }

    pub fn get(&self, reference: SlotRef) -> Option<&Slot<O>> {
        let slot = self.slots.get(reference.index as usize)?;
        (slot.stream as u32 == reference.tenant).then_some(slot)
    }

    pub fn get_mut(&mut self, reference: SlotRef) -> Option<&mut Slot<O>> {
        let slot = self.slots.get_mut(reference.index as usize)?;
        (slot.stream as u32 == reference.tenant).then_some(slot)
    }

    /// All streams, by their references.
    pub fn references(&self) -> impl Iterator<Item = SlotRef> {
        self.by_stream.values().copied()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Slot<O>> {
        self.slots.iter().map(|(_, slot)| slot)
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Slot<O>> {
        self.slots.iter_mut().map(|(_, slot)| slot)
    }
}
