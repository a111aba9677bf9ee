//! The decisions of a connection: the events still missing in its stream, the moment they may
//! leave, and the treatment of a slow client. No socket here. `take` has the transport's side.

mod backlog;
mod encode_cache;
mod limiter;
mod order;
mod take;
mod view;
mod worker;

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use backlog::Backlog;
use bytes::Bytes;
use smallvec::SmallVec;
pub use take::{Next, Piece};
pub use worker::WorkerContext;

use crate::{
    batch::Added,
    connection::{
        limiter::{Limiter, LimiterClock},
        order::{Unsent, fitting, in_order, merged},
    },
    cursor::{Epoch, IN_ANOTHER_EPOCH, Positions},
    event::SequencedEvent,
    interest::Start,
    outbox::{Content, GapHere, Outbox, Segment},
    partition::Interruption,
    partition_log::{MissedReason, Replay},
    policy::{Rate, SlowConsumer},
    sse::{
        GapReason, ShutdownReason,
        control::{Connected, Gap, Shutdown, names},
        encode,
    },
    subscription::{Format, ResolvedSubscription},
    topic_manager::{Begin, Frame, Opening},
};

/// Bytes of live events in one piece, if it is more than one: some ticks of a busy topic.
const MAX_SEGMENT_BYTES: usize = 128 * 1024;

/// Bounds and times of all streams.
#[derive(Debug, Clone)]
pub struct ConnectionSpec {
    pub rate: Rate,
    pub max_outbox_bytes: usize,
    pub slow_consumer: SlowConsumer,
    pub write_timeout: Duration,
}

/// How an opened stream begins, for metrics and logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplayResult {
    /// The client brought no cursor.
    None,
    /// It gets all it missed.
    Complete,
    /// It gets a gap first.
    Gap,
}

/// Counts since the last call, for the metrics.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Losses {
    pub conflated: u64,
    pub dropped_slow: u64,
    pub dropped_rate: u64,
}

/// The state of one stream.
pub struct ConnectionState {
    spec: Arc<ConnectionSpec>,
    /// The stream's `retry:` value, in milliseconds.
    retry_ms: u32,
    /// The epoch of the taken output; none before the stream is opened.
    epoch: Option<Epoch>,
    subscription: Arc<ResolvedSubscription>,
    /// The last sequence received in each partition. Older events are ignored.
    seen: Positions,
    limiter: Limiter,
    outbox: Outbox,
    backlog: Backlog,
    /// When the client last took something, or had nothing to take.
    last_taken: Instant,
    end: Option<ShutdownReason>,
}

impl ConnectionState {
    /// A stream with its first bytes, the `retry:` line, ready to be written.
    pub fn new(
        spec: Arc<ConnectionSpec>,
        retry: Duration,
        subscription: Arc<ResolvedSubscription>,
        worker: &WorkerContext,
        now: Instant,
    ) -> Self {
        // An hour at most.
        let retry_ms = retry.as_millis() as u32;
        let mut backlog = Backlog::default();
        backlog.prelude.push_back(encode::retry(retry_ms.into()).into());
        Self {
            limiter: Limiter::new(spec.rate, &worker.clock, now),
            spec,
            retry_ms,
            epoch: None,
            subscription,
            seen: Positions::default(),
            outbox: Outbox::default(),
            backlog,
            last_taken: now,
            end: None,
        }
    }

