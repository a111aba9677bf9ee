//! The parts of a store shared by its handle and its threads.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering},
};

use crate::{
    figures::Counters,
    ledger::Ledger,
    options::Lane,
    queue::{Append, Done, Origin, Queue},
    record::Entry,
};

/// Whether the log takes records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    Writing,
    /// The last group found no room on the disk. The next one tries again.
    Full,
    /// A write or sync failed. Nothing is written until the log is opened again.
    Failed(Arc<str>),
}

#[derive(Default)]
pub struct StateCell {
    is_full: AtomicBool,
    failure: OnceLock<Arc<str>>,
}

impl StateCell {
    pub fn state(&self) -> State {
        match self.failure() {
            Some(reason) => State::Failed(reason),
            None if self.is_full.load(Ordering::Relaxed) => State::Full,
            None => State::Writing,
        }
    }

    pub fn failure(&self) -> Option<Arc<str>> {
        self.failure.get().cloned()
    }

    pub fn set_written(&self) {
        self.is_full.store(false, Ordering::Relaxed);
    }

    pub fn set_full(&self) {
        self.is_full.store(true, Ordering::Relaxed);
    }

    /// The first failure is the reason.
    pub fn set_failed(&self, reason: &Arc<str>) {
        let _ = self.failure.set(reason.clone());
    }
}

/// The parts of a store shared with its threads.
pub struct Shared {
    pub queue: Queue,
    pub ledger: Ledger,
    pub counters: Counters,
    pub state: StateCell,
    pub max_queue_bytes: usize,
}

impl Shared {
    pub fn append(&self, lane: Lane, entries: Vec<Entry>, origin: Origin, done: Done) {
        self.queue.append(Append { lane, entries, origin, done });
    }
}
