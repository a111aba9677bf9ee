//! The log on disk: opening it with all partitions, and the path of records and pages between the
//! store and the partitions.
//!
//! Not here: the content of records (`fanfare_core::partition`), files (`fanfare_log`).

use std::{
    fmt, io,
    path::Path,
    sync::{Arc, mpsc},
    time::Duration,
};

use actix::Addr;
use fanfare_core::{
    cursor::Epoch,
    journal::{Journal, JournalError, Record},
    log::Reply,
    partition::{JournaledPartition, PartitionSpec},
};
use fanfare_log::{
    Damage, Entry, Group, Lane, Opened, Options, Page, State, Store, SyncMode, WriteError,
};

use super::recovery;
use crate::{
    actors::partition::{DecidePage, Partition, PublishPermit},
    config::{Log as LogConfig, LogSync},
    error::StartError,
    metrics::{DiskGauges, Metrics},
    tables::RecoveredTables,
};

/// A cursor without a position can have been given while an event with an earlier time was still
/// waiting for the disk. So a resume by time goes back by this longest usual wait.
pub(crate) const COMMIT_MARGIN: Duration = Duration::from_secs(2);

/// Damaged places named in the hub's own log.
const MAX_REPORTED: usize = 10;

/// The open log of a hub.
pub(crate) struct DiskLog {
    store: Store,
    last_table_sequence: u64,
    /// Whether every partition's mark is written. Otherwise the stop stays unclean.
    is_marked: bool,
    /// Damaged places found at the start.
    damage_count: usize,
    /// The time of reading the log at the start.
    recovery: Duration,
}

/// A log with the partitions recovered from it, in order of their numbers.
pub(crate) struct OpenLog {
    pub log: Arc<DiskLog>,
    pub epoch: Epoch,
    pub partitions: Vec<JournaledPartition<PublishPermit>>,
}

impl DiskLog {
    /// Opens or creates the log, and recovers the partitions and the hub's tables. `template` is the
    /// specification of all partitions, with the epoch for a new log.
    pub fn open(
        config: &LogConfig,
        partition_count: u16,
        template: &PartitionSpec,
        metrics: &Arc<Metrics>,
    ) -> Result<(OpenLog, RecoveredTables), StartError> {
        let mut tables = RecoveredTables::default();
        let on_table = |kind, payload: &[u8]| tables.on_record(kind, payload);
        let directory = Path::new(&config.directory);
        let mut options = options(config, partition_count, template.epoch);
        let metrics = metrics.clone();
        let observe = move |group: &Group| metrics.disk.count_group(group.record_count, group.sync);
        options.observer = Some(Arc::new(observe));
        let epoch = fanfare_log::epoch_of(directory).map_or(template.epoch, Epoch::new);
        let template = PartitionSpec { epoch, ..template.clone() };
        let (opened, mut partitions) =
            recovery::open(directory, options, &template, partition_count, on_table)?;
        report(&opened);
        let last_table_sequence = opened.last_sequences.get(&Lane::TABLES).copied();
        let mut log = Self {
            store: opened.store,
            last_table_sequence: last_table_sequence.unwrap_or_default(),
            is_marked: false,
            damage_count: opened.damage.len(),
            recovery: opened.took,
        };
        log.is_marked = log.write_marks(&mut partitions);
        for (number, partition) in (0..).zip(&partitions) {
            log.set_needed_bytes(number, partition.needed_bytes());
        }
        Ok((OpenLog { log: Arc::new(log), epoch, partitions }, tables))
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The last sequence of the hub's tables found in the log.
    pub fn last_table_sequence(&self) -> u64 {
        self.last_table_sequence
    }

    /// Writes the first batch of every partition, and waits for it. After an unclean stop, no
    /// sequence may be given out before.
    fn write_marks(&self, partitions: &mut [JournaledPartition<PublishPermit>]) -> bool {
        let (sender, results) = mpsc::channel();
        for (number, partition) in partitions.iter_mut().enumerate() {
            let records = partition.take_batch().unwrap_or_default();
            let sender = sender.clone();
            let done = move |result| drop(sender.send((number, result)));
            let entries = records.into_iter().map(to_entry).collect();
            self.store.append_synced(Lane(number as u16), entries, Box::new(done));
        }
        drop(sender);
        let mut are_written = true;
        for (number, result) in results {
            are_written &= result.is_ok();
            partitions[number].on_written(result.map_err(|error| to_journal_error(&error)));
        }
        are_written
    }

    /// Starts the cleaning of the log by these partitions, and by `tables`.
    pub fn start_cleaning(
        &self,
        partitions: Vec<Addr<Partition>>,
        tables: impl Fn(Page) + Send + 'static,
    ) -> io::Result<()> {
        self.store.start_cleaning(move |page| match partitions.get(usize::from(page.lane.0)) {
            Some(partition) => offer(partition, page),
            None => tables(page),
        })
    }

    /// The state of the log for a scrape.
    pub fn gauges(&self) -> DiskGauges {
        let figures = self.store.figures();
        DiskGauges {
            is_up: self.store.state() == State::Writing,
            bytes: figures.bytes,
            segment_count: figures.segment_count,
            queued_bytes: figures.queued_bytes,
            record_count: figures.record_count,
            written_bytes: figures.written_bytes,
            copied_bytes: figures.copied_bytes,
            damage_count: self.damage_count,
            recovery: self.recovery,
        }
    }

    /// Why the log has failed; `None` while it works.
    pub fn failure(&self) -> Option<Arc<str>> {
        match self.store.state() {
            State::Failed(reason) => Some(reason),
            State::Writing | State::Full => None,
        }
    }

    /// Ends the log after the last publish.
    pub fn close(&self) {
        if self.is_marked {
            self.store.close();
        }
    }
}

impl fmt::Debug for DiskLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskLog").field("store", &self.store).finish_non_exhaustive()
    }
}

