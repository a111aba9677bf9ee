//! Epoch and cursor: the position of a stream, and its text form in `id:` lines.
//!
//! The text is opaque to clients. It is `EEEEEEEE` (the epoch, eight digits), `~TTTTTTT` (the time,
//! seven digits) and then, for each partition in ascending order, `.<partition>:<sequence>`. Digits
//! come from `DIGITS`, most significant first. Sixteen partitions take at most 210 bytes.

use std::{fmt, ops::Range, str::FromStr};

use smallvec::SmallVec;

/// Base 64 in an order making small numbers look like numbers. All digits are safe in a header, in
/// a query and in an `id:` line.
const DIGITS: &[u8; 64] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_";

/// Digits of an epoch in the text form.
const EPOCH_DIGITS: usize = 8;

/// Digits of a time in the text form: milliseconds since 1970, through the year 2109.
const TIME_DIGITS: usize = 7;

const MAX_TIME: u64 = (1 << (6 * TIME_DIGITS)) - 1;

/// Digits of the longest sequence: 2^54 events, 570 years at a million a second.
const MAX_SEQUENCE_DIGITS: usize = 9;

/// Digits of the longest number.
const MAX_DIGITS: usize = 11;

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
pub struct Epoch(u64);

impl Epoch {
    /// An epoch of the 48 low bits of `random`.
    pub const fn new(random: u64) -> Self {
        Self(random & ((1 << (6 * EPOCH_DIGITS)) - 1))
    }

    /// The epoch as a number of 48 bits.
    pub fn number(self) -> u64 {
        self.0
    }

    fn digits(self) -> [u8; EPOCH_DIGITS] {
        let mut text = [b'0'; EPOCH_DIGITS];
        let mut rest = self.0;
        for place in text.iter_mut().rev() {
            *place = DIGITS[(rest & 63) as usize];
            rest >>= 6;
        }
        text
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(ascii(&self.digits()))
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
}

impl Cursor {
    /// The cursor of a single event.
    pub fn of_event(epoch: Epoch, unix_ms: u64, partition: u16, sequence: u64) -> Self {
        let unix_ms = Some(unix_ms);
        Self { epoch, unix_ms, positions: [(partition, sequence)].into_iter().collect() }
    }
}

/// Writes a cursor's text without building a [`Cursor`].
pub fn write_cursor(
    out: &mut impl fmt::Write,
    epoch: Epoch,
    unix_ms: Option<u64>,
    positions: &Positions,
) -> fmt::Result {
    write!(out, "{epoch}")?;
    if let Some(unix_ms) = unix_ms {
        out.write_char('~')?;
        out.write_str(ascii(&time_digits(unix_ms)))?;
    }
    for (partition, sequence) in positions.iter() {
        out.write_char('.')?;
        write_number(out, u64::from(partition))?;
        out.write_char(':')?;
        write_number(out, sequence)?;
    }
    Ok(())
}

/// The place of the time's digits in the text.
const TIME_PLACE: Range<usize> = EPOCH_DIGITS + 1..EPOCH_DIGITS + 1 + TIME_DIGITS;

/// The text of an advancing cursor. Usually only the digits of one partition change, so
/// [`set`](Self::set) overwrites them in place.
#[derive(Debug)]
pub struct CursorText {
    epoch: Epoch,
    unix_ms: u64,
    positions: Positions,
    text: Vec<u8>,
    /// The range of each position's sequence in the text.
    sequences: SmallVec<[Range<usize>; 16]>,
}

impl CursorText {
    pub fn new(epoch: Epoch, unix_ms: u64, positions: &Positions) -> Self {
        let (text, sequences) = (Vec::new(), SmallVec::new());
        let mut cursor = Self { epoch, unix_ms, positions: positions.clone(), text, sequences };
        cursor.render();
        cursor
    }

    /// The text for the current positions.
    pub fn as_bytes(&self) -> &[u8] {
        &self.text
    }

    /// Sets the time.
    pub fn set_time(&mut self, unix_ms: u64) {
        if std::mem::replace(&mut self.unix_ms, unix_ms) != unix_ms {
            self.text[TIME_PLACE].copy_from_slice(&time_digits(unix_ms));
        }
    }

    /// Moves the cursor to a sequence of this partition.
    pub fn set(&mut self, partition: u16, sequence: u64) {
        let found = self.positions.find(partition);
        self.positions.set(partition, sequence);
        let mut room = [0; MAX_DIGITS];
        let digits = digits(sequence, &mut room);
        match found.map(|index| self.sequences[index].clone()) {
            // With another number of digits every later range moves: then render all.
            Ok(place) if place.len() == digits.len() => self.text[place].copy_from_slice(digits),
            _ => self.render(),
        }
    }

