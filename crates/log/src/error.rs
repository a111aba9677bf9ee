//! Errors of opening and of writing.

use std::{io, path::PathBuf, sync::Arc};

/// The log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the log {} is in use by another process", directory.display())]
    InUse { directory: PathBuf },
    #[error("cannot write the log {}: {source}", path.display())]
    NotWritable { path: PathBuf, source: io::Error },
    #[error(
        "{} has no log: its file HEADER is missing; a new log needs an empty directory",
        directory.display()
    )]
    NotALog { directory: PathBuf },
    #[error("{} is damaged: {reason}; restore the file from a copy", path.display())]
    BadHeader { path: PathBuf, reason: String },
    #[error(
        "the log {} has format {found}, and this version reads format {known}; use the version \
         of fanfare that wrote it, or choose an empty directory",
        directory.display()
    )]
    OtherVersion { directory: PathBuf, found: u32, known: u32 },
    #[error(
        "the log {} has {found} partitions instead of {asked}; set hub.partitions = {found}",
        directory.display()
    )]
    OtherPartitions { directory: PathBuf, found: u16, asked: u16 },
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// Records were not kept.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WriteError {
    /// The disk has no room; nothing of the group was kept. The next append tries again.
    #[error("no room on the log's disk")]
    Full,
    /// A write or sync failed. The store writes nothing until it is opened again.
    #[error("the log failed: {0}")]
    Failed(Arc<str>),
}
