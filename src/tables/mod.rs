//! The hub's tables in the log on disk: followers, mutes and revocations, in a lane of their own.
//!
//! Each change is one record. After a restart, the changes in the order of the log restore the
//! tables. Cleaning keeps the records of everything still there.
//!
//! Not here: the tables themselves (`follow::memory`, `revocations`).

mod record;

use std::{
    mem,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use fanfare_core::{
    access::{Revocation, RevocationStore, RevocationsDown},
    follow::GraphError,
};
use fanfare_log::{Entry, Lane, Page, Store, WriteError};
use futures_util::{FutureExt, future::BoxFuture};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use self::record::TableRecord;
use crate::{
    follow::memory::{KeepChanges, MemoryFollows, TableChange, Tables},
    revocations::Revocations,
};

/// The tables while the log is read.
#[derive(Default)]
pub(crate) struct RecoveredTables {
    pub tables: Tables,
    pub revocations: Vec<Revocation>,
    /// Records of another version.
    unknown_count: u64,
}

impl RecoveredTables {
    /// Takes the next record of [`Lane::TABLES`], in the order of the log.
    pub fn on_record(&mut self, kind: u8, payload: &[u8]) {
        match record::decode(kind, payload) {
            Some(TableRecord::Change(change)) => {
                self.tables.apply(&change);
            }
            Some(TableRecord::Revocation(revocation)) => self.revocations.push(revocation),
            None => self.unknown_count += 1,
        }
    }
}

/// The tables' lane of an open log.
pub(crate) struct TableLog {
    store: Store,
    next_sequence: AtomicU64,
    revocations: Arc<Revocations>,
    /// Revocations of earlier processes, until the hub has read them.
    recovered: Mutex<Vec<Revocation>>,
    follow_bytes: AtomicU64,
    revocation_bytes: AtomicU64,
}

impl TableLog {
    /// Goes on after `last_sequence`. The tables are the caller's.
    pub fn new(
        store: Store,
        last_sequence: u64,
        recovered: RecoveredTables,
        revocations: Arc<Revocations>,
    ) -> (Arc<Self>, Tables) {
        if recovered.unknown_count > 0 {
            let record_count = recovered.unknown_count;
            tracing::warn!(record_count, "the log has records of another version, kept unread");
        }
        let bytes =
            recovered.revocations.iter().map(|one| bytes_of(&record::encode_revocation(one)));
        let log = Self {
            store,
            next_sequence: AtomicU64::new(last_sequence + 1),
            revocations,
            revocation_bytes: AtomicU64::new(bytes.sum()),
            recovered: Mutex::new(recovered.revocations),
            follow_bytes: AtomicU64::new(recovered.tables.needed_bytes()),
        };
        log.report_needed();
        (Arc::new(log), recovered.tables)
    }

    /// Gets the pages of the lane. It keeps neither the log nor the store of followers alive: the
    /// cleaner holds it, and the log ends the cleaner.
    pub fn page_handler(self: &Arc<Self>, follows: &Arc<MemoryFollows>) -> impl Fn(Page) + use<> {
        let (log, follows) = (Arc::downgrade(self), Arc::downgrade(follows));
        move |page| {
            if let (Some(log), Some(follows)) = (log.upgrade(), follows.upgrade()) {
                log.on_page(page, &follows);
            }
        }
    }

    /// Decides about a page: the store of followers about its changes.
    fn on_page(&self, mut page: Page, follows: &MemoryFollows) {
        // Revocations of earlier processes are not in force yet. The page comes again.
        if !self.revocations.is_loaded() {
            return;
        }
        let mut entries = mem::take(&mut page.entries);
        let mut changes = Vec::new();
        let verdicts: Vec<Verdict> = entries
            .iter()
            .map(|entry| match record::decode(entry.kind, &entry.payload) {
                Some(TableRecord::Change(change)) => {
                    changes.push(change);
                    Verdict::AskStore
                }
                Some(TableRecord::Revocation(one)) if !self.revocations.holds(&one) => {
                    self.forget(entry);
                    Verdict::Drop
                }
                _ => Verdict::Keep,
            })
            .collect();
        let answer = move |needed: Vec<bool>| {
            let (mut verdicts, mut needed) = (verdicts.into_iter(), needed.into_iter());
            entries.retain(|_| match verdicts.next() {
                Some(Verdict::AskStore) => needed.next().unwrap_or(true),
                Some(Verdict::Drop) => false,
                Some(Verdict::Keep) | None => true,
            });
            page.keep(entries);
        };
        follows.ask_needed(changes, Box::new(answer));
    }

    fn forget(&self, entry: &Entry) {
        let bytes = HEAD_BYTES + entry.payload.len() as u64;
        let subtract = |known: u64| Some(known.saturating_sub(bytes));
        let _ = self.revocation_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, subtract);
        self.report_needed();
    }

    fn report_needed(&self) {
        let read = |bytes: &AtomicU64| bytes.load(Ordering::Relaxed);
        let needed = read(&self.follow_bytes) + read(&self.revocation_bytes);
        self.store.set_needed_bytes(Lane::TABLES, needed);
    }

    /// Appends records at once. The future resolves after the write.
    fn append(
        &self,
        records: impl IntoIterator<Item = (u8, Bytes)>,
    ) -> BoxFuture<'static, Result<(), WriteError>> {
        let entry = |(kind, payload)| {
            let sequence = self.next_sequence.fetch_add(1, Ordering::Relaxed);
            Entry { sequence, kind, payload }
        };
        let (sender, answer) = oneshot::channel();
        let done = move |result| {
            // Without a receiver, the hub stops.
            let _ = sender.send(result);
        };
        let entries = records.into_iter().map(entry).collect();
        self.store.append(Lane::TABLES, entries, Box::new(done));
        let closed = || Err(WriteError::Failed("the log is closed".into()));
        async move { answer.await.unwrap_or_else(|_| closed()) }.boxed()
    }
}

