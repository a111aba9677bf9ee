//! How events leave a manager: batches become frames, frames gather per stream, and each
//! stream is handed all of a turn in one message.

use std::{
    mem::take,
    sync::Arc,
    time::{Duration, Instant},
};

use smallvec::SmallVec;

use crate::{
    batch::Batch,
    policy::Flush,
    sse::ShutdownReason,
    topic_manager::{
        ManagerState,
        frame::{Frame, Frames},
        streams::{Outlet, SlotRef, Streams},
    },
};

/// Frames waiting for one stream longer than a turn: references to shared frames.
const MAX_HELD_FRAMES: usize = 100_000;

/// Delay before a stream with a full mailbox is tried again.
const RETRY: Duration = Duration::from_millis(10);

impl<O: Outlet> ManagerState<O> {
    pub(super) fn flush(&mut self, now: Instant) {
        if self.due.first_key_value().is_none_or(|(at, _)| *at > now) {
            return;
        }
        let later = self.due.split_off(&(now + Duration::from_nanos(1)));
        let due = std::mem::replace(&mut self.due, later);
        let mut ids = Vec::new();
        for (at, candidates) in due {
            for id in candidates {
                // An entry may be stale: the topic's time moved forward, or the topic is gone and
                // its number reused.
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
            for reference in &self.topics[id].subscribers {
                queue(&mut self.streams, &mut dirty, *reference, &frame);
            }
            let streams = &mut self.streams;
            self.patterns.for_each_match(&self.topics[id].topic, |reference| {
                queue(streams, &mut dirty, reference, &frame);
            });
            let policy = &frame.events[0].policy;
            if policy.flush == Flush::Leading {
                self.set_due(id, now + policy.tick);
            } else {
                self.drop_topic_if_unused(id);
            }
        }
        self.hand_over(dirty, now);
    }

    /// Hands queued frames to these streams, one message each.
    pub(super) fn hand_over(&mut self, dirty: Vec<SlotRef>, now: Instant) {
        for reference in dirty {
            self.pull_ahead(reference);
            let Some(slot) = self.streams.get_mut(reference) else { continue };
            if slot.queued.is_empty() {
                continue;
            }
            if slot.is_held && slot.queued.len() > MAX_HELD_FRAMES {
                // The connection's task has not run for so long that only a resume can help.
                slot.queued = Frames::new();
                slot.outlet.end(ShutdownReason::Slow, None, Frames::new());
                continue;
            }
            if slot.awaited > 0 {
                // The end of its opening, or more frames, bring it here again.
                continue;
            }
            slot.last_write = now;
            slot.is_held = false;
            if let Err(frames) = slot.outlet.deliver(take(&mut slot.queued)) {
                slot.queued = frames;
                slot.is_held = true;
                self.undelivered.push(reference);
                self.retry_at.get_or_insert(now + RETRY);
            }
        }
    }

    /// Order holds per partition and stream. If a stream gets an event while older events of the
    /// same partition wait for the tick of other topics, those leave with it. At their own tick the
    /// cursor makes the stream ignore them.
    fn pull_ahead(&mut self, reference: SlotRef) {
        let Some(slot) = self.streams.get(reference) else { return };
        if !slot.may_interleave || slot.awaited > 0 {
            return;
        }
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
                // The usual case: all leave at one tick.
                continue;
            }
            let waiting: SmallVec<[&Batch; 4]> = if slot.subscription.patterns.is_empty() {
                let own = slot.topics.iter().map(|id| *id as usize);
                own.filter(|id| pending.contains(id)).map(|id| &self.topics[id].pending).collect()
            } else {
                let wanted = pending.iter().filter(|id| slot.wants(**id, &self.topics[**id].topic));
                wanted.map(|id| &self.topics[*id].pending).collect()
            };
            let last = last_with_merged(&waiting, last);
            ahead.extend(waiting.iter().filter_map(|batch| {
                let older = batch.iter().filter(|event| event.oldest_sequence() < last);
                Frame::new(older.cloned().collect())
            }));
        }
        if let Some(slot) = self.streams.get_mut(reference) {
            slot.queued.extend(ahead);
        }
    }
}

/// The last sequence to leave with everything older than `last`: an event merged from such older
/// events leaves too, then everything older than that one.
fn last_with_merged(waiting: &[&Batch], mut last: u64) -> u64 {
    loop {
        let leaving = waiting.iter().flat_map(|batch| batch.iter());
        let leaving = leaving.filter(|event| event.oldest_sequence() < last);
        let Some(newest) = leaving.map(|event| event.sequence).max().filter(|new| *new > last)
        else {
            return last;
        };
        last = newest;
    }
}

/// Queues a frame for a stream that wants one of its events: once, even if several patterns and
/// topics matched.
fn queue<O: Outlet>(
    streams: &mut Streams<O>,
    dirty: &mut Vec<SlotRef>,
    reference: SlotRef,
    frame: &Arc<Frame>,
) {
    let Some(slot) = streams.get_mut(reference) else { return };
    if slot.queued.last().is_some_and(|last| Arc::ptr_eq(last, frame)) {
        return;
    }
    if frame.interruption.is_none()
        && !frame.events.iter().any(|event| slot.subscription.wants_event(event))
    {
        return;
    }
    // A waiting stream is visited again too, so its bound is checked.
    if slot.queued.is_empty() || slot.awaited > 0 {
        dirty.push(reference);
    }
    slot.queued.push(frame.clone());
}
