//! Segments: names, and the head of the file with the last sequences so far.
//!
//! | bytes | field |
//! |---|---|
//! | 8 | `fanfseg` and the format |
//! | 8 | the segment's number |
//! | 2 | number of lanes |
//! | 10 each | lane, its highest sequence in all earlier segments |
//! | 4 | CRC-32C of the bytes above, started with the log's salt |
//!
//! So the highest sequence of a lane is known after all its records were cleaned.

use std::{collections::BTreeMap, fmt, fs::File, os::unix::fs::FileExt};

use crate::options::Lane;

const MAGIC: &[u8; 8] = b"fanfseg\x01";
const FIXED_BYTES: usize = 18;
const LANE_BYTES: usize = 10;

/// A segment's number, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId(pub u64);

impl SegmentId {
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    pub fn file_name(self) -> String {
        format!("{self}.log")
    }

    /// The number of a file's name.
    pub fn of_file_name(name: &str) -> Option<Self> {
        let digits = name.strip_suffix(".log")?;
        let is_number = digits.len() >= 8 && digits.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| digits.parse().ok()).flatten().map(Self)
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08}", self.0)
    }
}

/// The highest sequence of each lane.
pub type LastSequences = BTreeMap<Lane, u64>;

/// Raises the highest sequence of a lane.
pub fn raise(last: &mut LastSequences, lane: Lane, sequence: u64) {
    let highest = last.entry(lane).or_default();
    *highest = sequence.max(*highest);
}

/// The head of a segment's file.
pub fn head(id: SegmentId, last: &LastSequences, salt: u32) -> Vec<u8> {
    let lane_count = u16::try_from(last.len()).unwrap_or(u16::MAX);
    let mut bytes = [&MAGIC[..], &id.0.to_le_bytes(), &lane_count.to_le_bytes()].concat();
    for (lane, sequence) in last {
        bytes.extend_from_slice(&lane.0.to_le_bytes());
        bytes.extend_from_slice(&sequence.to_le_bytes());
    }
    let checksum = crc32c::crc32c_append(salt, &bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes
}

/// The head at the start of `bytes`, with its length; `None` if it is invalid or incomplete.
fn read_head(bytes: &[u8], id: SegmentId, salt: u32) -> Option<(LastSequences, usize)> {
    let fixed = bytes.get(..FIXED_BYTES)?;
    if &fixed[..8] != MAGIC || fixed[8..16] != id.0.to_le_bytes() {
        return None;
    }
    let lane_count = usize::from(u16::from_le_bytes([fixed[16], fixed[17]]));
    let end = FIXED_BYTES + lane_count * LANE_BYTES;
    let checksum: &[u8; 4] = bytes.get(end..)?.first_chunk()?;
    if crc32c::crc32c_append(salt, &bytes[..end]) != u32::from_le_bytes(*checksum) {
        return None;
    }
    let lanes = bytes[FIXED_BYTES..end].chunks_exact(LANE_BYTES).filter_map(|lane| {
        let sequence: &[u8; 8] = lane[2..].first_chunk()?;
        Some((Lane(u16::from_le_bytes([lane[0], lane[1]])), u64::from_le_bytes(*sequence)))
    });
    Some((lanes.collect(), end + 4))
}

/// Longer than any head: a log has at most 256 partitions.
const HEAD_READ_BYTES: usize = 8192;

/// The head of an open segment.
pub fn read_head_of(file: &File, id: SegmentId, salt: u32) -> Option<(LastSequences, u64)> {
    let mut bytes = vec![0; HEAD_READ_BYTES];
    // An unreadable head is like an invalid one.
    let count = file.read_at(&mut bytes, 0).unwrap_or(0);
    let head = read_head(&bytes[..count], id, salt);
    head.map(|(last, length)| (last, length as u64))
}

/// The length of the head; 0 if it is invalid, so that the whole file is searched for records.
pub fn head_bytes(file: &File, id: SegmentId, salt: u32) -> u64 {
    read_head_of(file, id, salt).map_or(0, |(_, length)| length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_keeps_the_last_sequences_and_any_changed_byte_is_noticed() {
        let last = LastSequences::from([(Lane(3), 7), (Lane::TABLES, u64::MAX)]);
        let bytes = head(SegmentId(5), &last, 1);
        assert_eq!(read_head(&bytes, SegmentId(5), 1), Some((last, bytes.len())));
        assert_eq!(read_head(&bytes, SegmentId(6), 1), None);
        for index in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[index] ^= 0x10;
            assert_eq!(read_head(&changed, SegmentId(5), 1), None, "byte {index}");
            assert_eq!(read_head(&bytes[..index], SegmentId(5), 1), None, "length {index}");
        }
    }

    #[test]
    fn only_names_of_segments_are_numbers() {
        assert_eq!(SegmentId::of_file_name(&SegmentId(12).file_name()), Some(SegmentId(12)));
        for name in ["12.log", "00000012.lo", "0000001x.log", "+0000012.log", "HEADER"] {
            assert_eq!(SegmentId::of_file_name(name), None, "{name}");
        }
    }
}
