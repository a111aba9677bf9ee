//! The queue between the lanes and the writer's thread.
//!
//! It takes everything: a publisher asks for room before it takes a sequence. So the bound is passed
//! by the batches of lanes asking at the same time, and by copies of the cleaning, at most.

use std::{collections::VecDeque, mem, time::Instant};

use parking_lot::{Condvar, Mutex};

use crate::{
    error::WriteError,
    options::Lane,
    record::{Entry, HEADER_BYTES},
};

/// Called once with the fate of an append, on the writer's thread.
pub type Done = Box<dyn FnOnce(Result<(), WriteError>) + Send>;

/// The largest group, unless one append is larger. It bounds the time of a write.
const MAX_GROUP_BYTES: usize = 4 << 20;

/// Why records are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    Lane,
    Cleaning,
}

/// Records of one lane, written together.
pub struct Append {
    pub lane: Lane,
    pub entries: Vec<Entry>,
    pub origin: Origin,
    pub done: Done,
}

impl Append {
    pub fn bytes(&self) -> usize {
        self.entries.iter().map(|entry| HEADER_BYTES + entry.payload.len()).sum()
    }
}

/// How the queue ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Everything was stopped in order: the log gets its mark.
    Clean,
    /// The store was dropped.
    Dropped,
}

/// The work of one turn of the writer.
pub struct Turn {
    pub appends: Vec<Append>,
    /// Requests to sync everything written so far.
    pub syncs: Vec<Done>,
    /// Nothing follows this turn.
    pub end: Option<End>,
}

#[derive(Default)]
struct Waiting {
    appends: VecDeque<Append>,
    syncs: Vec<Done>,
    bytes: usize,
    end: Option<End>,
}

#[derive(Default)]
pub struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

impl Queue {
    pub fn append(&self, append: Append) {
        let mut waiting = self.waiting.lock();
        if waiting.end.is_some() {
            drop(waiting);
            return (append.done)(Err(WriteError::Failed("the log is closed".into())));
        }
        waiting.bytes += append.bytes();
        waiting.appends.push_back(append);
        self.changed.notify_one();
    }

    pub fn sync(&self, done: Done) {
        self.waiting.lock().syncs.push(done);
        self.changed.notify_one();
    }

    /// Ends the queue after its content. The first call counts.
    pub fn end(&self, end: End) {
        self.waiting.lock().end.get_or_insert(end);
        self.changed.notify_one();
    }

    pub fn bytes(&self) -> usize {
        self.waiting.lock().bytes
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        let waiting = self.waiting.lock();
        waiting.appends.is_empty() && waiting.syncs.is_empty()
    }

    /// Waits for work, until `deadline` at most.
    pub fn take(&self, deadline: Option<Instant>) -> Turn {
        let mut waiting = self.waiting.lock();
        while waiting.appends.is_empty() && waiting.syncs.is_empty() && waiting.end.is_none() {
            match deadline {
                None => self.changed.wait(&mut waiting),
                Some(deadline) if self.changed.wait_until(&mut waiting, deadline).timed_out() => {
                    break;
                }
                Some(_) => {}
            }
        }
        let appends = take_group(&mut waiting);
        let is_empty = waiting.appends.is_empty();
        // A sync covers all appends before it.
        let syncs = if is_empty { mem::take(&mut waiting.syncs) } else { Vec::new() };
        Turn { appends, syncs, end: waiting.end.filter(|_| is_empty) }
    }
}

fn take_group(waiting: &mut Waiting) -> Vec<Append> {
    let mut group = Vec::new();
    let mut group_bytes = 0;
    while let Some(next) = waiting.appends.front().map(Append::bytes)
        && (group.is_empty() || group_bytes + next <= MAX_GROUP_BYTES)
    {
        group_bytes += next;
        group.extend(waiting.appends.pop_front());
    }
    waiting.bytes -= group_bytes;
    group
}