    fn render(&mut self) {
        let mut room = [0; MAX_DIGITS];
        self.text.clear();
        self.sequences.clear();
        self.text.extend_from_slice(&self.epoch.digits());
        self.text.push(b'~');
        self.text.extend_from_slice(&time_digits(self.unix_ms));
        for (partition, sequence) in self.positions.iter() {
            self.text.push(b'.');
            self.text.extend_from_slice(digits(partition.into(), &mut room));
            self.text.push(b':');
            let start = self.text.len();
            self.text.extend_from_slice(digits(sequence, &mut room));
            self.sequences.push(start..self.text.len());
        }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_cursor(f, self.epoch, self.unix_ms, &self.positions)
    }
}

/// The text is no cursor (`bad_cursor`).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the last event id is not a cursor of this hub")]
pub struct CursorError;

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let mut parts = text.split('.');
        let head = parts.next().ok_or(CursorError)?;
        let (epoch, unix_ms) = match head.split_once('~') {
            Some((epoch, time)) if time.len() == TIME_DIGITS => (epoch, Some(read_digits(time)?)),
            Some(_) => return Err(CursorError),
            None => (head, None),
        };
        if epoch.len() != EPOCH_DIGITS {
            return Err(CursorError);
        }
        let epoch = Epoch(read_digits(epoch)?);
        let mut positions = Positions::default();
        let mut last = None;
        for part in parts {
            let (partition, sequence) = part.split_once(':').ok_or(CursorError)?;
            let partition = u16::try_from(read_number(partition)?).map_err(|_| CursorError)?;
            let ascending = last.replace(partition).is_none_or(|before| before < partition);
            if partition >= MAX_PARTITIONS || !ascending {
                return Err(CursorError);
            }
            positions.set(partition, read_number(sequence)?);
        }
        // Every stream has a partition, so no hub issues a cursor without positions.
        let positions = Some(positions).filter(|positions| !positions.is_empty());
        Ok(Self { epoch, unix_ms, positions: positions.ok_or(CursorError)? })
    }
}

fn time_digits(unix_ms: u64) -> [u8; TIME_DIGITS] {
    let mut text = [b'0'; TIME_DIGITS];
    let mut rest = unix_ms.min(MAX_TIME);
    for place in text.iter_mut().rev() {
        *place = DIGITS[(rest & 63) as usize];
        rest >>= 6;
    }
    text
}

fn write_number(out: &mut impl fmt::Write, number: u64) -> fmt::Result {
    out.write_str(ascii(digits(number, &mut [0; MAX_DIGITS])))
}

/// Writes a number's digits at the end of `room` and returns them.
fn digits(number: u64, room: &mut [u8; MAX_DIGITS]) -> &[u8] {
    let mut first = room.len();
    let mut rest = number;
    loop {
        first -= 1;
        room[first] = DIGITS[(rest & 63) as usize];
        rest >>= 6;
        if rest == 0 {
            return &room[first..];
        }
    }
}

/// Refuses leading zeros: each number has exactly one text.
fn read_number(text: &str) -> Result<u64, CursorError> {
    let too_long = text.len() > MAX_SEQUENCE_DIGITS;
    let leading_zero = text.len() > 1 && text.starts_with('0');
    if text.is_empty() || too_long || leading_zero {
        return Err(CursorError);
    }
    read_digits(text)
}

fn read_digits(text: &str) -> Result<u64, CursorError> {
    text.bytes().try_fold(0_u64, |number, byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'z' => byte - b'a' + 10,
            b'A'..=b'Z' => byte - b'A' + 36,
            b'-' => 62,
            b'_' => 63,
            _ => return Err(CursorError),
        };
        Ok((number << 6) | u64::from(digit))
    })
}

fn ascii(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("DIGITS are ASCII")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cursor() -> impl Strategy<Value = Cursor> {
        let positions = prop::collection::btree_map(0..MAX_PARTITIONS, 0..(1_u64 << 54), 1..20);
        let time = prop::option::of(0..=MAX_TIME);
        (any::<u64>(), time, positions).prop_map(|(epoch, unix_ms, positions)| Cursor {
            epoch: Epoch::new(epoch),
            unix_ms,
            positions: positions.into_iter().collect(),
        })
    }

    proptest! {
        #[test]
        fn text_and_cursor_are_one_to_one(cursor in cursor()) {
            let text = cursor.to_string();
            prop_assert_eq!(text.parse::<Cursor>(), Ok(cursor));
        }

        #[test]
        fn any_text_is_refused_or_comes_back_the_same(text in "[0-9a-zA-Z_.:~-]{0,40}|[0-9a-z]{8}~[0-9a-z]{7}.[1-3]:[1-9]|.*") {
            if let Ok(cursor) = text.parse::<Cursor>() {
                prop_assert_eq!(cursor.to_string(), text);
            }
        }
    }

    proptest! {
        #[test]
        fn a_text_that_moves_on_is_that_of_its_cursor(
            mut cursor in cursor(),
            moves in prop::collection::vec((0..20_u16, 0..(1_u64 << 54), 0..=MAX_TIME), 0..40),
        ) {
            let mut text = CursorText::new(cursor.epoch, 0, &cursor.positions);
            for (partition, sequence, unix_ms) in moves {
                cursor.unix_ms = Some(unix_ms);
                cursor.positions.set(partition, sequence);
                text.set_time(unix_ms);
                text.set(partition, sequence);
                let expected = cursor.to_string();
                prop_assert_eq!(text.as_bytes(), expected.as_bytes());
            }
        }
    }

    #[test]
    fn sixteen_partitions_take_at_most_210_printable_bytes() {
        let cursor = Cursor {
            epoch: Epoch::new(u64::MAX),
            unix_ms: Some(u64::MAX),
            positions: (0..16).map(|partition| (partition, (1 << 54) - 1)).collect(),
        };
        let text = cursor.to_string();
        assert!(text.len() <= 210, "{}", text.len());
        assert!(text.bytes().all(|b| b.is_ascii_graphic() && b != b','));
    }

    #[test]
    fn garbage_is_refused() {
        for text in [
            "",
            "42",
            "0000000",
            "00000000",
            "00000000.",
            "00000000.1",
            "00000000.1:",
            "00000000.1:01",
            "00000000.2:1.1:1",
            "00000000.1:1.1:2",
            "00000000.Aaa:1",
            "00000000.1:1 ",
            "é0000000",
            "00000000~.1:1",
            "00000000~000000.1:1",
            "00000000~00000000.1:1",
            "00000000~0000000",
            "~0000000.1:1",
        ] {
            assert_eq!(text.parse::<Cursor>(), Err(CursorError), "{text:?}");
        }
    }
}
