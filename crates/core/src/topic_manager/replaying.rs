//! Replays longer than a page, of a new stream or of topics added to an open one. The transport
//! pulls: once the client has taken a page, the manager asks the partition for the next one. With its
//! last page, the partition attaches the stream.

use std::{mem::take, sync::Arc, time::Instant};

use crate::{
    ids::StreamId,
    interest::{Interest, StartFrom},
    partition::InterestChange,
    partition_log::Replay,
    replays::ReplayLimit,
    sse::ShutdownReason,
    topic_manager::{
        ManagerState,
        frame::{Frames, Opening, Page},
        page_bytes,
        streams::{Outlet, ReplayPart, Slot, SlotRef, SlotReplay},
    },
};

impl<O: Outlet> ManagerState<O> {
    /// The client has taken the pages of these partitions: asks for the next ones.
    pub fn continue_replay(&mut self, stream: StreamId, partitions: &[u16]) {
        let Some(reference) = self.streams.find(stream) else { return };
        let Some(slot) = self.streams.get_mut(reference) else { return };
        let max_bytes = page_bytes(slot.attachments.count());
        let Some(replay) = &mut slot.replay else { return };
        let parts = replay.parts.iter_mut();
        for part in parts.filter(|part| partitions.contains(&part.partition)) {
            let Some(rest) = part.next.take() else { continue };
            let (interest, from) = (part.interest.clone(), StartFrom::Continue(rest));
            let stream = part.attachment;
            if stream != slot.stream {
                self.joining.insert(stream, reference);
            }
            let attach = InterestChange::Attach { stream, interest, from, max_bytes };
            self.changes[usize::from(part.partition)].push(attach);
        }
    }

    /// A partition has answered with a later page.
    pub(super) fn on_page(
        &mut self,
        partition: u16,
        reference: SlotRef,
        page: Replay,
        now: Instant,
    ) {
        let Some(slot) = self.streams.get_mut(reference) else { return };
        let Some(replay) = &mut slot.replay else { return };
        match page.next {
            Some(next) => {
                let mut parts = replay.parts.iter_mut();
                if let Some(part) = parts.find(|part| part.partition == partition) {
                    part.next = Some(next);
                }
            }
            None => replay.parts.retain(|part| part.partition != partition),
        }
        if replay.parts.is_empty() {
            slot.replay = None;
        }
        slot.outlet.page(Page { stream: slot.stream, partition, replay: page });
        self.start_changes(reference, now);
    }
}

impl SlotReplay {
    /// For a new stream with these interests.
    pub(super) fn of(stream: StreamId, interests: &[(u16, Arc<Interest>)]) -> Self {
        let part = |(partition, interest): &(u16, Arc<Interest>)| ReplayPart {
            partition: *partition,
            interest: interest.clone(),
            next: None,
            attachment: stream,
        };
        let opening = Vec::with_capacity(interests.len());
        Self { opening, parts: interests.iter().map(part).collect(), place: None }
    }
}

impl<O: Outlet> Slot<O> {
    /// Sends the opening. Over the limit of replays, the stream ends with its first pages: its
    /// client returns and continues.
    pub(super) fn open(&mut self, replays: &Arc<ReplayLimit>, now: Instant) {
        let Some(mut replay) = self.replay.take() else { return };
        let mut opening = take(&mut replay.opening);
        opening.sort_unstable_by_key(|(partition, _)| *partition);
        let next = |partition| {
            let found = opening.iter().find(|(number, _)| *number == partition);
            found.and_then(|(_, page)| page.next)
        };
        replay.parts.iter_mut().for_each(|part| part.next = next(part.partition));
        replay.parts.retain(|part| part.next.is_some());
        self.outlet.open(Opening { stream: self.stream, replays: opening, at: now });
        if replay.parts.is_empty() {
            return;
        }
        // Live events of these partitions follow their last pages. They came here for other
        // streams.
        self.queued.retain(|frame| frame.interruption.is_some() || !replay.is_of(frame.partition));
        replay.place = replays.begin();
        if replay.place.is_none() {
            self.outlet.end(ShutdownReason::Capacity, None, Frames::new());
        }
        self.replay = Some(replay);
    }

    /// Begins the pages of an added partition. Live events of it follow the last page; the queued
    /// ones came here for other streams. Over the limit of replays, the stream ends as in
    /// [`Self::open`].
    pub(super) fn begin_replay(&mut self, part: ReplayPart, replays: &Arc<ReplayLimit>) {
        let partition = part.partition;
        self.queued.retain(|frame| frame.interruption.is_some() || frame.partition != partition);
        let replay = self.replay.get_or_insert_default();
        replay.parts.push(part);
        replay.place = replay.place.take().or_else(|| replays.begin());
        if replay.place.is_none() {
            self.outlet.end(ShutdownReason::Capacity, None, Frames::new());
        }
    }

    /// Whether the partition has answered with a page, and the last one is still to come.
    pub(super) fn is_between_pages(&self, partition: u16) -> bool {
        let opening = self.replay.iter().flat_map(|replay| &replay.opening);
        let mut first_pages =
            opening.filter(|(attached, page)| *attached == partition && page.next.is_some());
        self.is_replaying(partition) || first_pages.next().is_some()
    }

    /// Whether a partition has answered, before the opening.
    pub(super) fn has_opening_of(&self, partition: u16) -> bool {
        let mut opening = self.replay.iter().flat_map(|replay| &replay.opening);
        opening.any(|(attached, _)| *attached == partition)
    }
}
