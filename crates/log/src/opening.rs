//! Opens a log: lock, identity, all records, the torn end.

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    io, mem,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crate::{
    directory,
    error::OpenError,
    identity::{self, Identity},
    ledger::Ledger,
    options::{Lane, Options},
    queue::Queue,
    reading::{self, Read},
    record::Record,
    scan::Damage,
    segment::SegmentId,
    shared::Shared,
    store::Store,
    tail::Tail,
    writer::Writer,
};

/// The end of the process using the log before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastStop {
    /// The log is new.
    New,
    /// Everything given out is on disk.
    Clean,
    /// Records given out may be missing, unless each was synced.
    Unclean,
}

/// An open log, and the facts found in it.
#[derive(Debug)]
pub struct Opened {
    pub store: Store,
    pub epoch: u64,
    pub last_stop: LastStop,
    pub damage: Vec<Damage>,
    /// The highest sequence of each lane, also of records cleaned since.
    pub last_sequences: BTreeMap<Lane, u64>,
    pub record_count: u64,
    pub torn_bytes: u64,
    pub took: Duration,
}

/// Opens or creates the log in `directory`. `visit` gets each valid record on this thread, in the
/// order of the log.
///
/// A copy has its old sequence: the sequences of a lane do not ascend, and a stop between copying
/// and removing leaves a record twice.
pub fn open(
    directory: &Path,
    options: Options,
    visit: impl FnMut(Record<'_>),
) -> Result<Opened, OpenError> {
    let start = Instant::now();
    // A foreign directory gets no lock file.
    refuse_foreign(directory)?;
    let lock = directory::lock(directory)?;
    let (identity, last_stop) = identify(directory, &options)?;
    let salt = identity.checksum_start();
    let io_error = |source| OpenError::Io { path: directory.into(), source };
    let mut read = reading::read(directory, salt, visit).map_err(io_error)?;
    let torn_bytes = repair(directory, &mut read, last_stop)
        .map_err(|source| not_writable(directory, source))?;
    let next = read.segments.last().map_or(SegmentId(1), |(last, _)| last.next());
    let ledger = Ledger::new(read.segments.into_iter().collect(), options.segment_bytes);
    let shared = Arc::new(Shared {
        queue: Queue::default(),
        ledger,
        counters: Default::default(),
        state: Default::default(),
        max_queue_bytes: options.max_queue_bytes,
    });
    let writer = Writer {
        shared: shared.clone(),
        options,
        directory: directory.into(),
        tail: Tail::new(directory.into(), salt, next),
        last: read.last.clone(),
        salt,
        sync_due: None,
        buffer: Vec::new(),
        last_group: 0,
        _lock: lock,
    };
    let thread = thread::Builder::new().name("fanfare-log".into());
    let thread = thread.spawn(move || writer.run_guarded()).map_err(io_error)?;
    Ok(Opened {
        store: Store::new(shared, thread, directory.into(), salt),
        epoch: identity.epoch,
        last_stop,
        damage: read.damage,
        last_sequences: read.last,
        record_count: read.record_count,
        torn_bytes,
        took: start.elapsed(),
    })
}

/// The log's identity, a new one in a free directory.
fn identify(directory: &Path, options: &Options) -> Result<(Identity, LastStop), OpenError> {
    if let Some(identity) = Identity::read(directory)? {
        let (found, asked) = (identity.partition_count, options.partition_count);
        if found != asked {
            let directory = directory.into();
            return Err(OpenError::OtherPartitions { directory, found, asked });
        }
        let was_clean = directory::was_stopped_cleanly(directory);
        let last_stop = if was_clean { LastStop::Clean } else { LastStop::Unclean };
        return Ok((identity, last_stop));
    }
    refuse_foreign(directory)?;
    let identity = Identity {
        epoch: options.new_epoch,
        salt: options.new_salt,
        partition_count: options.partition_count,
    };
    identity.write(directory).map_err(|source| not_writable(directory, source))?;
    Ok((identity, LastStop::New))
}

/// A directory with other files and without `HEADER` has no log, and gets none.
fn refuse_foreign(directory: &Path) -> Result<(), OpenError> {
    let is_foreign = match directory::is_free(directory) {
        Ok(is_free) => !is_free && !directory.join(identity::FILE_NAME).exists(),
        // The lock's error is the better one.
        Err(_) => false,
    };
    if is_foreign {
        return Err(OpenError::NotALog { directory: directory.into() });
    }
    Ok(())
}

fn not_writable(directory: &Path, source: io::Error) -> OpenError {
    OpenError::NotWritable { path: directory.into(), source }
}

/// Cuts off the torn end after an unclean stop, and removes the mark of the last stop. The number of
/// bytes cut off is the result.
fn repair(directory: &Path, read: &mut Read, last_stop: LastStop) -> io::Result<u64> {
    let torn = mem::take(&mut read.torn);
    let mut torn_bytes = 0;
    if last_stop == LastStop::Clean {
        read.damage.extend(torn);
    } else if let Some((last, length)) = read.segments.pop() {
        let end = torn.first().map_or(length, |first| first.offset);
        if cut_off(directory, last, end)? == Segment::Stays {
            read.segments.push((last, end));
        }
        torn_bytes = length - end;
    }
    directory::mark_unclean(directory)?;
    Ok(torn_bytes)
}

#[derive(PartialEq, Eq)]
enum Segment {
    Stays,
    Removed,
}

/// Ends the last segment at `end`. Without a whole head it is removed.
fn cut_off(directory: &Path, segment: SegmentId, end: u64) -> io::Result<Segment> {
    let name = segment.file_name();
    if end == 0 {
        directory::remove(directory, &name)?;
        return Ok(Segment::Removed);
    }
    let file = OpenOptions::new().write(true).open(directory.join(&name))?;
    if file.metadata()?.len() != end {
        file.set_len(end)?;
    }
    // Records were read from memory of the kernel: bring them to the disk before streams get them.
    file.sync_all()?;
    Ok(Segment::Stays)
}
