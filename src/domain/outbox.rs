//! The outbox of one stream: encoded bytes that wait for the socket, bounded, with a gap in
//! place of what was dropped.

use std::{collections::VecDeque, time::Instant};

use bytes::Bytes;
use smallvec::SmallVec;

use super::cursor::Positions;

/// What is written in one piece: whole events, or a control event, or a comment.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    pub bytes: Bytes,
    /// How many published events it holds; 0 for the hub's own, which are never dropped.
    pub event_count: u32,
    /// When the oldest of its events was published.
    pub published_at: Option<Instant>,
    /// Where the stream stands once this is written, per partition that changes.
    pub advances: SmallVec<[(u16, u64); 1]>,
}

impl Segment {
    /// A piece of the hub's own.
    pub fn control(bytes: impl Into<Bytes>) -> Self {
        Self { bytes: bytes.into(), event_count: 0, published_at: None, advances: SmallVec::new() }
    }
}

/// What dropping the oldest events did.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Dropped {
    pub event_count: u64,
    /// The partitions of the dropped events, ascending.
    pub partitions: Vec<u16>,
}

impl Dropped {
    /// Adds what was dropped of one segment.
    pub fn add(&mut self, event_count: u64, partition: u16) {
        self.event_count += event_count;
        if let Err(index) = self.partitions.binary_search(&partition) {
            self.partitions.insert(index, partition);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.event_count == 0
    }
}

/// Room for segments that a stream keeps while it has none.
const KEPT_SEGMENTS: usize = 8;

/// Unsent segments in order.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    segments: VecDeque<Segment>,
    bytes: usize,
    /// Where the stream stands by what was taken so far.
    taken: Positions,
    /// What was dropped in front of the first segment that holds events.
    dropped: Dropped,
}

impl Outbox {
    /// Adds a segment at the end.
    pub fn push(&mut self, segment: Segment) {
        self.bytes += segment.bytes.len();
        self.segments.push_back(segment);
    }

    /// Unsent bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.segments.is_empty() && self.dropped.is_empty()
    }

    /// Drops the oldest events until at most `max_bytes` are left, or one segment is.
    pub fn drop_oldest(&mut self, max_bytes: usize) -> u64 {
        let before = self.dropped.event_count;
        let mut index = 0;
        while self.bytes > max_bytes && index + 1 < self.segments.len() {
            if self.segments[index].event_count == 0 {
                index += 1;
                continue;
            }
            if let Some(segment) = self.segments.remove(index) {
                self.bytes -= segment.bytes.len();
                let count = u64::from(segment.event_count);
                for (place, (partition, _)) in segment.advances.iter().enumerate() {
                    self.dropped.add(if place == 0 { count } else { 0 }, *partition);
                }
            }
        }
        self.dropped.event_count - before
    }

    /// Takes the next segment. Where events were dropped in front of it, `gap` renders
    /// what is written first, from what was dropped and where the stream stands.
    pub fn pop(&mut self, gap: impl FnOnce(&Dropped, &Positions) -> Bytes) -> Option<Segment> {
        let events_next = self.segments.front().is_none_or(|segment| segment.event_count > 0);
        if events_next && !self.dropped.is_empty() {
            let dropped = std::mem::take(&mut self.dropped);
            return Some(Segment::control(gap(&dropped, &self.taken)));
        }
        let segment = self.segments.pop_front()?;
        self.bytes -= segment.bytes.len();
        self.advance(segment.advances.iter().copied());
        if self.segments.is_empty() && self.segments.capacity() > KEPT_SEGMENTS {
            // Memory goes back once a backlog is written.
            self.segments = VecDeque::new();
        }
        Some(segment)
    }

    /// Where the stream stands by what was taken so far.
    pub fn taken(&self) -> &Positions {
        &self.taken
    }

    /// Says that the client has what came before these positions by another way.
    pub fn advance(&mut self, positions: impl Iterator<Item = (u16, u64)>) {
        positions.for_each(|(partition, sequence)| self.taken.set(partition, sequence));
    }

    /// Drops all that is not sent, as for a stream that ends.
    pub fn clear(&mut self) {
        *self = Self { taken: std::mem::take(&mut self.taken), ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(sequence: u64, bytes: usize) -> Segment {
        Segment {
            bytes: vec![b'x'; bytes].into(),
            event_count: 1,
            published_at: None,
            advances: SmallVec::from_buf([(0, sequence)]),
        }
    }

    fn gap(dropped: &Dropped, positions: &Positions) -> Bytes {
        format!("gap of {} after {:?}", dropped.event_count, positions.get(0)).into()
    }

    #[test]
    fn dropping_leaves_a_gap_where_the_oldest_were_and_keeps_the_hubs_own() {
        let mut outbox = Outbox::default();
        outbox.push(events(1, 10));
        assert_eq!(outbox.pop(gap).unwrap().bytes.len(), 10);
        outbox.push(Segment::control("heartbeat"));
        (2..6).for_each(|sequence| outbox.push(events(sequence, 10)));
        assert_eq!(outbox.drop_oldest(30), 2);
        assert_eq!(outbox.bytes(), 29);
        assert_eq!(outbox.pop(gap).unwrap().bytes, "heartbeat");
        assert_eq!(outbox.pop(gap).unwrap().bytes, "gap of 2 after Some(1)");
        assert_eq!(outbox.pop(gap).unwrap().advances[0], (0, 4));
        assert_eq!(outbox.pop(gap).unwrap().advances[0], (0, 5));
        assert!(outbox.pop(gap).is_none() && outbox.is_empty() && outbox.bytes() == 0);
    }

    #[test]
    fn the_newest_segment_is_left_whatever_its_size() {
        let mut outbox = Outbox::default();
        (1..3).for_each(|sequence| outbox.push(events(sequence, 10)));
        assert_eq!(outbox.drop_oldest(5), 1);
        assert_eq!(outbox.pop(gap).unwrap().bytes, "gap of 1 after None");
        assert_eq!(outbox.pop(gap).unwrap().advances[0], (0, 2));
        assert!(outbox.is_empty());
    }
}
