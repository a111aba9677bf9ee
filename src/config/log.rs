//! `[log]`: the log on disk. It keeps events, followers and revocations over a restart.

use std::time::Duration;

use serde::Deserialize;

use super::units;

/// The directory of the log, and the moment of its syncs.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a [log] section")]
#[non_exhaustive]
pub struct Log {
    /// The directory, created if missing. Empty: everything is in memory, or in Redis.
    pub directory: String,
    /// The moment of a sync to the disk.
    #[serde(deserialize_with = "units::word")]
    pub sync: LogSync,
    /// With [`LogSync::Interval`]: the longest time of a written event without a sync, 1 ms to 1 h.
    #[serde(deserialize_with = "units::duration")]
    pub sync_interval: Duration,
    /// Size of one file, 1 MiB to 1 GiB. The hub removes whole files.
    #[serde(deserialize_with = "units::size")]
    pub segment_size: usize,
    /// Bytes waiting for the disk, 1 MiB to 1 PiB. Past them the hub refuses publishes.
    #[serde(deserialize_with = "units::size")]
    pub max_queue: usize,
}

/// The moment of a sync to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogSync {
    /// Before the answer to a publish, one for all publishes waiting.
    Always,
    /// At the latest after `log.sync_interval`. A crash of the machine can lose so much.
    Interval,
    /// The operating system decides. A crash of the machine can lose half a minute.
    Never,
}

impl Log {
    /// Whether the hub has a log on disk.
    pub fn is_on(&self) -> bool {
        !self.directory.is_empty()
    }
}
