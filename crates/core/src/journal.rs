//! The seam below partitions with their log on disk: records to write, and the answer for each
//! group of them.
//!
//! Not here: the content of records (`partition::journal`), files (`fanfare-log`).

use std::fmt::Debug;

use bytes::Bytes;

use crate::{error::PublishError, log::Reply};

/// One record of a partition. The journal knows only these bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The last sequence of the record's events; 0 for a record without events.
    pub sequence: u64,
    pub kind: u8,
    pub payload: Bytes,
}

/// Writes records to disk. No method blocks.
pub trait Journal: Debug + Send + Sync {
    /// Writes records of one partition behind its earlier records, and answers once they are safe.
    /// The answers of one partition come in the order of its calls. A refused group leaves nothing
    /// behind, except after [`JournalError::Failed`].
    fn write(&self, partition: u16, records: Vec<Record>, written: Reply<Result<(), JournalError>>);

    /// Checks that the journal takes further events.
    ///
    /// # Errors
    /// Its queue or its disk is full, or it has failed.
    fn check(&self) -> Result<(), JournalError>;

    /// Reports the bytes of the records still needed by a partition, about.
    fn set_needed_bytes(&self, partition: u16, bytes: u64);
}

/// Why records were not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// Too many records wait for the disk. Try again later.
    #[error("too many records wait for the disk")]
    Busy,
    /// The disk is full. Try again later.
    #[error("the disk of the log is full")]
    Full,
    /// A write or a sync failed. The journal takes nothing more until a restart.
    #[error("the log on disk has failed")]
    Failed,
}

impl From<JournalError> for PublishError {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::Busy => Self::AtCapacity,
            JournalError::Full => Self::LogFull,
            JournalError::Failed => Self::LogFailed,
        }
    }
}
