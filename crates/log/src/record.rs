//! The bytes of one record: header, checksums, payload.
//!
//! All numbers are little-endian:
//!
//! | bytes | field |
//! |---|---|
//! | 1 | magic |
//! | 1 | kind, chosen by the lane's owner |
//! | 2 | lane |
//! | 4 | length of the payload |
//! | 8 | sequence |
//! | 4 | CRC-32C of the payload |
//! | 4 | CRC-32C of the bytes above, started with the log's salt |
//!
//! The salt is random and secret. So a payload never contains a valid record.

use bytes::Bytes;

use crate::options::Lane;

pub const MAGIC: u8 = 0xF5;
pub const HEADER_BYTES: usize = 24;

/// The largest payload of a record. Larger lengths are damage.
pub const MAX_PAYLOAD_BYTES: usize = 1 << 30;

/// One record to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub sequence: u64,
    /// Chosen by the lane's owner; the store keeps it.
    pub kind: u8,
    /// At most [`MAX_PAYLOAD_BYTES`].
    pub payload: Bytes,
}

/// One record read from disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    pub lane: Lane,
    pub sequence: u64,
    pub kind: u8,
    pub payload: &'a [u8],
}

/// A record's header with a valid checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub kind: u8,
    pub lane: Lane,
    pub payload_bytes: usize,
    pub sequence: u64,
    payload_checksum: u32,
}

impl Header {
    /// The header at the start of `bytes`, at least [`HEADER_BYTES`] long.
    pub fn read(bytes: &[u8], salt: u32) -> Option<Self> {
        let bytes: &[u8; HEADER_BYTES] = bytes.first_chunk()?;
        let [magic, kind, rest @ ..] = bytes;
        let checksum = crc32c::crc32c_append(salt, &bytes[..20]);
        if *magic != MAGIC || checksum != number(&rest[18..]) {
            return None;
        }
        let payload_bytes = number(&rest[2..6]) as usize;
        (payload_bytes <= MAX_PAYLOAD_BYTES).then(|| Self {
            kind: *kind,
            lane: Lane(u16::from_le_bytes([rest[0], rest[1]])),
            payload_bytes,
            sequence: u64::from(number(&rest[6..10])) | u64::from(number(&rest[10..14])) << 32,
            payload_checksum: number(&rest[14..18]),
        })
    }

    pub fn matches(&self, payload: &[u8]) -> bool {
        crc32c::crc32c(payload) == self.payload_checksum
    }
}

/// The first four bytes as a number; 0 if there are fewer.
fn number(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

/// Appends a record to `buffer`.
pub fn write(buffer: &mut Vec<u8>, lane: Lane, entry: &Entry, salt: u32) {
    let start = buffer.len();
    let length = u32::try_from(entry.payload.len()).unwrap_or(u32::MAX);
    buffer.extend_from_slice(&[MAGIC, entry.kind]);
    buffer.extend_from_slice(&lane.0.to_le_bytes());
    buffer.extend_from_slice(&length.to_le_bytes());
    buffer.extend_from_slice(&entry.sequence.to_le_bytes());
    buffer.extend_from_slice(&crc32c::crc32c(&entry.payload).to_le_bytes());
    let checksum = crc32c::crc32c_append(salt, &buffer[start..]);
    buffer.extend_from_slice(&checksum.to_le_bytes());
    buffer.extend_from_slice(&entry.payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_written_and_only_with_its_salt() {
        let payload = Bytes::from_static(b"hello");
        let entry = Entry { sequence: 1 << 40 | 7, kind: 3, payload };
        let mut bytes = Vec::new();
        write(&mut bytes, Lane(258), &entry, 9);
        let header = Header::read(&bytes, 9).unwrap();
        assert_eq!((header.kind, header.lane, header.sequence), (3, Lane(258), 1 << 40 | 7));
        assert_eq!(header.payload_bytes, 5);
        assert!(header.matches(b"hello"));
        assert!(!header.matches(b"hellO"));
        assert_eq!(Header::read(&bytes, 8), None);
    }
}
