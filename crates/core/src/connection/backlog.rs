//! The part of a stream's state needed only while the stream has a backlog. At any time, very few
//! streams have one, so it is one box, freed when empty.

use std::{
    collections::VecDeque,
    ops::{Deref, DerefMut},
    sync::{Arc, LazyLock},
};

use bytes::Bytes;

use crate::{
    batch::Batch,
    connection::Losses,
    cursor::{Positions, ReplayMarks},
    event::SequencedEvent,
    ids::StreamId,
    outbox::Dropped,
    sse::control::Shutdown,
};

static NOTHING: LazyLock<BacklogParts> = LazyLock::new(BacklogParts::default);

#[derive(Default)]
pub(super) struct BacklogParts {
    /// Partitions still in an older epoch. Their sequences are invalid in the stream's epoch, so
    /// the cursor has [`IN_ANOTHER_EPOCH`](crate::cursor::IN_ANOTHER_EPOCH) for them.
    pub behind: Vec<u16>,
    /// Whether a gap has told the client of the present epoch for all partitions, also for those
    /// behind.
    pub has_told_epoch: bool,
    /// Control events, comments and the `retry:` line, sent first.
    pub prelude: VecDeque<Bytes>,
    /// Replayed events, shared with history. They are encoded only as the client takes them, so a
    /// long replay needs little memory.
    pub replay: VecDeque<Arc<SequencedEvent>>,
    /// While the stream is catching up: the time of the cursor it resumed with.
    pub catching_up_since: Option<u64>,
    /// The partitions within a replay, also of replays cut earlier: their topics may come back.
    pub marks: ReplayMarks,
    /// The stream's positions after the replay; empty once they apply.
    pub heads: Positions,
    /// The stream's id, if it has more pages.
    pub stream: StreamId,
    /// The partitions of `heads` with more pages.
    pub more: Vec<u16>,
    /// The number of partitions with more pages to come.
    pub paging: usize,
    /// Partitions with a taken page, and with more pages to ask for.
    pub drained: Vec<u16>,
    /// Whether `live` is still to follow the replay.
    pub owes_live: bool,
    /// Live events held back by the rate limit.
    pub waiting: Batch,
    /// Events dropped from `waiting`, not yet reported by a gap.
    pub waiting_dropped: Dropped,
    /// The stream's last event, until the transport takes it.
    pub shutdown: Option<Shutdown>,
    pub losses: Losses,
}

impl BacklogParts {
    fn is_empty(&self) -> bool {
        self.behind.is_empty()
            && self.prelude.is_empty()
            && self.replay.is_empty()
            && self.marks.is_empty()
            && self.heads.is_empty()
            && self.more.is_empty()
            && self.drained.is_empty()
            && self.paging == 0
            && !self.owes_live
            && self.waiting.is_empty()
            && self.waiting_dropped.is_empty()
            && self.shutdown.is_none()
            && self.losses == Losses::default()
    }
}

/// The parts in one allocation, or none. Reading allocates nothing; a change of any part allocates
/// all.
#[derive(Default)]
pub(super) struct Backlog(Option<Box<BacklogParts>>);

impl Backlog {
    /// Whether no memory is allocated. An empty backlog may still hold its memory.
    #[inline]
    pub fn is_none(&self) -> bool {
        self.0.is_none()
    }

    /// Frees the memory of an empty backlog.
    pub fn shrink(&mut self) {
        self.0.take_if(|parts| parts.is_empty());
    }
}

impl Deref for Backlog {
    type Target = BacklogParts;

    #[inline]
    fn deref(&self) -> &BacklogParts {
        self.0.as_deref().unwrap_or(&NOTHING)
    }
}

impl DerefMut for Backlog {
    fn deref_mut(&mut self) -> &mut BacklogParts {
        self.0.get_or_insert_default()
    }
}