impl Journal for DiskLog {
    fn write(
        &self,
        partition: u16,
        records: Vec<Record>,
        written: Reply<Result<(), JournalError>>,
    ) {
        let entries = records.into_iter().map(to_entry).collect();
        let done = move |result: Result<(), WriteError>| {
            written.send(result.map_err(|error| to_journal_error(&error)));
        };
        self.store.append(Lane(partition), entries, Box::new(done));
    }

    fn check(&self) -> Result<(), JournalError> {
        // A full disk may have room again: the next write tries.
        match self.store.state() {
            State::Failed(_) => Err(JournalError::Failed),
            State::Writing | State::Full if self.store.has_room() => Ok(()),
            State::Writing | State::Full => Err(JournalError::Busy),
        }
    }

    fn set_needed_bytes(&self, partition: u16, bytes: u64) {
        self.store.set_needed_bytes(Lane(partition), bytes);
    }
}

/// Passes a page to its partition. Without a decision, the page is dropped and comes again.
fn offer(partition: &Addr<Partition>, mut page: Page) {
    let records = std::mem::take(&mut page.entries).into_iter().map(to_record).collect();
    let is_repeated = page.is_repeated();
    let keep = |records: Vec<Record>| page.keep(records.into_iter().map(to_entry).collect());
    let keep = Reply::new(keep);
    // The cleaner has one page in flight.
    partition.do_send(DecidePage { records, is_repeated, keep });
}

/// Tells the operator about the log found.
fn report(opened: &Opened) {
    for damage in opened.damage.iter().take(MAX_REPORTED) {
        let Damage { segment, offset, bytes, .. } = damage;
        tracing::error!(%segment, offset, bytes, "the log is damaged here");
    }
    if !opened.damage.is_empty() {
        let damaged_places = opened.damage.len();
        tracing::error!(damaged_places, "the log is damaged; `fanfare log check` names all places");
    }
    let torn_bytes = opened.torn_bytes;
    if torn_bytes > 0 {
        tracing::warn!(torn_bytes, "the log's incomplete end is cut off: nobody was told of it");
    }
    let (records, duration_ms) = (opened.record_count, opened.took.as_millis() as u64);
    tracing::info!(records, duration_ms, last_stop = ?opened.last_stop, "log read");
}

fn to_entry(record: Record) -> Entry {
    let Record { sequence, kind, payload } = record;
    Entry { sequence, kind, payload }
}

fn to_record(entry: Entry) -> Record {
    let Entry { sequence, kind, payload } = entry;
    Record { sequence, kind, payload }
}

fn to_journal_error(error: &WriteError) -> JournalError {
    match error {
        WriteError::Full => JournalError::Full,
        WriteError::Failed(_) => JournalError::Failed,
    }
}

fn options(config: &LogConfig, partition_count: u16, epoch: Epoch) -> Options {
    Options {
        partition_count,
        new_epoch: epoch.number(),
        new_salt: rand::random(),
        sync: match config.sync {
            LogSync::Always => SyncMode::Always,
            LogSync::Interval => SyncMode::Interval(config.sync_interval),
            LogSync::Never => SyncMode::Never,
        },
        segment_bytes: config.segment_size as u64,
        max_queue_bytes: config.max_queue,
        observer: None,
    }
}
