//! The text of a cursor.

use std::ops::Range;

use smallvec::SmallVec;

use super::{
    Cursor, CursorError, Epoch, MAX_PARTITIONS, MAX_SEQUENCE, Positions, ReplayKind, ReplayMark,
    ReplayMarks,
    digits::{
        EPOCH_DIGITS, MAX_DIGITS, TIME_DIGITS, digits, epoch_digits, read_digits, read_number,
        time_digits,
    },
};

/// Most digits of a position and of the distance to its replay's head together: sixteen partitions
/// then take at most 256 bytes.
const MAX_MARKED_DIGITS: usize = 11;

/// The place of the time's digits in the text.
const TIME_PLACE: Range<usize> = EPOCH_DIGITS + 1..EPOCH_DIGITS + 1 + TIME_DIGITS;

impl ReplayKind {
    /// The separator between a position and the distance to the head.
    fn separator(self) -> u8 {
        match self {
            Self::Snapshot => b'*',
            Self::History => b'!',
        }
    }
}

/// The highest distance to a head after a position of so many digits. A longer distance is cut: the
/// replay then ends earlier, and the events after it come as missed events.
fn max_distance(position_digits: usize) -> u64 {
    (1 << (6 * (MAX_MARKED_DIGITS - position_digits))) - 1
}

/// The text of an advancing cursor. Usually only the digits of one partition change, so
/// [`set`](Self::set) overwrites them in place.
#[derive(Debug)]
pub struct CursorText<'a> {
    epoch: Epoch,
    /// None in cursors of earlier versions.
    unix_ms: Option<u64>,
    positions: Positions,
    marks: &'a ReplayMarks,
    text: Vec<u8>,
    /// The range of each position's sequence in the text.
    sequences: SmallVec<[Range<usize>; 16]>,
}

impl<'a> CursorText<'a> {
    pub fn new(
        epoch: Epoch,
        unix_ms: Option<u64>,
        positions: &Positions,
        marks: &'a ReplayMarks,
    ) -> Self {
        let (text, sequences) = (Vec::new(), SmallVec::new());
        let mut cursor =
            Self { epoch, unix_ms, positions: positions.clone(), marks, text, sequences };
        cursor.render();
        cursor
    }

    /// The text for the current positions.
    pub fn as_bytes(&self) -> &[u8] {
        &self.text
    }

    /// The same as a string.
    pub fn into_string(self) -> String {
        String::from_utf8(self.text).expect("a cursor's text is ASCII")
    }

    /// Sets the time of a cursor with a time.
    pub fn set_time(&mut self, unix_ms: u64) {
        if self.unix_ms.replace(unix_ms) != Some(unix_ms) {
            self.text[TIME_PLACE].copy_from_slice(&time_digits(unix_ms));
        }
    }

    /// Moves the cursor to a sequence of this partition.
    pub fn set(&mut self, partition: u16, sequence: u64) {
        let found = self.positions.find(partition).ok();
        self.positions.set(partition, sequence);
        let mut room = [0; MAX_DIGITS];
        let digits = digits(sequence, &mut room);
        // The distance to a replay's head changes too.
        let found = found.filter(|_| self.marks.get(partition).is_none());
        match found.map(|index| self.sequences[index].clone()) {
            // With another number of digits every later range moves: then render all.
            Some(place) if place.len() == digits.len() => self.text[place].copy_from_slice(digits),
            _ => self.render(),
        }
    }

    fn render(&mut self) {
        self.text.clear();
        self.sequences.clear();
        push_head(&mut self.text, self.epoch, self.unix_ms);
        for (partition, sequence) in self.positions.iter() {
            let mark = self.marks.get(partition);
            self.sequences.push(push_place(&mut self.text, partition, sequence, mark));
        }
    }
}

/// Appends a cursor's text, without further memory.
pub fn push_cursor(out: &mut Vec<u8>, cursor: &Cursor) {
    push_head(out, cursor.epoch, cursor.unix_ms);
    for (partition, sequence) in cursor.positions.iter() {
        push_place(out, partition, sequence, cursor.marks.get(partition));
    }
}

fn push_head(out: &mut Vec<u8>, epoch: Epoch, unix_ms: Option<u64>) {
    out.extend_from_slice(&epoch_digits(epoch.number()));
    if let Some(unix_ms) = unix_ms {
        out.push(b'~');
        out.extend_from_slice(&time_digits(unix_ms));
    }
}

/// Appends a partition with its position. Returns the range of the sequence.
fn push_place(
    out: &mut Vec<u8>,
    partition: u16,
    sequence: u64,
    mark: Option<ReplayMark>,
) -> Range<usize> {
    let mut room = [0; MAX_DIGITS];
    out.push(b'.');
    out.extend_from_slice(digits(partition.into(), &mut room));
    out.push(b':');
    let start = out.len();
    out.extend_from_slice(digits(sequence, &mut room));
    let place = start..out.len();
    if let Some(mark) = mark.filter(|mark| mark.head > sequence) {
        let distance = (mark.head - sequence).min(max_distance(place.len()));
        out.push(mark.kind.separator());
        out.extend_from_slice(digits(distance, &mut room));
    }
    place
}

/// Reads a cursor's text.
pub(super) fn read(text: &str) -> Result<Cursor, CursorError> {
    let mut parts = text.split('.');
    let (epoch, unix_ms) = read_head(parts.next().ok_or(CursorError)?)?;
    let (mut positions, mut marks) = (Positions::default(), ReplayMarks::default());
    let mut last = None;
    for part in parts {
        let (partition, place) = part.split_once(':').ok_or(CursorError)?;
        let partition = u16::try_from(read_number(partition)?).map_err(|_| CursorError)?;
        let is_ascending = last.replace(partition).is_none_or(|before| before < partition);
        if partition >= MAX_PARTITIONS || !is_ascending {
            return Err(CursorError);
        }
        let (sequence, mark) = read_place(partition, place)?;
        positions.set(partition, sequence);
        mark.into_iter().for_each(|mark| marks.set(mark));
    }
    // Every stream has a partition, so no hub issues a cursor without positions.
    let positions = Some(positions).filter(|positions| !positions.is_empty());
    Ok(Cursor { epoch, unix_ms, positions: positions.ok_or(CursorError)?, marks })
}

/// Reads the epoch, and the time if there is one.
fn read_head(head: &str) -> Result<(Epoch, Option<u64>), CursorError> {
    let (epoch, unix_ms) = match head.split_once('~') {
        Some((epoch, time)) if time.len() == TIME_DIGITS => (epoch, Some(read_digits(time)?)),
        Some(_) => return Err(CursorError),
        None => (head, None),
    };
    if epoch.len() != EPOCH_DIGITS {
        return Err(CursorError);
    }
    Ok((Epoch::new(read_digits(epoch)?), unix_ms))
}

/// Reads a position, with the mark of its replay if there is one.
fn read_place(partition: u16, place: &str) -> Result<(u64, Option<ReplayMark>), CursorError> {
    let kinds = [ReplayKind::Snapshot, ReplayKind::History];
    let marked = kinds.into_iter().find_map(|kind| {
        let (sequence, distance) = place.split_once(char::from(kind.separator()))?;
        Some((kind, sequence, distance))
    });
    let Some((kind, sequence, distance)) = marked else {
        return Ok((read_number(place)?, None));
    };
    let (position, distance) = (read_number(sequence)?, read_number(distance)?);
    let head = position + distance;
    if distance == 0 || distance > max_distance(sequence.len()) || head > MAX_SEQUENCE {
        return Err(CursorError);
    }
    Ok((position, Some(ReplayMark { partition, kind, head })))
}
