//! Reads a log without changing it, also one in use.

use std::{collections::BTreeMap, path::Path};

use crate::{
    directory, error::OpenError, identity::Identity, options::Lane, reading, record::HEADER_BYTES,
    scan::Damage, segment::SegmentId,
};

/// The records of one lane.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LaneFigures {
    pub record_count: u64,
    /// With their headers.
    pub bytes: u64,
    /// The highest sequence ever, also of records removed since.
    pub last_sequence: u64,
}

/// The facts about a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    pub epoch: u64,
    pub partition_count: u16,
    /// The hub stopped in order, and none has opened the log since.
    pub was_stopped_cleanly: bool,
    /// Each segment with its bytes.
    pub segments: Vec<(SegmentId, u64)>,
    pub lanes: BTreeMap<Lane, LaneFigures>,
    pub damage: Vec<Damage>,
    /// Bytes at the end without a valid record. The next open cuts them off. They are no damage
    /// after a crash, or while a hub writes.
    pub torn_bytes: u64,
}

impl Checked {
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|(_, bytes)| bytes).sum()
    }

    pub fn record_count(&self) -> u64 {
        self.lanes.values().map(|lane| lane.record_count).sum()
    }
}

/// Reads and verifies every record of the log in `directory`.
///
/// # Errors
/// There is no log, or it has another format, or the directory is unreadable.
pub fn check(directory: &Path) -> Result<Checked, OpenError> {
    let identity = Identity::read(directory)?;
    let identity =
        identity.ok_or_else(|| OpenError::NotALog { directory: directory.to_owned() })?;
    let was_stopped_cleanly = directory::was_stopped_cleanly(directory);
    let mut lanes: BTreeMap<Lane, LaneFigures> = BTreeMap::new();
    let read = reading::read(directory, identity.checksum_start(), |record| {
        let lane = lanes.entry(record.lane).or_default();
        lane.record_count += 1;
        lane.bytes += (HEADER_BYTES + record.payload.len()) as u64;
    });
    let mut read = read.map_err(|source| OpenError::Io { path: directory.into(), source })?;
    for (lane, sequence) in read.last {
        lanes.entry(lane).or_default().last_sequence = sequence;
    }
    let mut torn_bytes = 0;
    match was_stopped_cleanly {
        true => read.damage.append(&mut read.torn),
        false => torn_bytes = read.torn.iter().map(|torn| torn.bytes).sum(),
    }
    Ok(Checked {
        epoch: identity.epoch,
        partition_count: identity.partition_count,
        was_stopped_cleanly,
        segments: read.segments,
        lanes,
        damage: read.damage,
        torn_bytes,
    })
}