    /// The stream starts: its positions, and its replay before live events. `timestamp` is in
    /// milliseconds since 1970.
    pub fn on_opened(&mut self, opening: Opening, client_id: &str, timestamp: u64) -> ReplayResult {
        if self.end.is_some() {
            return ReplayResult::None;
        }
        let replays = opening.replays;
        self.seen = replays.iter().map(|(number, r)| (*number, r.head)).collect();
        self.backlog.heads = self.seen.clone();
        let result =
            match (&self.subscription.start, replays.iter().any(|(_, r)| r.missed.is_some())) {
                (_, true) => ReplayResult::Gap,
                (Start::Resume(_), false) => ReplayResult::Complete,
                (_, false) => ReplayResult::None,
            };
        // They differ only while a new one spreads.
        self.epoch = replays.iter().map(|(_, replay)| replay.epoch).max();
        let is_behind = |replay: &Replay| Some(replay.epoch) != self.epoch;
        let behind = replays.iter().filter(|(_, replay)| is_behind(replay));
        self.backlog.behind = behind.map(|(number, _)| *number).collect();
        self.outbox.advance(replays.iter().map(|(number, _)| (*number, IN_ANOTHER_EPOCH)));
        self.advance(replays.iter().map(|(number, replay)| (*number, replay.start)));
        let id = self.cursor();
        let topics: Vec<&str> = self.subscription.names().collect();
        let connected = Connected {
            client_id,
            timestamp,
            topics: &topics,
            resumed: result == ReplayResult::Complete,
        };
        let is_epoch = |replay: &Replay| {
            replay.missed.as_ref().is_some_and(|missed| missed.reason == MissedReason::Epoch)
        };
        // A client cut before it reads the gap must return with its old cursor, or it would never
        // learn of the gap.
        let mut text = match &self.subscription.start {
            Start::Resume(cursor) if replays.iter().any(|(_, replay)| is_epoch(replay)) => {
                connected.encode(&cursor.to_string())
            }
            _ => connected.encode(&id),
        };
        let missed = replays.iter().filter_map(|(number, r)| Some((*number, r.missed.as_ref()?)));
        let (partitions, missed): (Vec<u16>, Vec<_>) = missed.unzip();
        if !missed.is_empty() {
            let is_epoch = missed.iter().any(|missed| missed.reason == MissedReason::Epoch);
            let reason = if is_epoch { MissedReason::Epoch } else { MissedReason::History };
            let reason = GapReason::from(reason);
            let topics = names(missed.iter().flat_map(|missed| &missed.topics));
            text += &Gap { reason, partitions: &partitions, topics: &topics }.encode(&id);
        }
        self.backlog.prelude.push_back(text.into());
        let events = replays.into_iter().flat_map(|(_, replay)| replay.events);
        let events = events.filter(|event| self.subscription.wants_event(event)).collect();
        self.backlog.replay = merged(in_order(events)).into();
        result
    }

    /// Frames of one turn. The stream must end if the client is too slow for them.
    #[inline]
    pub fn on_frames(
        &mut self,
        frames: &[Arc<Frame>],
        worker: &mut WorkerContext,
        now: Instant,
    ) -> Result<(), ShutdownReason> {
        if self.end.is_some() {
            return Ok(());
        }
        self.check_progress(now)?;
        let unsent = self.outbox.bytes();
        if frames.iter().any(|frame| frame.interruption.is_some()) {
            self.push_interrupted(frames, worker, now);
        } else {
            self.push_frames(frames, worker, now);
        }
        self.bound_waiting();
        self.bound_outbox(unsent)
    }

    /// The stream wants something else from now on, and may stand in one more partition.
    pub fn on_change(&mut self, subscription: Arc<ResolvedSubscription>, begin: Option<Begin>) {
        self.subscription = subscription;
        let Some(Begin { partition, epoch, head }) = begin else { return };
        if self.seen.get(partition).is_some() {
            return;
        }
        self.seen.set(partition, head);
        if Some(epoch) < self.epoch {
            self.backlog.behind.push(partition);
            return self.outbox.advance([(partition, IN_ANOTHER_EPOCH)].into_iter());
        }
        self.begin_epoch(partition, epoch);
        self.advance([(partition, head)].into_iter());
    }

    /// Nothing was written for the heartbeat's time.
    pub fn on_heartbeat(&mut self, now: Instant) -> Result<(), ShutdownReason> {
        if self.end.is_some() {
            return Ok(());
        }
        self.check_progress(now)?;
        if self.backlog.prelude.is_empty() && self.outbox.is_empty() {
            // A comment may stand between any two events, so before those held back too.
            self.backlog.prelude.push_back(Bytes::from_static(encode::HEARTBEAT));
        }
        Ok(())
    }

