//! Lanes, and the choices of a log's owner.

use std::{fmt, sync::Arc, time::Duration};

use crate::figures::Group;

/// A writer's own series of records with own sequences: one partition, or the hub's tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane(pub u16);

impl Lane {
    /// The hub's tables: followers, preferences, revocations, modes of fan-outs.
    pub const TABLES: Self = Self(u16::MAX);
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::TABLES => f.write_str("tables"),
            Self(partition) => write!(f, "partition {partition}"),
        }
    }
}

/// The time between a write and its sync to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncMode {
    /// A record is on disk before its answer.
    Always,
    /// A sync follows the first write after the last sync by this time at most.
    Interval(Duration),
    /// The operating system decides. The store syncs whole segments only.
    Never,
}

/// Told about each written group, on the writer's thread.
pub type Observer = Arc<dyn Fn(&Group) + Send + Sync>;

/// The choices of a log's owner.
#[derive(Clone)]
pub struct Options {
    /// The number of partitions, fixed for the life of a log.
    pub partition_count: u16,
    /// The epoch of a new log. An existing log keeps its own.
    pub new_epoch: u64,
    /// A random number for a new log. It makes records inside of payloads invalid.
    pub new_salt: u64,
    pub sync: SyncMode,
    /// A segment of this size is closed. One group can exceed the size.
    pub segment_bytes: u64,
    /// The bound of [`has_room`](crate::Store::has_room).
    pub max_queue_bytes: usize,
    pub observer: Option<Observer>,
}
