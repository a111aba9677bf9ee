//! The transport's input: control events first, then the replay, the outbox, and the events held
//! back by the rate limit. Events are encoded only here: an id then names the stream's position
//! after exactly the events taken so far.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use bytes::Bytes;

use crate::{
    connection::{ConnectionState, WorkerContext, view::View},
    cursor::Epoch,
    event::SequencedEvent,
    outbox::{Content, Dropped, GapHere, Popped, Segment},
    sse::{
        GapReason,
        control::{Gap, Live, names},
    },
};

/// A piece of replayed or waiting events ends with the event reaching this size.
const PIECE_BYTES: usize = 16 * 1024;

/// Bytes for the socket.
#[derive(Debug)]
pub struct Piece {
    pub bytes: Bytes,
    /// The number of published events in them.
    pub event_count: u32,
    /// The publish time of the first event; none for replayed or control events.
    pub published_at: Option<Instant>,
}

impl Piece {
    pub(super) fn control(bytes: impl Into<Bytes>) -> Self {
        Self { bytes: bytes.into(), event_count: 0, published_at: None }
    }
}

/// The next output.
#[derive(Debug)]
pub enum Next {
    Write(Piece),
    /// No output until the next message to the stream.
    Idle,
    /// No output before this moment: the rate limit holds events back.
    WaitUntil(Instant),
    /// The stream has ended, and the transport has taken all output.
    Finished,
}

/// Events encoded only when the client takes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    Replay,
    Waiting,
}

impl ConnectionState {
    /// Takes the next piece for the socket. The call counts as progress of the client.
    #[inline]
    pub fn next(&mut self, worker: &mut WorkerContext, now: Instant) -> Next {
        self.last_taken = now;
        // Most streams have no backlog, only live events.
        if !self.backlog.is_none()
            && let Some(next) = self.next_before_outbox(worker, now)
        {
            return next;
        }
        while let Some(popped) = self.outbox.pop() {
            match popped {
                Popped::Gap(dropped) => {
                    let bytes = self.gap_of(GapReason::Slow, &dropped);
                    return Next::Write(Piece::control(bytes));
                }
                Popped::Segment(segment) => {
                    if let Some(piece) = self.take(segment, worker) {
                        return Next::Write(piece);
                    }
                }
            }
        }
        if !self.backlog.is_none()
            && let Some(next) = self.next_after_outbox(worker, now)
        {
            return next;
        }
        match self.end {
            Some(_) => Next::Finished,
            None => Next::Idle,
        }
    }

    /// Takes control events and the replay: all output older than the outbox.
    fn next_before_outbox(&mut self, worker: &mut WorkerContext, now: Instant) -> Option<Next> {
        if let Some(bytes) = self.backlog.prelude.pop_front() {
            return Some(Next::Write(Piece::control(bytes)));
        }
        if let Some(next) = self.next_held_back(Held::Replay, worker, now) {
            return Some(next);
        }
        // The replay is taken completely: the cursor can jump to the heads, past all events the
        // stream did not want.
        if !self.backlog.heads.is_empty() {
            let heads = std::mem::take(&mut self.backlog.heads);
            self.advance(heads.iter());
            // Events since this time may still come with the next page.
            if self.backlog.paging == 0 {
                self.backlog.catching_up_since = None;
                let seen = &self.seen;
                self.backlog.marks.retain(|mark| seen.get(mark.partition).is_none());
            }
            if self.end.is_none() {
                let more = std::mem::take(&mut self.backlog.more);
                self.backlog.drained.extend(more);
            }
            let is_caught_up = self.backlog.paging == 0 && self.end.is_none();
            if is_caught_up && std::mem::take(&mut self.backlog.owes_live) {
                return Some(Next::Write(Piece::control(Live {}.encode(&self.cursor()))));
            }
        }
        None
    }

    /// Takes the events held back by the rate limit, then `shutdown`.
    fn next_after_outbox(&mut self, worker: &mut WorkerContext, now: Instant) -> Option<Next> {
        // Dropped events are older than all waiting events, so their gap comes first.
        if !self.backlog.waiting_dropped.is_empty() {
            let dropped = std::mem::take(&mut self.backlog.waiting_dropped);
            let bytes = self.gap_of(GapReason::Rate, &dropped);
            return Some(Next::Write(Piece::control(bytes)));
        }
        if let Some(next) = self.next_held_back(Held::Waiting, worker, now) {
            return Some(next);
        }
        // `shutdown` is last: its id must cover everything before it.
        let shutdown = self.backlog.shutdown.take();
        self.backlog.shrink();
        let shutdown = shutdown?;
        let id = self.cursor();
        Some(Next::Write(Piece::control(shutdown.encode(&id))))
    }

