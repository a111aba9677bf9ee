//! Epoch and cursor: the position of a stream, and its text form in `id:` lines.
//!
//! The text is opaque to clients. It is `EEEEEEEE` (the epoch, eight digits), `~TTTTTTT` (the time,
//! seven digits) and then, for each partition in ascending order, `.<partition>:<sequence>`. Within a
//! replay, the distance to its head follows: `*<distance>` for a snapshot, `!<distance>` for others.
//! Numbers have base 64, the most significant digit first. Sixteen partitions take at most 210
//! bytes, within a replay 256.

mod digits;
mod replay_marks;
#[cfg(test)]
mod tests;
mod text;

use std::{fmt, num::NonZeroU64, str::FromStr};

use digits::{EPOCH_DIGITS, MAX_SEQUENCE_DIGITS, ascii, epoch_digits};
pub use replay_marks::{ReplayKind, ReplayMark, ReplayMarks};
use smallvec::SmallVec;
pub use text::{CursorText, push_cursor};

const SEQUENCE_BITS: usize = 6 * MAX_SEQUENCE_DIGITS;

const MAX_SEQUENCE: u64 = (1 << SEQUENCE_BITS) - 1;

/// The sequence in a cursor for a partition of another epoch. No partition ever reaches it, so a
/// stream resuming with it gets a gap.
pub const IN_ANOTHER_EPOCH: u64 = MAX_SEQUENCE;

/// Highest number of partitions a hub can have.
pub const MAX_PARTITIONS: u16 = 256;

/// Names one life of a hub's sequence numbers. A new epoch begins if they could restart. Of two
/// epochs in one cluster, the higher is the later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(NonZeroU64);

impl Epoch {
    /// An epoch of the 48 low bits of `random`.
    pub const fn new(random: u64) -> Self {
        // One more than the number: then an optional epoch takes no more room.
        Self(NonZeroU64::MIN.saturating_add(random & ((1 << (6 * EPOCH_DIGITS)) - 1)))
    }

    /// The epoch as a number of 48 bits.
    pub fn number(self) -> u64 {
        self.0.get() - 1
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(ascii(&epoch_digits(self.number())))
    }
}

/// The last sequence sent to a stream in each partition, ascending by partition.
///
/// A missing partition is not part of the stream. Most streams have one partition: its position
/// needs no heap memory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Positions(SmallVec<[Position; 2]>);

/// A partition (high bits) and its sequence (low bits) in one number. A stream over many topics
/// stores one per partition, several times: small positions save memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Position(u64);

impl Position {
    fn new(partition: u16, sequence: u64) -> Self {
        debug_assert!(partition < MAX_PARTITIONS && sequence <= MAX_SEQUENCE);
        Self(u64::from(partition) << SEQUENCE_BITS | sequence.min(MAX_SEQUENCE))
    }

    fn partition(self) -> u16 {
        (self.0 >> SEQUENCE_BITS) as u16
    }

    fn sequence(self) -> u64 {
        self.0 & MAX_SEQUENCE
    }
}

impl Positions {
    /// The sequence of a partition; none if the partition is not part of the stream.
    pub fn get(&self, partition: u16) -> Option<u64> {
        self.find(partition).ok().map(|index| self.0[index].sequence())
    }

    /// Sets a partition's sequence, also to a lower one, and adds a missing partition.
    pub fn set(&mut self, partition: u16, sequence: u64) {
        let position = Position::new(partition, sequence);
        match self.find(partition) {
            Ok(index) => self.0[index] = position,
            Err(index) => self.0.insert(index, position),
        }
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each partition and its sequence, ascending by partition.
    pub fn iter(&self) -> impl Iterator<Item = (u16, u64)> + '_ {
        self.0.iter().map(|position| (position.partition(), position.sequence()))
    }

    fn find(&self, partition: u16) -> Result<usize, usize> {
        self.0.binary_search_by_key(&partition, |position| position.partition())
    }
}

impl FromIterator<(u16, u64)> for Positions {
    fn from_iter<I: IntoIterator<Item = (u16, u64)>>(positions: I) -> Self {
        let mut all = Self::default();
        for (partition, sequence) in positions {
            all.set(partition, sequence);
        }
        all
    }
}

/// A stream's place in the event logs: its client has every event up to here, on every topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    pub epoch: Epoch,
    /// Milliseconds since 1970. A topic of a partition without a position continues from this time.
    /// Cursors of earlier versions have none.
    pub unix_ms: Option<u64>,
    pub positions: Positions,
    /// The partitions within a replay.
    pub marks: ReplayMarks,
}

impl Cursor {
    /// The cursor of a single event.
    pub fn of_event(epoch: Epoch, unix_ms: u64, partition: u16, sequence: u64) -> Self {
        let positions = [(partition, sequence)].into_iter().collect();
        Self { epoch, unix_ms: Some(unix_ms), positions, marks: ReplayMarks::default() }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Room for a few positions: most cursors do not grow it.
        let mut text = Vec::with_capacity(64);
        push_cursor(&mut text, self);
        f.write_str(ascii(&text))
    }
}

/// The text is no cursor (`bad_cursor`).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the last event id is not a cursor of this hub")]
pub struct CursorError;

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        text::read(text)
    }
}
