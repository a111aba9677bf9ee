//! Reads the records of one segment, past damaged ones.
//!
//! A damaged record with a valid header is skipped by its length. After an invalid header, the scan
//! looks for the next valid record byte by byte. Damage without a valid record behind it is the
//! file's torn end; the caller knows whether the file may have one.

use std::{collections::VecDeque, fs::File, io, os::unix::fs::FileExt};

use crate::{
    options::Lane,
    record::{HEADER_BYTES, Header, MAGIC, Record},
    segment::SegmentId,
};

/// The size of a read.
const READ_BYTES: usize = 1 << 20;

/// A block the disk cannot read is taken as zeros: damage of the records in it.
const BLOCK_BYTES: usize = 4096;

/// Bytes of a segment without a valid record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    pub segment: SegmentId,
    pub offset: u64,
    pub bytes: u64,
    /// Known if only the payload is damaged.
    pub lane: Option<Lane>,
    /// Known if only the payload is damaged.
    pub sequence: Option<u64>,
}

impl Damage {
    /// A missing file.
    pub fn of_segment(segment: SegmentId) -> Self {
        Self { segment, offset: 0, bytes: 0, lane: None, sequence: None }
    }
}

/// The next thing in a segment.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<'a> {
    Record(Record<'a>),
    Damage(Damage),
}

/// The reader of one segment's records.
pub struct Scan<'a> {
    file: &'a File,
    segment: SegmentId,
    salt: u32,
    /// The place of `buffer[0]` in the file.
    base: u64,
    buffer: Vec<u8>,
    /// The next record, in `buffer`.
    at: usize,
    is_at_end: bool,
    /// Damage without a valid record behind it so far.
    pending: Vec<Damage>,
    /// Damage with a valid record behind it.
    certain: VecDeque<Damage>,
}

/// The bytes at the scan's place.
enum Place {
    Valid(Header),
    /// Damaged for this many bytes.
    Bad(Option<Header>, usize),
    End,
}

impl<'a> Scan<'a> {
    /// Begins at `offset`, behind the segment's head.
    pub fn new(file: &'a File, segment: SegmentId, offset: u64, salt: u32) -> Self {
        Self {
            file,
            segment,
            salt,
            base: offset,
            buffer: Vec::new(),
            at: 0,
            is_at_end: false,
            pending: Vec::new(),
            certain: VecDeque::new(),
        }
    }

    /// The next record, or damage before a valid record.
    pub fn next(&mut self) -> io::Result<Option<Found<'_>>> {
        loop {
            if let Some(damage) = self.certain.pop_front() {
                return Ok(Some(Found::Damage(damage)));
            }
            match self.place()? {
                Place::End => return Ok(None),
                Place::Valid(_) if !self.pending.is_empty() => {
                    self.certain.extend(self.pending.drain(..));
                }
                Place::Valid(header) => return Ok(Some(Found::Record(self.take(header)))),
                Place::Bad(header, bytes) => self.skip(header, bytes),
            }
        }
    }

    /// After the last record: the damage up to the end of the file.
    pub fn torn(self) -> Vec<Damage> {
        self.pending
    }

    fn take(&mut self, header: Header) -> Record<'_> {
        let start = self.at + HEADER_BYTES;
        self.at = start + header.payload_bytes;
        Record {
            lane: header.lane,
            sequence: header.sequence,
            kind: header.kind,
            payload: &self.buffer[start..self.at],
        }
    }

    fn skip(&mut self, header: Option<Header>, bytes: usize) {
        let offset = self.base + self.at as u64;
        self.at += bytes;
        let bytes = bytes as u64;
        match self.pending.last_mut() {
            Some(last) if header.is_none() && last.lane.is_none() => last.bytes += bytes,
            _ => self.pending.push(Damage {
                segment: self.segment,
                offset,
                bytes,
                lane: header.map(|header| header.lane),
                sequence: header.map(|header| header.sequence),
            }),
        }
    }

    fn place(&mut self) -> io::Result<Place> {
        self.fill(HEADER_BYTES)?;
        let left = self.buffer.len() - self.at;
        if left == 0 {
            return Ok(Place::End);
        }
        let Some(header) = Header::read(&self.buffer[self.at..], self.salt) else {
            let next = memchr::memchr(MAGIC, &self.buffer[self.at + 1..]);
            return Ok(Place::Bad(None, next.map_or(left, |distance| distance + 1)));
        };
        let whole = HEADER_BYTES + header.payload_bytes;
        self.fill(whole)?;
        let Some(bytes) = self.buffer.get(self.at..self.at + whole) else {
            return Ok(Place::Bad(Some(header), self.buffer.len() - self.at));
        };
        if header.matches(&bytes[HEADER_BYTES..]) {
            Ok(Place::Valid(header))
        } else {
            Ok(Place::Bad(Some(header), whole))
        }
    }

    /// Reads until `bytes` bytes follow the place, or to the end of the file.
    fn fill(&mut self, bytes: usize) -> io::Result<()> {
        if self.is_at_end || self.buffer.len() - self.at >= bytes {
            return Ok(());
        }
        self.buffer.drain(..self.at);
        self.base += self.at as u64;
        self.at = 0;
        while !self.is_at_end && self.buffer.len() < bytes {
            self.read()?;
        }
        Ok(())
    }

    fn read(&mut self) -> io::Result<()> {
        let filled = self.buffer.len();
        let offset = self.base + filled as u64;
        self.buffer.resize(filled + READ_BYTES, 0);
        let count = match self.file.read_at(&mut self.buffer[filled..], offset) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(_) => self.read_block(filled, offset)?,
        };
        self.buffer.truncate(filled + count);
        self.is_at_end = count == 0 && offset >= self.file.metadata()?.len();
        Ok(())
    }

    /// One block, as zeros if the disk cannot read it. The next read begins behind it.
    fn read_block(&mut self, filled: usize, offset: u64) -> io::Result<usize> {
        let length = self.file.metadata()?.len();
        let in_block = BLOCK_BYTES - (offset % BLOCK_BYTES as u64) as usize;
        let left = usize::try_from(length.saturating_sub(offset)).unwrap_or(usize::MAX);
        let block = &mut self.buffer[filled..filled + in_block.min(left)];
        match self.file.read_at(block, offset) {
            Ok(count) => Ok(count),
            Err(_) => {
                block.fill(0);
                Ok(block.len())
            }
        }
    }
}