    /// Whether [`Self::next`] has no output and no memory to free.
    #[inline]
    pub fn is_idle(&self) -> bool {
        self.backlog.is_none() && self.outbox.is_empty() && self.end.is_none()
    }

    fn gap_of(&self, reason: GapReason, dropped: &Dropped) -> Bytes {
        let topics = self.subscription.only_topic();
        let gap = Gap { reason, partitions: &dropped.partitions, topics: topics.as_slice() };
        gap.encode(&self.cursor()).into()
    }

    /// Takes the replayed or waiting events allowed to leave now.
    fn next_held_back(
        &mut self,
        held: Held,
        worker: &mut WorkerContext,
        now: Instant,
    ) -> Option<Next> {
        let mut leaving: Vec<Arc<SequencedEvent>> = Vec::new();
        let mut bytes = 0;
        while bytes < PIECE_BYTES {
            let front = match held {
                Held::Replay => self.backlog.replay.front(),
                Held::Waiting => self.backlog.waiting.front(),
            };
            let Some(front) = front else { break };
            // An ending stream gets all events at once: waiting would only delay its end.
            if self.end.is_none()
                && let Err(at) = self.limiter.take(&front.policy, 1, &worker.clock, now)
            {
                if leaving.is_empty() {
                    // Until then the rate limit delays the stream, not the client: the write
                    // timeout starts only afterwards.
                    self.last_taken = at;
                    return Some(Next::WaitUntil(at));
                }
                break;
            }
            let event = match held {
                Held::Replay => self.backlog.replay.pop_front(),
                Held::Waiting => self.backlog.waiting.pop(),
            };
            bytes += event.as_ref().map_or(0, |event| event.stream_bytes());
            leaving.extend(event);
        }
        if leaving.is_empty() {
            return None;
        }
        let mut segment = Segment::events(&leaving);
        if held == Held::Replay {
            // A replayed event's age is no measure of the hub's delivery time.
            segment.published_at = None;
            if self.backlog.replay.is_empty() {
                self.backlog.replay = VecDeque::new();
            }
        }
        self.take(segment, worker).map(Next::Write)
    }

    /// Encodes a segment. Everything before it must be taken: its ids then name the stream's
    /// position at this point. `None` for a new epoch without a gap.
    #[inline]
    fn take(&mut self, segment: Segment, worker: &mut WorkerContext) -> Option<Piece> {
        let bytes = match segment.content {
            Content::Bytes(bytes) => bytes,
            Content::Events(events) => {
                worker.cache.encoded(events, &self.view(), self.outbox.taken())
            }
            Content::Gap(gap) => self.take_gap(&gap, &segment.advances)?,
        };
        self.advance(segment.advances.iter().copied());
        let Segment { event_count, published_at, .. } = segment;
        Some(Piece { bytes, event_count, published_at })
    }

    /// Begins the gap's epoch, unless a page has, and encodes the gap. Its own id is the position after it: a client
    /// resuming there must not get the same gap again. `None` without missed events, and for an
    /// epoch told already.
    fn take_gap(&mut self, gap: &GapHere, advances: &[(u16, u64)]) -> Option<Bytes> {
        if gap.epoch.is_some_and(|epoch| self.has_begun(gap.partition, epoch)) {
            return None;
        }
        // The gap of the first partition names all partitions of the stream, so each later one
        // begins the epoch without a gap of its own.
        let is_told = self.backlog.has_told_epoch
            && !gap.repeats
            && gap.epoch.is_some()
            && gap.epoch <= self.epoch;
        if let Some(epoch) = gap.epoch {
            self.begin_epoch(gap.partition, epoch);
        }
        self.advance(advances.iter().copied());
        let reason = gap.reason.filter(|_| !is_told)?;
        let mut partitions = vec![gap.partition];
        if gap.epoch.is_some() && !self.backlog.behind.is_empty() {
            self.backlog.has_told_epoch = true;
            partitions = self.seen.iter().map(|(number, _)| number).collect();
        }
        let topics = names(&gap.topics);
        let event = Gap { reason: reason.into(), partitions: &partitions, topics: &topics };
        Some(event.encode(&self.cursor()).into())
    }

    fn view(&self) -> View<'_> {
        // Before the opening, no events are taken, so the default is never visible.
        let epoch = self.epoch.unwrap_or(Epoch::new(0));
        View {
            epoch,
            behind: &self.backlog.behind,
            marks: &self.backlog.marks,
            format: self.subscription.format,
            is_single: self.outbox.taken().len() == 1,
        }
    }
}
