//! What a stream has only while it is not up to date: of very many streams, nearly none has
//! any of it at a time. So it has memory of its own, which goes back.

use std::{
    collections::VecDeque,
    ops::{Deref, DerefMut},
    sync::{Arc, LazyLock},
};

use bytes::Bytes;

use crate::{
    batch::Batch, connection::Losses, cursor::Positions, event::SequencedEvent, outbox::Dropped,
    sse::control::Shutdown,
};

static NOTHING: LazyLock<BacklogParts> = LazyLock::new(BacklogParts::default);

#[derive(Default)]
pub(super) struct BacklogParts {
    /// Partitions that have not reached the stream's epoch: their sequences mean nothing in
    /// it, and a cursor says so.
    pub behind: Vec<u16>,
    /// The hub's own bytes that go first.
    pub prelude: VecDeque<Bytes>,
    /// Replayed events: shared with history, encoded as the client takes them.
    pub replay: VecDeque<Arc<SequencedEvent>>,
    /// Where the stream stands once the replay is taken; empty when it is.
    pub heads: Positions,
    /// Live events that the rate limit holds back.
    pub waiting: Batch,
    pub waiting_dropped: Dropped,
    /// The stream's last event, until it is taken.
    pub shutdown: Option<Shutdown>,
    pub losses: Losses,
}

impl BacklogParts {
    fn is_empty(&self) -> bool {
        self.behind.is_empty()
            && self.prelude.is_empty()
            && self.replay.is_empty()
            && self.heads.is_empty()
            && self.waiting.is_empty()
            && self.waiting_dropped.is_empty()
            && self.shutdown.is_none()
            && self.losses == Losses::default()
    }
}

/// All of it, or no memory. Changing any of it takes the memory for all.
#[derive(Default)]
pub(super) struct Backlog(Option<Box<BacklogParts>>);

impl Backlog {
    /// Whether there is nothing, and no memory for it.
    #[inline]
    pub fn is_none(&self) -> bool {
        self.0.is_none()
    }

    /// Gives back the memory of nothing.
    pub fn shrink(&mut self) {
        self.0.take_if(|parts| parts.is_empty());
    }
}

impl Deref for Backlog {
    type Target = BacklogParts;

    fn deref(&self) -> &BacklogParts {
        self.0.as_deref().unwrap_or(&NOTHING)
    }
}

impl DerefMut for Backlog {
    fn deref_mut(&mut self) -> &mut BacklogParts {
        self.0.get_or_insert_default()
    }
}
