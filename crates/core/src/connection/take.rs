//! The transport's input: the hub's own bytes first, then the replay, the outbox, and the events
//! held back by the rate limit. Events are encoded here, so an id names the stream's position after
//! the write.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use bytes::Bytes;

use crate::{
    connection::{ConnectionState, WorkerContext, view::View},
    cursor::Epoch,
    event::SequencedEvent,
    outbox::{Content, Dropped, Popped, Segment},
    sse::{
        GapReason,
        control::{Gap, names},
    },
};

/// Bytes of replayed or waiting events encoded in one piece.
const PIECE_BYTES: usize = 16 * 1024;

/// Bytes for the socket.
#[derive(Debug)]
pub struct Piece {
    pub bytes: Bytes,
    /// How many published events they hold.
    pub event_count: u32,
    /// When the oldest of them was published, unless it is replayed.
    pub published_at: Option<Instant>,
}

impl Piece {
    fn control(bytes: impl Into<Bytes>) -> Self {
        Self { bytes: bytes.into(), event_count: 0, published_at: None }
    }
}

/// The next output.
#[derive(Debug)]
pub enum Next {
    Write(Piece),
    /// Nothing now.
    Idle,
    /// Nothing before this moment: the rate limit holds events back.
    WaitUntil(Instant),
    /// The stream has ended and all of it was taken.
    Finished,
}

/// Events encoded only when the client takes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    Replay,
    Waiting,
}

impl ConnectionState {
    /// The next piece for the socket.
    #[inline]
    pub fn next(&mut self, worker: &mut WorkerContext, now: Instant) -> Next {
        self.last_taken = now;
        if !self.backlog.prelude.is_empty()
            && let Some(bytes) = self.backlog.prelude.pop_front()
        {
            return Next::Write(Piece::control(bytes));
        }
        if let Some(next) = self.next_held_back(Held::Replay, worker, now) {
            return next;
        }
        if !self.backlog.heads.is_empty() {
            let heads = std::mem::take(&mut self.backlog.heads);
            self.advance(heads.iter());
        }
        match self.outbox.pop() {
            Some(Popped::Gap(dropped)) => {
                let bytes = self.gap_of(GapReason::Slow, &dropped);
                return Next::Write(Piece::control(bytes));
            }
            Some(Popped::Segment(segment)) => return Next::Write(self.take(segment, worker)),
            None => {}
        }
        if !self.backlog.waiting_dropped.is_empty() {
            let dropped = std::mem::take(&mut self.backlog.waiting_dropped);
            let bytes = self.gap_of(GapReason::Rate, &dropped);
            return Next::Write(Piece::control(bytes));
        }
        if let Some(next) = self.next_held_back(Held::Waiting, worker, now) {
            return next;
        }
        let shutdown = match self.backlog.shutdown {
            Some(_) => self.backlog.shutdown.take(),
            None => None,
        };
        self.backlog.shrink();
        match shutdown {
            Some(shutdown) => Next::Write(Piece::control(shutdown.encode(&self.cursor()))),
            None if self.end.is_some() => Next::Finished,
            None => Next::Idle,
        }
    }

    /// Whether [`Self::next`] has nothing to give or to do.
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
            // An ending stream is sent everything: the rate limit has no purpose any more.
            if self.end.is_none()
                && let Err(at) = self.limiter.take(&front.policy, 1, &worker.clock, now)
            {
                if leaving.is_empty() {
                    // Until then the rate limit delays the stream, not the client, so the write
                    // timeout must not count.
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
            // A replayed event's age says nothing of how fast the hub is.
            segment.published_at = None;
            if self.backlog.replay.is_empty() {
                self.backlog.replay = VecDeque::new();
            }
        }
        Some(Next::Write(self.take(segment, worker)))
    }

    /// Encodes a segment after everything before it is taken. So its ids name the stream's position
    /// at this point.
    fn take(&mut self, segment: Segment, worker: &mut WorkerContext) -> Piece {
        let bytes = match segment.content {
            Content::Bytes(bytes) => bytes,
            Content::Events(events) => {
                worker.cache.encoded(events, &self.view(), self.outbox.taken())
            }
            Content::Gap(gap) => {
                if let Some(epoch) = gap.epoch {
                    self.begin_epoch(gap.partition, epoch);
                }
                self.advance(segment.advances.iter().copied());
                let reason = GapReason::from(gap.reason);
                let (partitions, topics) = (&[gap.partition], names(&gap.topics));
                let event = Gap { reason, partitions, topics: &topics };
                event.encode(&self.cursor()).into()
            }
        };
        self.advance(segment.advances.iter().copied());
        let Segment { event_count, published_at, .. } = segment;
        Piece { bytes, event_count, published_at }
    }

    fn view(&self) -> View<'_> {
        // Nothing is taken before the stream is opened.
        let epoch = self.epoch.unwrap_or(Epoch::new(0));
        View {
            epoch,
            behind: &self.backlog.behind,
            format: self.subscription.format,
            is_single: self.seen.len() == 1,
        }
    }
}
