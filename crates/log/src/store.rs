//! The handle of an open log.

use std::{
    fmt, io,
    path::PathBuf,
    sync::Arc,
    thread::{self, JoinHandle},
};

use parking_lot::Mutex;

use crate::{
    cleaning::{Cleaner, Page},
    error::WriteError,
    figures::Figures,
    options::Lane,
    queue::{Done, End, Origin},
    record::Entry,
    shared::{Shared, State},
};

struct Inner {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    directory: PathBuf,
    salt: u32,
}

impl Inner {
    fn end(&self, end: End) {
        self.shared.ledger.close();
        self.shared.queue.end(end);
        for thread in self.threads.lock().drain(..) {
            // A callback can drop the last handle on the writer's own thread.
            if thread.thread().id() != thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.end(End::Dropped);
    }
}

/// An open log. The last handle dropped without [`close`](Self::close) is an unclean stop.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

impl Store {
    pub(crate) fn new(
        shared: Arc<Shared>,
        writer: JoinHandle<()>,
        directory: PathBuf,
        salt: u32,
    ) -> Self {
        Self(Arc::new(Inner { shared, threads: Mutex::new(vec![writer]), directory, salt }))
    }

    /// Appends records of one lane and never blocks. `done` is called after the write, and after the
    /// sync with `SyncMode::Always`; the appends of a lane are answered in order.
    ///
    /// The queue takes everything: ask [`has_room`](Self::has_room) before a publish is accepted.
    pub fn append(&self, lane: Lane, entries: Vec<Entry>, done: Done) {
        self.0.shared.append(lane, entries, Origin::Lane, done);
    }

    /// As [`append`](Self::append), but synced in every mode before the answer.
    pub fn append_synced(&self, lane: Lane, entries: Vec<Entry>, done: Done) {
        let shared = self.0.shared.clone();
        let written = move |result: Result<(), WriteError>| match result {
            Ok(()) => shared.queue.sync(done),
            error => done(error),
        };
        self.append(lane, entries, Box::new(written));
    }

    /// Whether the queue is below its bound.
    pub fn has_room(&self) -> bool {
        self.0.shared.queue.bytes() < self.0.shared.max_queue_bytes
    }

    pub fn state(&self) -> State {
        self.0.shared.state.state()
    }

    /// Sets the bytes of records a lane still needs. Cleaning begins above three times the needed
    /// bytes of all lanes and two segments.
    pub fn set_needed_bytes(&self, lane: Lane, bytes: u64) {
        self.0.shared.ledger.set_needed(lane, bytes);
    }

    /// Starts the cleaning: `on_page` passes each page to its lane, on the cleaner's thread.
    pub fn start_cleaning(&self, on_page: impl Fn(Page) + Send + 'static) -> io::Result<()> {
        let cleaner = Cleaner {
            shared: self.0.shared.clone(),
            directory: self.0.directory.clone(),
            salt: self.0.salt,
            on_page: Box::new(on_page),
        };
        let thread = thread::Builder::new().name("fanfare-log-cleaner".into());
        self.0.threads.lock().push(thread.spawn(move || cleaner.run())?);
        Ok(())
    }

    pub fn figures(&self) -> Figures {
        let shared = &self.0.shared;
        let (segment_count, bytes) = shared.ledger.size();
        let queued_bytes = shared.queue.bytes() as u64;
        Figures { segment_count, bytes, queued_bytes, ..shared.counters.read() }
    }

    /// Writes and syncs the queue, and marks the stop as clean. Later appends are refused.
    pub fn close(&self) {
        self.0.end(End::Clean);
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("directory", &self.0.directory).finish_non_exhaustive()
    }
}
