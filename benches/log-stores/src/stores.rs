//! The three stores behind one trait: events of one partition, by sequence.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
};

use bytes::Bytes;
use fanfare_log::{Entry, Lane, Options, Store, SyncMode};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use redb::{Durability, ReadableDatabase, ReadableTable, TableDefinition};

pub trait Candidate: Sized + Sync {
    /// Opens the store and reads every event, as a hub does. The number of events is the result.
    fn open(directory: &Path) -> Result<(Self, u64), String>;

    /// Writes a group with ascending sequences, and removes all events before `keep_from`.
    fn write(
        &mut self,
        first: u64,
        payloads: Vec<Vec<u8>>,
        keep_from: u64,
        is_synced: bool,
    ) -> Result<(), String>;

    /// One event of one publisher, synced. Many publishers call it at the same time.
    fn publish(&self, sequence: u64, payload: Vec<u8>) -> Result<(), String>;

    fn close(self) -> Result<(), String>;
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

pub struct Segments {
    store: Store,
    keep_from: Arc<AtomicU64>,
    newest: u64,
}

impl Candidate for Segments {
    fn open(directory: &Path) -> Result<(Self, u64), String> {
        let options = Options {
            partition_count: 1,
            new_epoch: 1,
            new_salt: 2,
            sync: SyncMode::Always,
            segment_bytes: 8 << 20,
            max_queue_bytes: 16 << 20,
            observer: None,
        };
        let mut read = 0;
        let opened = fanfare_log::open(directory, options, |record| {
            std::hint::black_box(record.payload);
            read += 1;
        });
        let store = opened.map_err(text)?.store;
        let keep_from = Arc::new(AtomicU64::new(0));
        let kept = keep_from.clone();
        let clean = move |mut page: fanfare_log::Page| {
            let mut entries = std::mem::take(&mut page.entries);
            entries.retain(|entry| entry.sequence >= kept.load(Ordering::Relaxed));
            page.keep(entries);
        };
        store.set_needed_bytes(Lane(0), u64::MAX / 4);
        store.start_cleaning(clean).map_err(text)?;
        Ok((Self { store, keep_from, newest: 0 }, read))
    }

    fn write(
        &mut self,
        first: u64,
        payloads: Vec<Vec<u8>>,
        keep_from: u64,
        _: bool,
    ) -> Result<(), String> {
        self.newest = first + payloads.len() as u64 - 1;
        let bytes = payloads.first().map_or(0, Vec::len) as u64 + 24;
        self.keep_from.store(keep_from, Ordering::Relaxed);
        if keep_from > 0 {
            self.store.set_needed_bytes(Lane(0), (self.newest - keep_from) * bytes);
        }
        let numbered = (first..).zip(payloads);
        let entry =
            |(sequence, payload)| Entry { sequence, kind: 1, payload: Bytes::from(payload) };
        let (sender, receiver) = mpsc::channel();
        let done = Box::new(move |result| sender.send(result).expect("waits"));
        let entries = numbered.map(entry).collect();
        self.store.append(Lane(0), entries, done);
        receiver.recv().map_err(text)?.map_err(text)
    }

    fn publish(&self, sequence: u64, payload: Vec<u8>) -> Result<(), String> {
        let (sender, receiver) = mpsc::channel();
        let done = Box::new(move |result| sender.send(result).expect("waits"));
        let entry = Entry { sequence, kind: 1, payload: Bytes::from(payload) };
        self.store.append(Lane(0), vec![entry], done);
        receiver.recv().map_err(text)?.map_err(text)
    }

    fn close(self) -> Result<(), String> {
        self.store.close();
        Ok(())
    }
}

pub struct Fjall {
    database: Database,
    events: Keyspace,
    removed_to: u64,
}

impl Candidate for Fjall {
    fn open(directory: &Path) -> Result<(Self, u64), String> {
        let database = Database::builder(directory).open().map_err(text)?;
        let events = database.keyspace("events", KeyspaceCreateOptions::default).map_err(text)?;
        let mut read = 0;
        for item in events.iter() {
            std::hint::black_box(item.into_inner().map_err(text)?);
            read += 1;
        }
        Ok((Self { database, events, removed_to: 1 }, read))
    }

    fn write(
        &mut self,
        first: u64,
        payloads: Vec<Vec<u8>>,
        keep_from: u64,
        is_synced: bool,
    ) -> Result<(), String> {
        let mode = is_synced.then_some(PersistMode::SyncData);
        let mut batch = self.database.batch().durability(mode);
        for (sequence, payload) in (first..).zip(payloads) {
            batch.insert(&self.events, sequence.to_be_bytes(), payload);
        }
        while self.removed_to < keep_from {
            batch.remove(&self.events, self.removed_to.to_be_bytes());
            self.removed_to += 1;
        }
        batch.commit().map_err(text)
    }

    fn publish(&self, sequence: u64, payload: Vec<u8>) -> Result<(), String> {
        self.events.insert(sequence.to_be_bytes(), payload).map_err(text)?;
        self.database.persist(PersistMode::SyncData).map_err(text)
    }

    fn close(self) -> Result<(), String> {
        self.database.persist(PersistMode::SyncAll).map_err(text)
    }
}

const EVENTS: TableDefinition<u64, &[u8]> = TableDefinition::new("events");

pub struct Redb {
    database: redb::Database,
    removed_to: u64,
}

impl Candidate for Redb {
    fn open(directory: &Path) -> Result<(Self, u64), String> {
        let database = redb::Database::create(directory.join("events.redb")).map_err(text)?;
        let create = database.begin_write().map_err(text)?;
        create.open_table(EVENTS).map_err(text)?;
        create.commit().map_err(text)?;
        let reading = database.begin_read().map_err(text)?;
        let table = reading.open_table(EVENTS).map_err(text)?;
        let mut read = 0;
        for item in table.iter().map_err(text)? {
            std::hint::black_box(item.map_err(text)?.1.value());
            read += 1;
        }
        Ok((Self { database, removed_to: 1 }, read))
    }

    fn write(
        &mut self,
        first: u64,
        payloads: Vec<Vec<u8>>,
        keep_from: u64,
        is_synced: bool,
    ) -> Result<(), String> {
        let mut writing = self.database.begin_write().map_err(text)?;
        if !is_synced {
            writing.set_durability(Durability::None).map_err(text)?;
        }
        {
            let mut table = writing.open_table(EVENTS).map_err(text)?;
            for (sequence, payload) in (first..).zip(payloads) {
                table.insert(sequence, payload.as_slice()).map_err(text)?;
            }
            while self.removed_to < keep_from {
                table.remove(self.removed_to).map_err(text)?;
                self.removed_to += 1;
            }
        }
        writing.commit().map_err(text)
    }

    fn publish(&self, sequence: u64, payload: Vec<u8>) -> Result<(), String> {
        let writing = self.database.begin_write().map_err(text)?;
        {
            let mut table = writing.open_table(EVENTS).map_err(text)?;
            table.insert(sequence, payload.as_slice()).map_err(text)?;
        }
        writing.commit().map_err(text)
    }

    /// A commit without durability is kept by the next one with it.
    fn close(self) -> Result<(), String> {
        let writing = self.database.begin_write().map_err(text)?;
        writing.commit().map_err(text)
    }
}
