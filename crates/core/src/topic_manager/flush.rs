//! The events' way out of a manager. Batches become frames, frames gather per stream, and each
//! stream gets all frames of a turn in one message.

use std::{
    collections::{HashMap, HashSet},
    mem::take,
    sync::Arc,
    time::{Duration, Instant},
};

use smallvec::SmallVec;

use crate::{
    batch::{Batch, WaitingEvent},
    pattern_set::sets_matching,
    policy::Flush,
    sse::ShutdownReason,
    topic_manager::{
        ManagerState,
        frame::{Frame, Frames},
        streams::{Outlet, Slot, SlotRef, Streams},
    },
};

/// The most frames held for one stream longer than a turn. They are references to shared frames.
const MAX_HELD_FRAMES: usize = 100_000;

/// Delay before the next delivery to a connection with a full mailbox.
const RETRY: Duration = Duration::from_millis(10);

impl<O: Outlet> ManagerState<O> {
    /// Sends the pending events of all due topics.
    pub(super) fn flush(&mut self, now: Instant) {
        if self.due.first_key_value().is_none_or(|(at, _)| *at > now) {
            return;
        }
        let later = self.due.split_off(&(now + Duration::from_nanos(1)));
        let due = std::mem::replace(&mut self.due, later);
        let mut ids = Vec::new();
        for (at, candidates) in due {
            for id in candidates {
                // Skip stale entries: the topic's due moment has moved forward, or the topic is
                // gone and its number reused.
                if let Some(entry) = self.topics.get_mut(id)
                    && entry.due == Some(at)
                {
                    entry.due = None;
                    ids.push(id);
                }
            }
        }
        self.send(ids, now);
    }

    /// Sends the pending events of these topics.
    pub(super) fn send(&mut self, ids: Vec<usize>, now: Instant) {
        let mut dirty = Vec::new();
        for id in ids {
            let entry = &mut self.topics[id];
            entry.due = None;
            let Some(frame) = Frame::new(entry.pending.take()) else {
                self.drop_topic_if_unused(id);
                continue;
            };
            self.pending[usize::from(frame.partition)].remove(&id);
            self.activity.batch_events.push(frame.events.len());
            for reference in self.topics[id].subscribers.iter() {
                queue(&mut self.streams, &mut dirty, reference, &frame);
            }
            if !self.patterns.is_empty() {
                let sets = sets_matching(&self.topics[id].topic);
                let sets = sets.iter().filter_map(|set| self.patterns.get(set));
                for reference in sets.flat_map(|(_, subscribers)| subscribers.iter()) {
                    queue(&mut self.streams, &mut dirty, reference, &frame);
                }
            }
            let policy = &frame.events[0].policy;
            if policy.flush == Flush::Leading {
                // Remember the topic until it was quiet for a tick. All topics of a tick share this
                // moment: one of its own each would wake the manager for every topic.
                let forgotten_at = self.next_tick(policy, now + policy.tick);
                self.set_due(id, forgotten_at);
            } else {
                self.drop_topic_if_unused(id);
            }
        }
        self.hand_over(dirty, now);
    }

    /// Hands queued frames to these streams, in one message each.
    pub(super) fn hand_over(&mut self, dirty: Vec<SlotRef>, now: Instant) {
        let mut ahead = FramesAhead::default();
        let written_ms = self.spec.age_ms(now);
        for reference in dirty {
            self.pull_ahead(reference, &mut ahead);
            let Some(slot) = self.streams.get_mut(reference) else { continue };
            if slot.queued.is_empty() {
                continue;
            }
            if slot.is_held && slot.queued.len() > MAX_HELD_FRAMES {
                // The stream has waited too long. Drop its frames: after the reconnect, the resume
                // replays them.
                slot.queued = Frames::new();
                slot.outlet.end(ShutdownReason::Slow, None, Frames::new());
                continue;
            }
            if slot.awaited > 0 {
                // `go_on` brings the stream here again; so does the next frame, for the bound.
                continue;
            }
            slot.written_ms = written_ms;
            slot.is_held = false;
            // A full mailbox: keep the frames in order and retry. Waiting here would delay all
            // other streams of the worker.
            if let Err(frames) = slot.outlet.deliver(take(&mut slot.queued)) {
                slot.queued = frames;
                slot.is_held = true;
                self.undelivered.push(reference);
                self.retry_at.get_or_insert(now + RETRY);
            }
        }
    }

