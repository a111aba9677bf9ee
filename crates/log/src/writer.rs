//! The writer's thread: the only writer of records.
//!
//! It takes all waiting appends as one group, writes them with one call and syncs them once. Then it
//! answers each append, in order. Under load, it gathers appends for a moment first.

use std::{
    fs::File,
    panic::{self, AssertUnwindSafe},
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crate::{
    directory,
    error::WriteError,
    figures::{Counters, Group},
    options::{Options, SyncMode},
    queue::{Append, Done, End, Origin, Turn},
    record,
    segment::{LastSequences, raise},
    shared::Shared,
    tail::{Tail, TailError},
};

/// A buffer larger than this is freed after its group.
const MAX_KEPT_BUFFER_BYTES: usize = 1 << 20;

/// The wait of a busy log for further records: the publishers answered by the last group publish
/// again. Large groups need fewer syncs, and rewrite fewer half-filled blocks. Far below a sync of
/// most disks.
const GATHERING: Duration = Duration::from_micros(200);

/// Appends in the last group of a busy log. Fewer publishers would wait for nobody.
const BUSY_APPENDS: usize = 4;

/// With this many bytes, a group rewrites one block of 16 at most: further records are no gain.
const FULL_GROUP_BYTES: usize = 64 << 10;

pub struct Writer {
    pub shared: Arc<Shared>,
    pub options: Options,
    pub directory: PathBuf,
    pub tail: Tail,
    pub last: LastSequences,
    pub salt: u32,
    /// With [`SyncMode::Interval`]: the time of the next sync, if something is written.
    pub sync_due: Option<Instant>,
    pub buffer: Vec<u8>,
    /// Appends in the last group.
    pub last_group: usize,
    /// Released after everything else.
    pub _lock: File,
}

impl Writer {
    /// Works until the queue's end. After a panic (of a callback), it refuses everything: callers
    /// must not wait forever.
    pub fn run_guarded(self) {
        let shared = self.shared.clone();
        if panic::catch_unwind(AssertUnwindSafe(|| self.run())).is_ok() {
            return;
        }
        let reason: Arc<str> = "the log's writer panicked".into();
        shared.state.set_failed(&reason);
        loop {
            let Turn { appends, syncs, end } = shared.queue.take(None);
            let dones = appends.into_iter().map(|append| append.done).chain(syncs);
            for done in dones {
                let refuse = || done(Err(WriteError::Failed(reason.clone())));
                let _ = panic::catch_unwind(AssertUnwindSafe(refuse));
            }
            if end.is_some() {
                return;
            }
        }
    }

    /// Works until the queue's end.
    fn run(mut self) {
        loop {
            if gathers(self.options.sync, self.last_group, self.shared.queue.bytes()) {
                thread::sleep(GATHERING);
            }
            let Turn { appends, syncs, end } = self.shared.queue.take(self.sync_due);
            self.last_group = appends.len();
            self.write_group(appends);
            self.sync_for(syncs);
            self.sync_if_due();
            // An answer can have asked for a sync.
            if let Some(end) = end.filter(|_| self.shared.queue.is_empty()) {
                return self.end(end);
            }
        }
    }

    fn write_group(&mut self, appends: Vec<Append>) {
        if appends.is_empty() {
            return;
        }
        let result = match self.shared.state.failure() {
            Some(reason) => Err(WriteError::Failed(reason)),
            None => self.written(&appends).map_err(|error| self.refused(error)),
        };
        for append in appends {
            (append.done)(result.clone());
        }
    }

    /// Writes and syncs a group.
    fn written(&mut self, appends: &[Append]) -> Result<(), TailError> {
        self.tail.prepare(&self.last, self.options.segment_bytes)?;
        self.encode(appends);
        let before = self.tail.bytes();
        self.tail.write(&self.buffer)?;
        let sync = match self.options.sync {
            SyncMode::Always => self.tail.sync().inspect_err(|_| self.tail.cut(before))?,
            SyncMode::Interval(interval) => {
                self.sync_due.get_or_insert_with(|| Instant::now() + interval);
                None
            }
            SyncMode::Never => None,
        };
        self.count(appends, sync);
        Ok(())
    }

    fn encode(&mut self, appends: &[Append]) {
        self.buffer.clear();
        self.buffer.shrink_to(MAX_KEPT_BUFFER_BYTES);
        for append in appends {
            for entry in &append.entries {
                record::write(&mut self.buffer, append.lane, entry, self.salt);
            }
        }
    }

    fn count(&mut self, appends: &[Append], sync: Option<Duration>) {
        for append in appends {
            for entry in &append.entries {
                raise(&mut self.last, append.lane, entry.sequence);
            }
        }
        let copies = appends.iter().filter(|append| append.origin == Origin::Cleaning);
        let copied_bytes = copies.map(|append| append.bytes() as u64).sum();
        let record_count = appends.iter().map(|append| append.entries.len() as u64).sum();
        let group = Group { record_count, bytes: self.buffer.len() as u64, sync };
        let counters = &self.shared.counters;
        Counters::add(&counters.groups, 1);
        Counters::add(&counters.records, group.record_count);
        Counters::add(&counters.written_bytes, group.bytes);
        Counters::add(&counters.copied_bytes, copied_bytes);
        Counters::add(&counters.syncs, u64::from(sync.is_some()));
        self.shared.ledger.set_size(self.tail.id(), self.tail.bytes());
        self.shared.state.set_written();
        if let Some(observer) = &self.options.observer {
            observer(&group);
        }
    }

    fn refused(&self, error: TailError) -> WriteError {
        match error {
            TailError::Full => {
                self.shared.state.set_full();
                WriteError::Full
            }
            TailError::Failed(reason) => {
                let reason: Arc<str> = reason.into();
                self.shared.state.set_failed(&reason);
                WriteError::Failed(reason)
            }
        }
    }

    fn sync_if_due(&mut self) {
        if self.sync_due.is_some_and(|due| due <= Instant::now()) {
            // A failure is in the state; the next append reports it.
            let _ = self.sync();
        }
    }

    fn sync_for(&mut self, syncs: Vec<Done>) {
        if syncs.is_empty() {
            return;
        }
        let result = self.sync();
        for done in syncs {
            done(result.clone());
        }
    }

    fn sync(&mut self) -> Result<(), WriteError> {
        self.sync_due = None;
        if let Some(reason) = self.shared.state.failure() {
            return Err(WriteError::Failed(reason));
        }
        match self.tail.sync() {
            Ok(took) => {
                Counters::add(&self.shared.counters.syncs, u64::from(took.is_some()));
                Ok(())
            }
            Err(error) => Err(self.refused(error)),
        }
    }

    fn end(mut self, end: End) {
        if end == End::Clean && self.sync().is_ok() {
            let _ = directory::mark_clean(&self.directory);
        }
    }
}

/// Whether to wait for a larger group.
fn gathers(sync: SyncMode, last_group: usize, queued_bytes: usize) -> bool {
    let is_busy = last_group >= BUSY_APPENDS;
    is_busy && queued_bytes < FULL_GROUP_BYTES && sync == SyncMode::Always
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_small_groups_of_a_busy_synced_log_wait_for_more() {
        let always = SyncMode::Always;
        assert!(gathers(always, BUSY_APPENDS, 0));
        assert!(!gathers(always, BUSY_APPENDS - 1, 0), "a few publishers");
        assert!(!gathers(always, 100, FULL_GROUP_BYTES), "a large group");
        assert!(!gathers(SyncMode::Never, 100, 0), "no sync to share");
    }
}
