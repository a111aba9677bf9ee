//! Frames and gaps on their way into the outbox.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use smallvec::SmallVec;

use super::{ConnectionState, WorkerContext, limiter::LimiterClock, order::fitting};
use crate::{
    batch::Added,
    event::SequencedEvent,
    outbox::{Content, GapHere, Segment},
    partition::Interruption,
    topic_manager::Frame,
};

impl ConnectionState {
    /// Queues frames with interruptions among them. An interruption separates only the frames of
    /// its own partition. Frames of other partitions stay together: a separate push per run would
    /// break their publish order.
    pub(super) fn push_interrupted(
        &mut self,
        frames: &[Arc<Frame>],
        worker: &mut WorkerContext,
        now: Instant,
    ) {
        let mut interrupted: BTreeSet<u16> = BTreeSet::new();
        let (mut together, mut parted) = (Vec::new(), Vec::new());
        for frame in frames.iter().cloned() {
            if frame.interruption.is_some() {
                interrupted.insert(frame.partition);
            }
            let is_parted = interrupted.contains(&frame.partition);
            if is_parted { parted.push(frame) } else { together.push(frame) }
        }
        self.push_frames(&together, worker, now);
        parted.sort_by_key(|frame| frame.partition);
        for run in parted.chunk_by(|_, next| next.interruption.is_none()) {
            let (first, later) = run.split_first().expect("a chunk has an element");
            if let Some(interruption) = &first.interruption {
                self.push_gap(interruption);
            }
            self.push_frames(later, worker, now);
        }
    }

    #[inline]
    pub(super) fn push_frames(
        &mut self,
        frames: &[Arc<Frame>],
        worker: &mut WorkerContext,
        now: Instant,
    ) {
        match frames {
            [] => {}
            [frame] if self.takes_whole(frame, &worker.clock, now) => self.push_frame(frame),
            frames => self.push_events(frames, worker, now),
        }
    }

    /// Queues a gap at an interruption.
    pub(super) fn push_gap(&mut self, interruption: &Interruption) {
        let Interruption { partition, reason, ref topics, beginning, repeats } = *interruption;
        if self.seen.get(partition).is_none() {
            return;
        }
        // The answer to an addition may overtake it.
        if beginning.is_some_and(|(epoch, _)| self.has_begun(partition, epoch)) {
            return;
        }
        // Events held back by the rate limit are older than the gap. Left in `waiting`, they would
        // leave after it.
        if !self.backlog.waiting.is_empty() {
            let waiting = self.backlog.waiting.take();
            self.push_segments(&waiting);
        }
        let topics =
            topics.iter().filter(|topic| self.subscription.wants(topic)).cloned().collect();
        let epoch = beginning.map(|(epoch, _)| epoch);
        let gap = GapHere { reason, partition, topics, epoch, repeats };
        let mut advances = SmallVec::new();
        if let (Some(_), None, Some(seen)) = (beginning, reason, self.seen.get(partition)) {
            // The same sequences in a new epoch: the position stays.
            advances.push((partition, seen));
        } else if let Some((_, sequence)) = beginning {
            // A new epoch: its sequences start here, and may be lower than those of the old epoch.
            self.seen.set(partition, sequence);
            advances.push((partition, sequence));
        }
        self.push_gap_segment(gap, advances);
    }

    pub(super) fn push_gap_segment(&mut self, gap: GapHere, advances: SmallVec<[(u16, u64); 1]>) {
        self.outbox.push(Segment {
            content: Content::Gap(Box::new(gap)),
            size_bytes: 0,
            event_count: 0,
            published_at: None,
            advances,
        });
    }

    pub(super) fn push_frame(&mut self, frame: &Frame) {
        let position = (frame.partition, frame.last_sequence());
        self.seen.set(position.0, position.1);
        self.id_ms = frame.unix_ms;
        self.outbox.push(Segment {
            size_bytes: frame.bytes.len(),
            content: Content::Bytes(frame.bytes.clone()),
            event_count: frame.events.len() as u32,
            published_at: Some(frame.published_at()),
            advances: SmallVec::from_buf([position]),
        });
    }

    pub(super) fn push_events(
        &mut self,
        frames: &[Arc<Frame>],
        worker: &mut WorkerContext,
        now: Instant,
    ) {
        let events = worker.cache.ordered(frames, &self.seen);
        let mut coming: Vec<Arc<SequencedEvent>> = Vec::with_capacity(events.len());
        for event in &*events {
            let Some(seen) = self.seen.get(event.partition) else { continue };
            // Already sent by the replay, or ahead of the event's own tick.
            if event.sequence <= seen || self.is_of_ended_epoch(event) {
                continue;
            }
            self.seen.set(event.partition, event.sequence);
            if self.subscription.wants_event(event) {
                coming.push(event.clone());
            }
        }
        if let Some(last) = coming.last() {
            self.id_ms = last.unix_ms;
        }
        if self.may_leave_together(&coming, &worker.clock, now) {
            return self.push_segments(&coming);
        }
        // Event by event: once one is held back, all later events wait behind it, in order.
        let mut leaving = Vec::with_capacity(coming.len());
        for event in coming {
            if self.backlog.waiting.is_empty()
                && self.limiter.take(&event.policy, 1, &worker.clock, now).is_ok()
            {
                leaving.push(event);
            } else if self.backlog.waiting.push(event) != Added::Appended {
                self.backlog.losses.conflated += 1;
            }
        }
        self.push_segments(&leaving);
    }

    /// Takes all events from the rate limit at once, if they have the same policy and the limit
    /// allows all. Spares the usual turn a check per event.
    pub(super) fn may_leave_together(
        &mut self,
        events: &[Arc<SequencedEvent>],
        clock: &LimiterClock,
        now: Instant,
    ) -> bool {
        let Some((first, others)) = events.split_first() else { return true };
        self.backlog.waiting.is_empty()
            && others.iter().all(|event| Arc::ptr_eq(&event.policy, &first.policy))
            && self.limiter.take(&first.policy, events.len() as u32, clock, now).is_ok()
    }

    pub(super) fn push_segments(&mut self, mut leaving: &[Arc<SequencedEvent>]) {
        while !leaving.is_empty() {
            let (piece, rest) = leaving.split_at(fitting(leaving, self.max_segment_bytes()));
            self.outbox.push(Segment::events(piece));
            leaving = rest;
        }
    }
}