    /// Ends the stream after everything sent so far. A slow client's unsent events are dropped: the
    /// client can resume. Further calls change nothing.
    pub fn end(&mut self, reason: ShutdownReason, reconnect: Option<Duration>) {
        if self.end.is_some() {
            return;
        }
        self.end = Some(reason);
        if reason == ShutdownReason::Slow {
            self.forget();
        }
        let reconnect_ms =
            reconnect.map_or(self.retry_ms.into(), |reconnect| reconnect.as_millis() as u64);
        self.backlog.shutdown = Some(Shutdown { reason, reconnect_ms });
    }

    /// Drops everything unsent. The last id then names the end of the last piece taken.
    pub fn forget(&mut self) {
        let waiting = &mut self.backlog;
        (waiting.replay, waiting.heads, waiting.waiting) = Default::default();
        self.outbox.clear();
    }

    /// Why the stream ends, once it does.
    #[inline]
    pub fn ended(&self) -> Option<ShutdownReason> {
        self.end
    }

    /// The deadline for a client taking nothing more.
    pub fn gives_up_at(&self) -> Instant {
        self.last_taken + self.spec.write_timeout
    }

    /// Bytes encoded and not taken.
    #[inline]
    pub fn unsent_bytes(&self) -> usize {
        self.outbox.bytes()
    }

    /// Takes the losses counted since the last call.
    #[inline]
    pub fn take_losses(&mut self) -> Losses {
        match self.backlog.is_none() {
            true => Losses::default(),
            false => std::mem::take(&mut self.backlog.losses),
        }
    }

    /// Whether a frame can go as it is: bytes shared with every other such stream.
    fn takes_whole(&mut self, frame: &Frame, clock: &LimiterClock, now: Instant) -> bool {
        let newer = self.seen.get(frame.partition).is_some_and(|seen| seen < frame.oldest);
        newer
            && frame.bytes.len() <= self.max_segment_bytes()
            && self.seen.len() == 1
            && self.subscription.format == Format::Events
            && self.subscription.wants_all_types()
            && self.backlog.waiting.is_empty()
            && self
                .limiter
                .take(&frame.events[0].policy, frame.events.len() as u32, clock, now)
                .is_ok()
    }

