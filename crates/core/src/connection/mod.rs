//! The decisions of a connection: the next events of its stream, the moment they may leave, and the
//! treatment of a slow client. Owns no socket. `take` has the transport's side.

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
        order::{fitting, in_order, merged},
    },
    cursor::{Epoch, IN_ANOTHER_EPOCH, Positions, ReplayMark, ReplayMarks},
    event::SequencedEvent,
    ids::StreamId,
    interest::Start,
    outbox::{Content, GapHere, Outbox, Segment},
    partition::Interruption,
    partition_log::{MissedReason, Replay},
    policy::{Rate, SlowConsumer},
    sse::{
        GapReason, ShutdownReason,
        control::{Connected, Gap, Renew, Shutdown, names},
        encode,
    },
    subscription::{Format, ResolvedSubscription},
    topic_manager::{ChangeStep, Frame, Opening, Page},
};

/// The most bytes of live events in one piece; a larger event is a piece alone. Enough for some
/// ticks of a busy topic.
const MAX_SEGMENT_BYTES: usize = 128 * 1024;

/// Bounds and times of all streams.
#[derive(Debug, Clone)]
pub struct ConnectionSpec {
    pub rate: Rate,
    pub max_outbox_bytes: usize,
    pub slow_consumer: SlowConsumer,
    pub write_timeout: Duration,
}

/// The beginning of an opened stream, for metrics and logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplayResult {
    /// The client sent no cursor, and gets no gap.
    None,
    /// The client gets all missed events.
    Complete,
    /// The client gets a gap first.
    Gap,
}

/// A stream with taken pages, and their partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drained {
    pub stream: StreamId,
    pub partitions: Vec<u16>,
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
    /// The epoch of the taken output; none before the opening.
    epoch: Option<Epoch>,
    subscription: Arc<ResolvedSubscription>,
    /// The last sequence received in each partition. Older events are ignored.
    seen: Positions,
    limiter: Limiter,
    outbox: Outbox,
    backlog: Backlog,
    /// The last moment the client took output, or had no output to take.
    last_taken: Instant,
    /// The time for the ids of control events, in milliseconds since 1970: of the opening, the last
    /// change, or the last event received. Not the present: mail of a later change may be under way.
    id_ms: u64,
    end: Option<ShutdownReason>,
    /// Whether the transport applies the write timeout.
    is_watched: bool,
}

