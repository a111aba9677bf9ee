//! The streams of one worker. A reference never refers to another stream later.

use std::{collections::HashMap, mem::take, sync::Arc, time::Duration};

use slab::Slab;
use smallvec::SmallVec;

use crate::{
    ids::StreamId,
    interest::{Interest, Rest},
    partition_log::Replay,
    replays::ReplayPlace,
    sse::ShutdownReason,
    subscription::ResolvedSubscription,
    topic_manager::{
        Changes,
        frame::{ChangeStep, Frames, Opening, Page},
        grants::SlotGrant,
        pace::ChangeDebt,
    },
};

/// A connection, as its manager reaches it. No method blocks or waits.
pub trait Outlet {
    /// The first message: the stream's start.
    fn open(&self, opening: Opening);

    /// The next page of the replay of one partition.
    fn page(&self, page: Page);

    /// Frames of one turn.
    ///
    /// # Errors
    /// The connection's mailbox is full. The error returns the frames for a retry.
    fn deliver(&self, frames: Frames) -> Result<(), Frames>;

    /// The stream's new subscription. With `begin`, its position in an added partition.
    fn change(&self, subscription: &Arc<ResolvedSubscription>, step: ChangeStep);

    /// The heartbeat interval has passed without a delivery.
    fn beat(&self);

    /// The stream's grant ends soon.
    fn renew(&self, remaining: Duration);

    /// The last message: the stream ends after earlier deliveries and these frames.
    fn end(&self, reason: ShutdownReason, reconnect: Option<Duration>, frames: Frames);
}

/// A stream as its manager sees it.
pub struct Slot<O> {
    pub stream: StreamId,
    pub outlet: O,
    /// The numbers of its named topics.
    pub topics: SmallVec<[u32; 4]>,
    pub subscription: Arc<ResolvedSubscription>,
    pub attachments: Attachments,
    /// Its grant; none for the grant of its subscription, up to the first moment of its end.
    pub grant: Option<Box<SlotGrant>>,
    /// Unfinished changes of its subscription.
    pub changes: Option<Box<Changes>>,
    /// The changes of its client, for their pace.
    pub change_debt: ChangeDebt,
    /// Whether it may have several topics in one partition. Otherwise its events are in order
    /// already.
    pub may_interleave: bool,
    /// The number of reasons to hold back its frames: partitions yet to attach it, and a running
    /// reread of its feed.
    pub awaited: u32,
    /// Whether its connection has got the opening.
    pub is_open: bool,
    /// Whether its feed is being read again.
    pub is_rereading: bool,
    /// Its replay; none for a stream attached in all its partitions.
    pub replay: Option<Box<SlotReplay>>,
    pub queued: Frames,
    /// Whether its queue waits longer than this turn, so it is bounded.
    pub is_held: bool,
    /// The last write, in milliseconds from the manager's start.
    pub written_ms: u64,
}

/// The replay of a stream, until the last page of its last partition.
#[derive(Debug, Default)]
pub struct SlotReplay {
    /// The first pages, before the opening.
    pub opening: Vec<(u16, Replay)>,
    /// The partitions with more pages. They route no live events to the stream yet.
    pub parts: Vec<ReplayPart>,
    /// The place among the hub's replays longer than a page.
    pub place: Option<ReplayPlace>,
}

/// A partition with more pages of a stream's replay.
#[derive(Debug)]
pub struct ReplayPart {
    pub partition: u16,
    pub interest: Arc<Interest>,
    /// The start of the next page; none while the page is requested.
    pub next: Option<Rest>,
    /// The id of its attachment: the stream's, or an own id for topics added by a change.
    pub attachment: StreamId,
}

impl SlotReplay {
    /// Whether the partition has more pages.
    pub fn is_of(&self, partition: u16) -> bool {
        self.parts.iter().any(|part| part.partition == partition)
    }

    /// Whether the attachment has more pages.
    pub fn is_by(&self, attachment: StreamId) -> bool {
        self.parts.iter().any(|part| part.attachment == attachment)
    }
}

/// The stream's attachments in partitions, requested ones included.
#[derive(Debug, Default)]
pub struct Attachments {
    /// Partitions with one attachment for all of the stream's interest there. The interest follows
    /// from the subscription, so most streams store nothing more.
    whole: SmallVec<[u16; 8]>,
    /// None for most streams.
    separate: Option<Box<SeparateAttachments>>,
}