    /// An interruption parts the frames of its own partition only: those of others are in
    /// order only if they are taken together.
    fn push_interrupted(
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

    fn push_frames(&mut self, frames: &[Arc<Frame>], worker: &mut WorkerContext, now: Instant) {
        match frames {
            [] => {}
            [frame] if self.takes_whole(frame, &worker.clock, now) => self.push_frame(frame),
            frames => self.push_events(frames, worker, now),
        }
    }

    /// Events are missing here. Events held back by the rate limit are older and leave first.
    fn push_gap(&mut self, interruption: &Interruption) {
        let Interruption { partition, reason, ref topics, beginning } = *interruption;
        if self.seen.get(partition).is_none() {
            return;
        }
        if !self.backlog.waiting.is_empty() {
            let waiting = self.backlog.waiting.take();
            self.push_segments(&waiting);
        }
        let topics =
            topics.iter().filter(|topic| self.subscription.wants(topic)).cloned().collect();
        let epoch = beginning.map(|(epoch, _)| epoch);
        let gap = GapHere { reason, partition, topics, epoch };
        let mut advances = SmallVec::new();
        if let Some((_, sequence)) = beginning {
            self.seen.set(partition, sequence);
            advances.push((partition, sequence));
        }
        self.outbox.push(Segment {
            content: Content::Gap(Box::new(gap)),
            size_bytes: 0,
            event_count: 0,
            published_at: None,
            advances,
        });
    }

    fn push_frame(&mut self, frame: &Frame) {
        let position = (frame.partition, frame.last_sequence());
        self.seen.set(position.0, position.1);
        self.outbox.push(Segment {
            size_bytes: frame.bytes.len(),
            content: Content::Bytes(frame.bytes.clone()),
            event_count: frame.events.len() as u32,
            published_at: Some(frame.published_at()),
            advances: SmallVec::from_buf([position]),
        });
    }

    fn push_events(&mut self, frames: &[Arc<Frame>], worker: &mut WorkerContext, now: Instant) {
        let events = worker.cache.ordered(frames);
        let mut unsent = Unsent::after(&self.seen, &events);
        let mut coming: Vec<Arc<SequencedEvent>> = Vec::with_capacity(events.len());
        for event in &*events {
            let Some(seen) = self.seen.get(event.partition) else { continue };
            if event.sequence <= seen {
                continue;
            }
            let event = unsent.of(event.clone());
            self.seen.set(event.partition, event.sequence);
            if self.subscription.wants_event(&event) {
                coming.push(event);
            }
        }
        if self.may_leave_together(&coming, &worker.clock, now) {
            return self.push_segments(&coming);
        }
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

    /// Takes all of them from the rate limit at once, if they have one policy and it lets them.
    fn may_leave_together(
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

    fn push_segments(&mut self, mut leaving: &[Arc<SequencedEvent>]) {
        while !leaving.is_empty() {
            let (piece, rest) = leaving.split_at(fitting(leaving, self.max_segment_bytes()));
            self.outbox.push(Segment::events(piece));
            leaving = rest;
        }
    }

    /// Records that everything before these positions is on its way to the client.
    fn advance(&mut self, positions: impl Iterator<Item = (u16, u64)>) {
        let behind = &self.backlog.behind;
        self.outbox.advance(positions.filter(|(partition, _)| !behind.contains(partition)));
    }

    /// The stream's cursor. A stream without a position gives no id: an empty one would erase the
    /// id its client came with.
    fn cursor(&self) -> String {
        let positions = self.outbox.taken();
        let epoch = self.epoch.filter(|_| !positions.is_empty());
        epoch.map_or_else(String::new, |epoch| encode::cursor_text(epoch, positions))
    }

    /// A partition has begun another epoch.
    fn begin_epoch(&mut self, partition: u16, epoch: Epoch) {
        if self.epoch < Some(epoch) {
            self.epoch = Some(epoch);
            self.backlog.behind = self.seen.iter().map(|(number, _)| number).collect();
            let all = self.seen.iter().map(|(number, _)| (number, IN_ANOTHER_EPOCH));
            self.outbox.advance(all);
        }
        if self.epoch == Some(epoch) {
            self.backlog.behind.retain(|behind| *behind != partition);
        }
    }

    /// A transport takes whole segments, so none is large. With `drop-oldest`, segments are small
    /// beside the outbox: dropping one then keeps the newest events.
    fn max_segment_bytes(&self) -> usize {
        match self.spec.slow_consumer {
            SlowConsumer::Disconnect => MAX_SEGMENT_BYTES,
            SlowConsumer::DropOldest => MAX_SEGMENT_BYTES.min(self.spec.max_outbox_bytes / 8),
        }
    }

    /// Past the bound, the events waiting longest for the rate limit are dropped.
    fn bound_waiting(&mut self) {
        while self.backlog.waiting.bytes() > self.spec.max_outbox_bytes {
            let Some(event) = self.backlog.waiting.pop() else { return };
            self.backlog.waiting_dropped.add(1, event.partition);
            self.backlog.losses.dropped_rate += 1;
        }
    }

    /// One turn alone may exceed the bound, but not while earlier bytes wait.
    fn bound_outbox(&mut self, unsent_before: usize) -> Result<(), ShutdownReason> {
        if unsent_before == 0 || self.outbox.bytes() <= self.spec.max_outbox_bytes {
            return Ok(());
        }
        match self.spec.slow_consumer {
            SlowConsumer::Disconnect => Err(ShutdownReason::Slow),
            SlowConsumer::DropOldest => {
                self.backlog.losses.dropped_slow +=
                    self.outbox.drop_oldest(self.spec.max_outbox_bytes);
                Ok(())
            }
        }
    }

    /// A client taking nothing for the write timeout counts as gone.
    fn check_progress(&mut self, now: Instant) -> Result<(), ShutdownReason> {
        if self.is_drained() {
            self.last_taken = now;
            return Ok(());
        }
        let stalled = now.saturating_duration_since(self.last_taken) > self.spec.write_timeout;
        if stalled { Err(ShutdownReason::Slow) } else { Ok(()) }
    }

    /// Whether nothing waits for the client.
    fn is_drained(&self) -> bool {
        self.backlog.prelude.is_empty()
            && self.backlog.replay.is_empty()
            && self.outbox.is_empty()
            && self.backlog.waiting.is_empty()
    }
}
