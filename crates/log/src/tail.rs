//! The segment at the end of the log: the only file written.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::PathBuf,
    time::{Duration, Instant},
};

use crate::{
    directory,
    segment::{LastSequences, SegmentId, head},
};

/// Why bytes were not kept.
#[derive(Debug)]
pub enum TailError {
    /// The disk has no room. The file ends as before.
    Full,
    /// For good: the file's state on disk is unknown.
    Failed(String),
}

/// The end of the log. The first append creates the segment.
pub struct Tail {
    directory: PathBuf,
    salt: u32,
    id: SegmentId,
    file: Option<File>,
    /// The length with all whole groups.
    bytes: u64,
    is_synced: bool,
}

impl Tail {
    /// A tail whose first segment will be `id`.
    pub fn new(directory: PathBuf, salt: u32, id: SegmentId) -> Self {
        Self { directory, salt, id, file: None, bytes: 0, is_synced: true }
    }

    pub fn id(&self) -> SegmentId {
        self.id
    }

    /// The length of the segment; 0 before it is created.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Creates the segment, if there is none, or begins the next after `segment_bytes`.
    pub fn prepare(&mut self, last: &LastSequences, segment_bytes: u64) -> Result<(), TailError> {
        if self.file.is_some() && self.bytes < segment_bytes {
            return Ok(());
        }
        // Only the last segment may have a torn end.
        self.sync()?;
        let id = if self.file.is_some() { self.id.next() } else { self.id };
        let head = head(id, last, self.salt);
        self.file = Some(self.create(id, &head)?);
        (self.id, self.bytes) = (id, head.len() as u64);
        Ok(())
    }

    fn create(&self, id: SegmentId, head: &[u8]) -> Result<File, TailError> {
        let name = id.file_name();
        let create = || {
            let mut options = OpenOptions::new();
            let file = options.create_new(true).read(true).write(true);
            let file = file.open(self.directory.join(&name))?;
            file.write_all_at(head, 0)?;
            file.sync_all()?;
            directory::sync(&self.directory)?;
            Ok(file)
        };
        create().map_err(|error: io::Error| {
            // The next attempt creates the file anew.
            let removed = directory::remove(&self.directory, &name);
            match removed {
                Ok(()) => of_write("cannot create a segment", &error),
                Err(removal) => TailError::Failed(format!("cannot remove {name}: {removal}")),
            }
        })
    }

    /// Writes a group at the end. After an error the file ends as before.
    pub fn write(&mut self, group: &[u8]) -> Result<(), TailError> {
        let file = self.file.as_ref().ok_or_else(|| TailError::Failed("no segment".into()))?;
        if let Err(error) = file.write_all_at(group, self.bytes) {
            file.set_len(self.bytes).map_err(|error| failed("cannot cut the log", &error))?;
            return Err(of_write("cannot write the log", &error));
        }
        self.bytes += group.len() as u64;
        self.is_synced = false;
        Ok(())
    }

    /// Brings all written bytes to the disk. After an error, never try again: the kernel may have
    /// dropped the bytes and would report success.
    pub fn sync(&mut self) -> Result<Option<Duration>, TailError> {
        let Some(file) = self.file.as_ref().filter(|_| !self.is_synced) else { return Ok(None) };
        let start = Instant::now();
        file.sync_data().map_err(|error| failed("cannot sync the log", &error))?;
        self.is_synced = true;
        Ok(Some(start.elapsed()))
    }

    /// Cuts off the group of a failed sync, as well as possible: it was not acknowledged.
    pub fn cut(&self, bytes: u64) {
        if let Some(file) = &self.file {
            let _ = file.set_len(bytes);
        }
    }
}

fn of_write(action: &str, error: &io::Error) -> TailError {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    match error.kind() {
        StorageFull | QuotaExceeded | FileTooLarge => TailError::Full,
        _ => failed(action, error),
    }
}

fn failed(action: &str, error: &io::Error) -> TailError {
    TailError::Failed(format!("{action}: {error}"))
}
