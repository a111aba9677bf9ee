//! The decisions of a connection: the next events of its stream, the moment they may leave, and the
//! treatment of a slow client. Owns no socket. `opening` and `push` fill the outbox, `take` has the transport's side.

mod backlog;
mod encode_cache;
mod limiter;
mod opening;
mod order;
mod push;
mod take;
mod view;
mod worker;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use backlog::Backlog;
use bytes::Bytes;
pub use take::{Next, Piece};
pub use worker::WorkerContext;

use crate::{
    connection::limiter::{Limiter, LimiterClock},
    cursor::{Epoch, IN_ANOTHER_EPOCH, Positions, ReplayMarks},
    event::SequencedEvent,
    ids::StreamId,
    outbox::Outbox,
    policy::{Rate, SlowConsumer},
    sse::{
        ShutdownReason,
        control::{Renew, Shutdown},
        encode,
    },
    subscription::{Format, ResolvedSubscription},
    topic_manager::Frame,
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

#[cfg(test)]
mod tests;