enum Verdict {
    Keep,
    Drop,
    AskStore,
}

/// The head of a record.
const HEAD_BYTES: u64 = 24;

fn bytes_of((_, payload): &(u8, Bytes)) -> u64 {
    HEAD_BYTES + payload.len() as u64
}

impl KeepChanges for TableLog {
    fn set_needed_bytes(&self, bytes: u64) {
        self.follow_bytes.store(bytes, Ordering::Relaxed);
        self.report_needed();
    }

    fn keep(&self, changes: &[TableChange]) -> BoxFuture<'static, Result<(), GraphError>> {
        let written = self.append(changes.iter().map(record::encode));
        let failed = |error| match error {
            WriteError::Full => GraphError::LogFull,
            WriteError::Failed(_) => GraphError::LogFailed,
        };
        async move { written.await.map_err(failed) }.boxed()
    }
}

impl RevocationStore for TableLog {
    fn keep(
        &self,
        revocation: Revocation,
        _: u64,
    ) -> BoxFuture<'static, Result<(), RevocationsDown>> {
        let record = record::encode_revocation(&revocation);
        self.revocation_bytes.fetch_add(bytes_of(&record), Ordering::Relaxed);
        self.report_needed();
        let written = self.append([record]);
        let failed = |error| match error {
            WriteError::Full => RevocationsDown::LogFull,
            WriteError::Failed(_) => RevocationsDown::LogFailed,
        };
        async move { written.await.map_err(failed) }.boxed()
    }

    /// The revocations of earlier processes, once: later ones are in force already.
    fn since(&self, _: u64) -> BoxFuture<'static, Result<Vec<Revocation>, RevocationsDown>> {
        let recovered = mem::take(&mut *self.recovered.lock());
        std::future::ready(Ok(recovered)).boxed()
    }
}

#[cfg(test)]
mod tests;
