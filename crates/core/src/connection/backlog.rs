//! The part of a stream's state needed only while the stream is behind. Of very many streams,
//! nearly none has it at a time, so it is one box, freed when empty.

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
    /// Partitions still in an older epoch. Their sequences mean nothing in the stream's epoch; a
    /// cursor marks them.
    pub behind: Vec<u16>,
    /// The hub's own bytes, sent first.
    pub prelude: VecDeque<Bytes>,
    /// Replayed events: shared with history, encoded as the client takes them.
    pub replay: VecDeque<Arc<SequencedEvent>>,
    /// The stream's positions after the replay; empty once they apply.
    pub heads: Positions,
    /// Live events held back by the rate limit.
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