/// Separate attachments, during changes of the subscription.
#[derive(Debug, Default)]
pub struct SeparateAttachments {
    parts: Vec<Attachment>,
    /// Whether a partition has dropped its attachments of the stream. The stored attachments then
    /// stay separate.
    is_forgotten: bool,
}

impl Attachments {
    /// Stores all attachments separately, before the subscription changes or the stream ends. Must
    /// get the subscription used for the attach.
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
        let whole = take(&mut self.whole).into_iter().map(|partition| {
            let interest = interests.remove(&partition);
            let interest = interest.unwrap_or_else(|| Arc::new(subscription.no_interest()));
            Attachment { partition, id: stream, interest }
        });
        self.separate.get_or_insert_default().parts.extend(whole);
    }

    /// Unites the attachments after the last change. Attachments with patterns stay separate: a
    /// stream can have several pattern sets.
    pub fn unite(&mut self) {
        let may_unite = |separate: &mut Box<SeparateAttachments>| {
            let mut parts = separate.parts.iter();
            !separate.is_forgotten && parts.all(|one| one.interest.patterns.is_empty())
        };
        if let Some(separate) = self.separate.take_if(may_unite) {
            self.whole.extend(separate.parts.into_iter().map(|one| one.partition));
            self.whole.sort_unstable();
            self.whole.dedup();
        }
    }

    /// Forgets the attachments in a partition after the partition has dropped them: they must not
    /// be detached later. Returns the separate ones.
    pub fn forget(&mut self, partition: u16) -> Vec<Attachment> {
        self.whole.retain(|other| *other != partition);
        let separate = self.separate.get_or_insert_default();
        separate.is_forgotten = true;
        let parts = take(&mut separate.parts).into_iter();
        let (forgotten, left) = parts.partition(|one| one.partition == partition);
        separate.parts = left;
        forgotten
    }

    /// The separate attachments.
    pub fn parts(&self) -> &[Attachment] {
        self.separate.as_ref().map_or(&[], |separate| &separate.parts)
    }

    /// The separate attachments, to change them.
    pub fn parts_mut(&mut self) -> &mut Vec<Attachment> {
        &mut self.separate.get_or_insert_default().parts
    }

    /// The number of attachments.
    pub fn count(&self) -> usize {
        self.whole.len() + self.parts().len()
    }

    /// Whether the stream has an attachment in a partition.
    pub fn touches(&self, partition: u16) -> bool {
        self.whole.contains(&partition) || self.parts().iter().any(|one| one.partition == partition)
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
    /// The stream's id, or an own id for an attachment added by a change.
    pub id: StreamId,
    pub interest: Arc<Interest>,
}

/// The streams wanting a topic, or having a pattern set. Ended streams stay until they are more
/// than half: removing each alone would scan all of a large topic every time.
#[derive(Debug, Default)]
pub struct Subscribers {
    slots: SmallVec<[SlotRef; 2]>,
    /// Ended streams among them.
    ended_count: usize,
}

impl Subscribers {
    pub fn iter(&self) -> impl Iterator<Item = SlotRef> {
        self.slots.iter().copied()
    }

    pub fn add(&mut self, reference: SlotRef) {
        self.slots.push(reference);
    }

    /// Removes an open stream.
    pub fn remove(&mut self, reference: SlotRef) {
        if let Some(place) = self.slots.iter().position(|other| *other == reference) {
            self.slots.swap_remove(place);
        }
    }

    /// Counts a stream already removed from `streams`.
    pub fn end_one<O>(&mut self, streams: &Streams<O>) {
        self.ended_count += 1;
        if self.ended_count * 2 > self.slots.len() {
            self.slots.retain(|other| streams.get(*other).is_some());
            self.ended_count = 0;
        }
    }

    /// Whether no open stream is left.
    pub fn is_unused(&self) -> bool {
        self.slots.len() == self.ended_count
    }
}

impl<O> Slot<O> {
    /// Whether the partition routes no live events to the open stream yet.
    #[inline]
    pub fn is_replaying(&self, partition: u16) -> bool {
        self.is_open && self.replay.as_ref().is_some_and(|replay| replay.is_of(partition))
    }
}

/// Refers to a stream while it is open; afterwards to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotRef {
    index: u32,
    /// The low bits of the stream's id. The slot's next tenant has other bits.
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

    /// The references of all streams, in any order.
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