impl ConnectionState {
    /// A stream with its first bytes, the `retry:` line. `retry` is an hour at most.
    pub fn new(
        spec: Arc<ConnectionSpec>,
        retry: Duration,
        subscription: Arc<ResolvedSubscription>,
        worker: &WorkerContext,
        now: Instant,
    ) -> Self {
        // An hour at most, so it fits.
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
            id_ms: 0,
            end: None,
            is_watched: false,
        }
    }

    /// Starts the stream: `connected`, a gap if needed, the replay, then live events.
    pub fn on_opened(
        &mut self,
        opening: Opening,
        client_id: &str,
        worker: &WorkerContext,
        now: Instant,
    ) -> ReplayResult {
        if self.end.is_some() {
            return ReplayResult::None;
        }
        let Opening { stream, replays, at: opening_at } = opening;
        self.backlog.stream = stream;
        // Live events up to `head` are in the replay. The cursor gets `heads` only after the replay
        // is taken: earlier, a cut would lose the rest of the replay.
        self.seen = replays.iter().map(|(number, r)| (*number, r.head)).collect();
        self.backlog.heads = self.seen.clone();
        let more = replays.iter().filter(|(_, replay)| replay.next.is_some());
        self.backlog.more = more.map(|(number, _)| *number).collect();
        self.backlog.paging = self.backlog.more.len();
        self.backlog.owes_live = self.subscription.wants_live;
        let result =
            match (&self.subscription.start, replays.iter().any(|(_, r)| r.missed.is_some())) {
                (_, true) => ReplayResult::Gap,
                (Start::Resume(_) | Start::Since(_), false) => ReplayResult::Complete,
                (_, false) => ReplayResult::None,
            };
        // The partitions' epochs differ only while a new epoch begins. Partitions behind keep their
        // mark in the cursor, so their sequences are never compared with the newest epoch.
        self.epoch = replays.iter().map(|(_, replay)| replay.epoch).max();
        let is_behind = |replay: &Replay| Some(replay.epoch) != self.epoch;
        let behind = replays.iter().filter(|(_, replay)| is_behind(replay));
        self.backlog.behind = behind.map(|(number, _)| *number).collect();
        self.outbox.advance(replays.iter().map(|(number, _)| (*number, IN_ANOTHER_EPOCH)));
        self.advance(replays.iter().map(|(number, replay)| (*number, replay.start)));
        self.keep_positions();
        // The client does not know a gap's losses before the gap.
        let marks = replays.iter().filter(|(_, replay)| replay.missed.is_none());
        marks.for_each(|(number, replay)| self.mark_replay(*number, replay));
        if replays.iter().any(|(_, r)| r.next.is_some() || !r.events.is_empty()) {
            self.backlog.catching_up_since = match &self.subscription.start {
                Start::Resume(cursor) => cursor.unix_ms,
                Start::Since(unix_ms) => Some(*unix_ms),
                Start::Live | Start::Snapshot | Start::Earliest | Start::Resumed(_) => None,
            };
        }
        self.id_ms = worker.clock_ms(opening_at);
        let id = self.cursor();
        let topics: Vec<&str> = self.subscription.names().collect();
        let connected = Connected {
            client_id,
            timestamp: worker.clock_ms(now),
            topics: &topics,
            resumed: result == ReplayResult::Complete,
        };
        // If the connection is cut between `connected` and the gap, the client must return with its
        // old cursor. With the new cursor it would never get the gap.
        let mut text = match &self.subscription.start {
            Start::Resume(cursor) if replays.iter().any(|(_, replay)| tells_epoch(replay)) => {
                connected.encode(&cursor.to_string())
            }
            _ => connected.encode(&id),
        };
        let missed = replays.iter().filter_map(|(number, r)| Some((*number, r.missed.as_ref()?)));
        let (mut partitions, missed): (Vec<u16>, Vec<_>) = missed.unzip();
        if !missed.is_empty() {
            let is_epoch = missed.iter().any(|missed| missed.reason == MissedReason::Epoch);
            if is_epoch && !self.backlog.behind.is_empty() {
                // One gap for the epoch, also for the partitions yet to begin it.
                self.backlog.has_told_epoch = true;
                partitions = self.seen.iter().map(|(number, _)| number).collect();
            }
            let reason = if is_epoch { MissedReason::Epoch } else { MissedReason::History };
            let reason = GapReason::from(reason);
            let topics = names(missed.iter().flat_map(|missed| &missed.topics));
            replays.iter().for_each(|(number, replay)| self.mark_replay(*number, replay));
            let id = self.cursor();
            text += &Gap { reason, partitions: &partitions, topics: &topics }.encode(&id);
        }
        self.backlog.prelude.push_back(text.into());
        let events = replays.into_iter().flat_map(|(_, replay)| replay.events);
        let events = events.filter(|event| self.subscription.wants_event(event)).collect();
        self.backlog.replay = merged(in_order(events)).into();
        result
    }

    /// Adds the next page of a partition's replay. The client has taken all earlier pages of this
    /// partition.
    pub fn on_page(&mut self, page: Page) {
        if self.end.is_some() {
            return;
        }
        let Page { stream, partition, replay: page } = page;
        self.backlog.stream = stream;
        self.seen.set(partition, page.head);
        self.backlog.heads.set(partition, page.head);
        match page.next {
            Some(_) => self.backlog.more.push(partition),
            None => self.backlog.paging = self.backlog.paging.saturating_sub(1),
        }
        // Between two pages, the stream gets no interruption of the partition: its next page tells a
        // new epoch. Without a gap, the epoch is another name of the same sequences.
        self.begin_epoch(partition, page.epoch);
        self.advance([(partition, page.start)].into_iter());
        if let Some(missed) = &page.missed {
            self.mark_replay(partition, &page);
            let (reason, topics) = (GapReason::from(missed.reason), names(&missed.topics));
            let gap = Gap { reason, partitions: &[partition], topics: &topics };
            // Before all other output: its id would be behind events taken before it.
            let gap = gap.encode(&self.cursor());
            self.backlog.prelude.push_back(gap.into());
        }
        let left = std::mem::take(&mut self.backlog.replay);
        let events = page.events.into_iter().filter(|event| self.subscription.wants_event(event));
        let events = left.into_iter().chain(events).collect();
        self.backlog.replay = merged(in_order(events)).into();
    }

    /// Takes the partitions with a taken page, to ask for their next pages.
    #[inline]
    pub fn take_drained(&mut self) -> Option<Drained> {
        if self.backlog.is_none() || self.backlog.drained.is_empty() {
            return None;
        }
        let partitions = std::mem::take(&mut self.backlog.drained);
        Some(Drained { stream: self.backlog.stream, partitions })
    }

    /// Marks a partition within a replay. Not one behind: in the stream's epoch, the mark would hide
    /// new events up to the old head.
    fn mark_replay(&mut self, partition: u16, replay: &Replay) {
        if let Some((kind, head)) = replay.mark.filter(|_| Some(replay.epoch) == self.epoch) {
            self.backlog.marks.set(ReplayMark { partition, kind, head });
        }
    }

    /// Keeps the positions of the client's cursor in partitions not attached: topics added later
    /// continue after them. Positions of another epoch are not comparable; they become a gap. The
    /// marks of the client's cursor stay for now, also of attached partitions.
    fn keep_positions(&mut self) {
        let Start::Resume(cursor) = &self.subscription.start else { return };
        let is_present = Some(cursor.epoch) == self.epoch;
        if is_present && !cursor.marks.is_empty() {
            let behind = &self.backlog.behind;
            let mut marks = cursor.marks.clone();
            marks.retain(|mark| !behind.contains(&mark.partition));
            self.backlog.marks = marks;
        }
        let others = cursor.positions.iter().filter(|(number, _)| self.seen.get(*number).is_none());
        let kept = others.map(|(number, sequence)| {
            (number, if is_present { sequence } else { IN_ANOTHER_EPOCH })
        });
        self.outbox.advance(kept.collect::<Vec<_>>().into_iter());
    }

    /// Takes the frames of one turn.
    ///
    /// # Errors
    /// The client is too slow: end the stream with this reason.
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

    /// Takes the frames of one turn, and at once the output caused by them: the short way of
    /// [`Self::on_frames`] and [`Self::next`] for an idle stream and a single frame with its shared
    /// bytes. Anything else is `None`, and changes nothing.
    #[inline]
    pub fn pass(
        &mut self,
        frames: &[Arc<Frame>],
        worker: &mut WorkerContext,
        now: Instant,
    ) -> Option<Piece> {
        let [frame] = frames else { return None };
        if !self.is_idle()
            || frame.interruption.is_some()
            || !self.takes_whole(frame, &worker.clock, now)
        {
            return None;
        }
        self.last_taken = now;
        self.id_ms = frame.unix_ms;
        let position = (frame.partition, frame.last_sequence());
        self.seen.set(position.0, position.1);
        self.outbox.advance([position].into_iter());
        Some(Piece {
            bytes: frame.bytes.clone(),
            event_count: frame.events.len() as u32,
            published_at: Some(frame.published_at()),
        })
    }

    /// The same for a heartbeat.
    pub fn pass_heartbeat(&mut self, now: Instant) -> Option<Piece> {
        if !self.is_idle() {
            return None;
        }
        self.last_taken = now;
        Some(Piece::control(Bytes::from_static(encode::HEARTBEAT)))
    }

    /// Takes a step of a live change.
    pub fn on_change(
        &mut self,
        subscription: Arc<ResolvedSubscription>,
        step: ChangeStep,
        worker: &WorkerContext,
    ) {
        self.subscription = subscription;
        match step {
            ChangeStep::Began => {}
            ChangeStep::Joined(page) => self.join(page),
            ChangeStep::Finished { at } => {
                self.id_ms = worker.clock_ms(at);
                let id = self.cursor();
                if !id.is_empty() && self.end.is_none() {
                    self.backlog.prelude.push_back(encode::id_block(&id).into());
                }
            }
        }
    }

    /// Adds a partition with the first page of its replay.
    fn join(&mut self, page: Page) {
        let Page { partition, ref replay, .. } = page;
        // A known partition keeps its position: the head may be past events still to come.
        if self.seen.get(partition).is_some() {
            return self.queue_missed(partition, replay);
        }
        if self.end.is_some() {
            return;
        }
        if Some(replay.epoch) < self.epoch {
            self.backlog.behind.push(partition);
            self.backlog.marks.retain(|mark| mark.partition != partition);
            self.outbox.advance([(partition, IN_ANOTHER_EPOCH)].into_iter());
        } else {
            self.begin_epoch(partition, replay.epoch);
            self.advance([(partition, replay.start)].into_iter());
        }
        self.backlog.paging += 1;
        self.on_page(page);
    }

    /// Queues the gap of an addition, if any.
    fn queue_missed(&mut self, partition: u16, replay: &Replay) {
        if let Some(missed) = &replay.missed {
            let (reason, topics) = (Some(missed.reason), missed.topics.clone());
            let gap = GapHere { reason, partition, topics, epoch: None, repeats: false };
            self.push_gap_segment(gap, SmallVec::new());
        }
    }

    /// Adds a heartbeat, unless control events or the outbox have output for the client.
    ///
    /// # Errors
    /// The client is too slow: end the stream with this reason.
    pub fn on_heartbeat(&mut self, now: Instant) -> Result<(), ShutdownReason> {
        if self.end.is_some() {
            return Ok(());
        }
        self.check_progress(now)?;
        if self.backlog.prelude.is_empty() && self.outbox.is_empty() {
            // A comment is allowed between any two events, so also before a replay or events held
            // back by the rate limit.
            self.backlog.prelude.push_back(Bytes::from_static(encode::HEARTBEAT));
        }
        Ok(())
    }

    /// Tells the client the remaining time of its token.
    pub fn on_renew(&mut self, remaining: Duration) {
        if self.end.is_none() {
            let renew = Renew { expires_ms: remaining.as_millis() as u64 };
            let text = renew.encode(&self.cursor());
            self.backlog.prelude.push_back(text.into());
        }
    }

    /// Ends the stream after all pending output. A slow client's unsent events are dropped: the
    /// client can resume. So are those of a client without a grant. Further calls change nothing. Without `reconnect`, the client waits for
    /// its `retry:` time.
    pub fn end(&mut self, reason: ShutdownReason, reconnect: Option<Duration>) {
        if self.end.is_some() {
            return;
        }
        self.end = Some(reason);
        if reason.drops_output() {
            self.forget();
        }
        let reconnect_ms =
            reconnect.map_or(self.retry_ms.into(), |reconnect| reconnect.as_millis() as u64);
        self.backlog.shutdown = Some(Shutdown { reason, reconnect_ms });
    }

    /// Drops all unsent events. The next id then names the end of the last taken piece, so a resume
    /// replays the dropped events.
    pub fn forget(&mut self) {
        let waiting = &mut self.backlog;
        (waiting.replay, waiting.heads, waiting.waiting) = Default::default();
        (waiting.more, waiting.drained, waiting.owes_live) = Default::default();
        self.outbox.clear();
    }

    /// Whether the stream is open, and the client has taken its whole replay.
    pub fn is_caught_up(&self) -> bool {
        self.epoch.is_some()
            && self.backlog.paging == 0
            && self.backlog.heads.is_empty()
            && self.backlog.replay.is_empty()
    }

    pub fn subscription(&self) -> &Arc<ResolvedSubscription> {
        &self.subscription
    }

    /// The reason of the end, if the stream has ended or is about to.
    #[inline]
    pub fn ended(&self) -> Option<ShutdownReason> {
        self.end
    }

    /// Leaves the write timeout to the transport: it sees the bytes acknowledged by the client.
    pub fn watch(&mut self) {
        self.is_watched = true;
    }

    /// The time limit for a client without progress.
    pub fn write_timeout(&self) -> Duration {
        self.spec.write_timeout
    }

    /// The bytes in the outbox, not taken yet.
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

    /// Whether the frame's shared bytes fit this stream unchanged. If so, also takes its events
    /// from the rate limit.
    fn takes_whole(&mut self, frame: &Frame, clock: &LimiterClock, now: Instant) -> bool {
        let newer = self.seen.get(frame.partition).is_some_and(|seen| seen < frame.oldest);
        newer
            && !self.is_of_ended_epoch(&frame.events[0])
            && frame.bytes.len() <= self.max_segment_bytes()
            && self.outbox.taken().len() == 1
            && self.subscription.format == Format::Events
            && self.subscription.wants_all_types()
            && self.backlog.waiting.is_empty()
            && self
                .limiter
                .take(&frame.events[0].policy, frame.events.len() as u32, clock, now)
                .is_ok()
    }

    /// Queues frames with interruptions among them. An interruption separates only the frames of
    /// its own partition. Frames of other partitions stay together: a separate push per run would
    /// break their publish order.
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

    #[inline]
    fn push_frames(&mut self, frames: &[Arc<Frame>], worker: &mut WorkerContext, now: Instant) {
        match frames {
            [] => {}
            [frame] if self.takes_whole(frame, &worker.clock, now) => self.push_frame(frame),
            frames => self.push_events(frames, worker, now),
        }
    }

    /// Queues a gap at an interruption.
    fn push_gap(&mut self, interruption: &Interruption) {
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

    fn push_gap_segment(&mut self, gap: GapHere, advances: SmallVec<[(u16, u64); 1]>) {
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
        self.id_ms = frame.unix_ms;
        self.outbox.push(Segment {
            size_bytes: frame.bytes.len(),
            content: Content::Bytes(frame.bytes.clone()),
            event_count: frame.events.len() as u32,
            published_at: Some(frame.published_at()),
            advances: SmallVec::from_buf([position]),
        });
    }

    fn push_events(&mut self, frames: &[Arc<Frame>], worker: &mut WorkerContext, now: Instant) {
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

    /// Advances the cursor: the transport has taken everything up to these positions. Partitions
    /// behind keep their mark.
    fn advance(&mut self, positions: impl Iterator<Item = (u16, u64)>) {
        let behind = &self.backlog.behind;
        self.outbox.advance(positions.filter(|(partition, _)| !behind.contains(partition)));
    }

    /// The stream's cursor, for an `id:` line. Empty without a position: the event then has no
    /// `id:` line, and the client keeps its last id. An empty `id:` line would erase it.
    ///
    /// While the stream is catching up, its time is the one of the cursor it resumed with: topics
    /// added by the client then continue from there.
    pub fn cursor(&self) -> String {
        let positions = self.outbox.taken();
        let epoch = self.epoch.filter(|_| !positions.is_empty());
        let unix_ms = self.backlog.catching_up_since.unwrap_or(self.id_ms);
        let marks = &self.backlog.marks;
        epoch
            .map_or_else(String::new, |epoch| encode::cursor_text(epoch, unix_ms, positions, marks))
    }

    /// Whether the output taken so far has the begin of a partition's epoch.
    fn has_begun(&self, partition: u16, epoch: Epoch) -> bool {
        Some(epoch) <= self.epoch && !self.backlog.behind.contains(&partition)
    }

    /// Whether the event's partition has begun a later epoch. Frames held back for a full mailbox
    /// arrive after the answer to a later addition: in its epoch, their sequences mean nothing.
    #[inline]
    fn is_of_ended_epoch(&self, event: &SequencedEvent) -> bool {
        Some(event.epoch) < self.epoch && self.has_begun(event.partition, event.epoch)
    }

    /// Records a partition's epoch. With a newer epoch, all other partitions of the stream fall
    /// behind until they begin it too.
    fn begin_epoch(&mut self, partition: u16, epoch: Epoch) {
        if self.epoch < Some(epoch) {
            self.epoch = Some(epoch);
            self.backlog.has_told_epoch = false;
            self.backlog.behind = self.seen.iter().map(|(number, _)| number).collect();
            self.backlog.marks = ReplayMarks::default();
            // Kept positions too, of partitions not attached.
            let all = self.outbox.taken().iter().map(|(number, _)| (number, IN_ANOTHER_EPOCH));
            let all: Vec<(u16, u64)> = all.collect();
            self.outbox.advance(all.into_iter());
        }
        if self.epoch == Some(epoch) {
            self.backlog.behind.retain(|behind| *behind != partition);
        }
    }

    /// The most bytes of a segment. A transport takes whole segments, so none is large. With
    /// `drop-oldest`, a segment is at most an eighth of the outbox: dropping one then keeps the
    /// newest events.
    fn max_segment_bytes(&self) -> usize {
        match self.spec.slow_consumer {
            SlowConsumer::Disconnect => MAX_SEGMENT_BYTES,
            SlowConsumer::DropOldest => MAX_SEGMENT_BYTES.min(self.spec.max_outbox_bytes / 8),
        }
    }

    /// Over the bound, drops the events waiting longest for the rate limit.
    #[inline]
    fn bound_waiting(&mut self) {
        while self.backlog.waiting.bytes() > self.spec.max_outbox_bytes {
            let Some(event) = self.backlog.waiting.pop() else { return };
            self.backlog.waiting_dropped.add(1, event.partition);
            self.backlog.losses.dropped_rate += 1;
        }
    }

    /// Bounds the outbox. The events of one turn may exceed the bound if the outbox was empty
    /// before: they show a busy turn, not a slow client.
    #[inline]
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

    /// Checks the write timeout: a client without progress for this time is treated as slow.
    #[inline]
    fn check_progress(&mut self, now: Instant) -> Result<(), ShutdownReason> {
        if self.is_watched || self.is_drained() {
            self.last_taken = now;
            return Ok(());
        }
        let stalled = now.saturating_duration_since(self.last_taken) > self.spec.write_timeout;
        if stalled { Err(ShutdownReason::Slow) } else { Ok(()) }
    }

    /// Whether no output waits for the client.
    fn is_drained(&self) -> bool {
        self.backlog.prelude.is_empty()
            && self.backlog.replay.is_empty()
            && self.outbox.is_empty()
            && self.backlog.waiting.is_empty()
    }
}

/// Whether the replay begins with a gap for another epoch.
fn tells_epoch(replay: &Replay) -> bool {
    replay.missed.as_ref().is_some_and(|missed| missed.reason == MissedReason::Epoch)
}

#[cfg(test)]
mod tests;