    /// The topics with pending batches for this stream.
    fn waiting_for(
        &self,
        slot: &Slot<O>,
        pending: &HashSet<usize>,
    ) -> SmallVec<[(usize, &Batch); 4]> {
        let batch = |id: usize| (id, &self.topics[id].pending);
        // Without patterns, its own topics suffice, if they are fewer.
        if slot.subscription.patterns.is_empty() && slot.topics.len() <= pending.len() {
            let own = slot.topics.iter().map(|id| *id as usize);
            return own.filter(|id| pending.contains(id)).map(batch).collect();
        }
        let wanted = pending.iter().copied();
        let wanted = wanted.filter(|id| slot.subscription.wants(&self.topics[*id].topic));
        wanted.map(batch).collect()
    }

    /// Keeps each stream's events of one partition in order. If the stream gets an event while
    /// older events of the partition wait for another topic's tick, the older events leave with it.
    /// At their own tick, the stream skips them by its position.
    ///
    /// Without this step the newer event would advance the cursor, and the older events would be
    /// skipped as already sent.
    fn pull_ahead(&mut self, reference: SlotRef, frames: &mut FramesAhead) {
        let Some(slot) = self.streams.get(reference) else { return };
        if !slot.may_interleave || slot.awaited > 0 {
            return;
        }
        // The newest queued sequence of each partition.
        let mut newest: SmallVec<[(u16, u64); 4]> = SmallVec::new();
        for frame in &slot.queued {
            match newest.iter_mut().find(|(partition, _)| *partition == frame.partition) {
                Some((_, last)) => *last = frame.last_sequence().max(*last),
                None => newest.push((frame.partition, frame.last_sequence())),
            }
        }
        let mut ahead = Frames::new();
        for (partition, last) in newest {
            let pending = &self.pending[usize::from(partition)];
            if pending.is_empty() {
                // The usual case: all events of the partition leave at one tick.
                continue;
            }
            let waiting = self.waiting_for(slot, pending);
            let last = last_with_merged(waiting.iter().map(|(_, batch)| *batch), last);
            let older = waiting.iter().filter_map(|(id, batch)| frames.get(*id, batch, last));
            ahead.extend(older);
        }
        if let Some(slot) = self.streams.get_mut(reference) {
            slot.queued.extend(ahead);
        }
    }
}

/// The frames of events leaving ahead of their tick in one turn. Streams alike share them, so each
/// is encoded once.
#[derive(Default)]
struct FramesAhead(HashMap<(usize, u64), Option<Arc<Frame>>>);

impl FramesAhead {
    /// The events of a topic's batch older than `last`, in a frame.
    fn get(&mut self, id: usize, batch: &Batch, last: u64) -> Option<Arc<Frame>> {
        let frame = self.0.entry((id, last)).or_insert_with(|| {
            let older = batch.iter().filter(|event| event.oldest_sequence() < last);
            Frame::new(older.map(WaitingEvent::to_event).collect())
        });
        frame.clone()
    }
}

/// The sequence bound of the events leaving together with the event `last`. A merged event leaves
/// if its oldest part is before the bound. Its own sequence may be higher; then everything older
/// than it leaves too.
fn last_with_merged<'a>(waiting: impl Iterator<Item = &'a Batch>, mut last: u64) -> u64 {
    let merged = waiting.flat_map(Batch::merged);
    let mut merged: Vec<_> =
        merged.map(|event| (event.oldest_sequence(), event.sequence())).collect();
    merged.sort_unstable();
    for (oldest, newest) in merged {
        if oldest >= last {
            break;
        }
        last = last.max(newest);
    }
    last
}

/// Queues a frame for a stream wanting at least one of its events: once, even if several patterns
/// and topics match.
fn queue<O: Outlet>(
    streams: &mut Streams<O>,
    dirty: &mut Vec<SlotRef>,
    reference: SlotRef,
    frame: &Arc<Frame>,
) {
    let Some(slot) = streams.get_mut(reference) else { return };
    // All matches of one frame are queued before the next frame, so the last one suffices.
    if slot.queued.last().is_some_and(|last| Arc::ptr_eq(last, frame)) {
        return;
    }
    if frame.interruption.is_none()
        && !frame.events.iter().any(|event| slot.subscription.wants_event(event))
    {
        return;
    }
    if slot.is_replaying(frame.partition) {
        // A later page has these events.
        return;
    }
    // Visit a waiting stream again too: `hand_over` checks its bound.
    if slot.queued.is_empty() || slot.awaited > 0 {
        dirty.push(reference);
    }
    slot.queued.push(frame.clone());
}
