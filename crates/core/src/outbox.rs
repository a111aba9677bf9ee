//! The outbox of one stream: encoded bytes waiting for the socket, bounded, with a gap in place of
//! dropped events.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use bytes::Bytes;
use smallvec::SmallVec;

use crate::{
    cursor::{Epoch, Positions},
    event::SequencedEvent,
    partition_log::MissedReason,
    topic::Topic,
};

/// Events written in one piece.
#[derive(Debug, Clone)]
pub struct Segment {
    pub content: Content,
    /// Approximate bytes on the wire.
    pub size_bytes: usize,
    pub event_count: u32,
    /// When the oldest of its events was published.
    pub published_at: Option<Instant>,
    /// The new position in each changed partition, once the segment is written.
    pub advances: SmallVec<[(u16, u64); 1]>,
}

/// Encoded bytes, or events to be encoded when the transport takes them. Streams share both.
#[derive(Debug, Clone)]
pub enum Content {
    Bytes(Bytes),
    Events(Box<[Arc<SequencedEvent>]>),
    /// Events are missing here for another reason than this outbox's own drops.
    Gap(Box<GapHere>),
}

/// A gap between two events.
#[derive(Debug, Clone)]
pub struct GapHere {
    /// `None` for a new epoch without missed events: no gap is sent.
    pub reason: Option<MissedReason>,
    pub partition: u16,
    /// The topics of the missing events, as far as known.
    pub topics: Vec<Topic>,
    /// The epoch beginning here.
    pub epoch: Option<Epoch>,
    /// Whether events of before follow again.
    pub repeats: bool,
}

impl Segment {
    /// A segment of events to be encoded for this stream alone.
    pub fn events(events: &[Arc<SequencedEvent>]) -> Self {
        let mut advances: SmallVec<[(u16, u64); 1]> = SmallVec::new();
        for event in events {
            match advances.iter_mut().find(|(partition, _)| *partition == event.partition) {
                Some((_, sequence)) => *sequence = event.sequence,
                None => advances.push((event.partition, event.sequence)),
            }
        }
        Self {
            size_bytes: events.iter().map(|event| event.stream_bytes()).sum(),
            content: Content::Events(events.into()),
            event_count: events.len() as u32,
            published_at: events.first().map(|event| event.published_at),
            advances,
        }
    }
}

/// The next output of an outbox.
#[derive(Debug)]
pub enum Popped {
    /// The outbox dropped events here.
    Gap(Dropped),
    Segment(Segment),
}

/// The effect of dropping the oldest events.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Dropped {
    pub event_count: u64,
    /// The partitions of the dropped events, ascending.
    pub partitions: Vec<u16>,
}

impl Dropped {
    /// Adds the dropped events of one segment.
    pub fn add(&mut self, event_count: u64, partition: u16) {
        self.event_count += event_count;
        if let Err(index) = self.partitions.binary_search(&partition) {
            self.partitions.insert(index, partition);
        }
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.event_count == 0
    }
}

/// Unsent segments in order.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Boxed, and none while empty: most outboxes are empty most of the time.
    #[expect(clippy::box_collection, reason = "one word for an idle stream, not four")]
    segments: Option<Box<VecDeque<Segment>>>,
    bytes: usize,
    /// The stream's positions after all taken segments.
    taken: Positions,
    /// Events dropped before the first segment.
    dropped: Option<Box<Dropped>>,
}

impl Outbox {
    /// Adds a segment at the end.
    #[inline]
    pub fn push(&mut self, segment: Segment) {
        self.bytes += segment.size_bytes;
        // Room for one: usually a segment leaves before the next one arrives.
        self.segments
            .get_or_insert_with(|| Box::new(VecDeque::with_capacity(1)))
            .push_back(segment);
    }

    /// Unsent bytes.
    #[inline]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.segments.is_none() && self.dropped.is_none()
    }

    /// Drops the oldest events until at most `max_bytes`, or one segment, is left. Keeps gaps.
    /// Returns the number of dropped events.
    pub fn drop_oldest(&mut self, max_bytes: usize) -> u64 {
        let before = self.dropped_count();
        let mut gaps = Vec::new();
        let Some(segments) = &mut self.segments else { return 0 };
        while self.bytes > max_bytes
            && segments.len() > 1
            && let Some(segment) = segments.pop_front()
        {
            self.bytes -= segment.size_bytes;
            // Without its gap the client would never learn of the missing events.
            if matches!(segment.content, Content::Gap(_)) {
                gaps.push(segment);
                continue;
            }
            for (place, (partition, _)) in segment.advances.iter().enumerate() {
                // Count a segment's events once, not once per partition.
                let count = if place == 0 { u64::from(segment.event_count) } else { 0 };
                self.dropped.get_or_insert_default().add(count, *partition);
            }
        }
        for gap in gaps.into_iter().rev() {
            self.bytes += gap.size_bytes;
            segments.push_front(gap);
        }
        self.dropped_count() - before
    }

    fn dropped_count(&self) -> u64 {
        self.dropped.as_ref().map_or(0, |dropped| dropped.event_count)
    }

    /// Takes the gap before the next segment, or the segment. The caller then reports the new
    /// position by [`Self::advance`].
    #[inline]
    pub fn pop(&mut self) -> Option<Popped> {
        if let Some(dropped) = self.dropped.take() {
            return Some(Popped::Gap(*dropped));
        }
        let segment = self.segments.as_mut()?.pop_front()?;
        self.bytes -= segment.size_bytes;
        self.segments.take_if(|segments| segments.is_empty());
        Some(Popped::Segment(segment))
    }

    /// The stream's positions after all taken segments.
    pub fn taken(&self) -> &Positions {
        &self.taken
    }

    /// Records these positions as taken: the transport has every event up to them.
    pub fn advance(&mut self, positions: impl Iterator<Item = (u16, u64)>) {
        positions.for_each(|(partition, sequence)| self.taken.set(partition, sequence));
    }

    /// Drops all unsent segments, for a stream about to end.
    pub fn clear(&mut self) {
        *self = Self { taken: std::mem::take(&mut self.taken), ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(sequence: u64, bytes: usize) -> Segment {
        Segment {
            content: Content::Bytes(vec![b'x'; bytes].into()),
            size_bytes: bytes,
            event_count: 1,
            published_at: None,
            advances: SmallVec::from_buf([(0, sequence)]),
        }
    }

    /// Takes everything, as words.
    fn pop_all(outbox: &mut Outbox) -> Vec<String> {
        let popped = std::iter::from_fn(|| outbox.pop());
        let words = popped.map(|popped| match popped {
            Popped::Gap(dropped) => format!("gap of {}", dropped.event_count),
            Popped::Segment(segment) => format!("event {}", segment.advances[0].1),
        });
        words.collect()
    }

    #[test]
    fn dropping_leaves_a_gap_where_the_oldest_were() {
        let mut outbox = Outbox::default();
        (2..6).for_each(|sequence| outbox.push(events(sequence, 10)));
        assert_eq!(outbox.drop_oldest(25), 2);
        assert_eq!(outbox.bytes(), 20);
        assert_eq!(pop_all(&mut outbox), ["gap of 2", "event 4", "event 5"]);
        assert!(outbox.is_empty() && outbox.bytes() == 0);
    }

    #[test]
    fn the_newest_segment_is_left_whatever_its_size() {
        let mut outbox = Outbox::default();
        (1..3).for_each(|sequence| outbox.push(events(sequence, 10)));
        assert_eq!(outbox.drop_oldest(5), 1);
        assert_eq!(pop_all(&mut outbox), ["gap of 1", "event 2"]);
    }
}
