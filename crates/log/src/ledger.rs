//! The sizes of all segments, and the bytes still needed by the lanes: when to clean.

use std::{collections::BTreeMap, time::Duration};

use parking_lot::{Condvar, Mutex};

use crate::{options::Lane, segment::SegmentId};

/// The log may be this many times as large as its needed bytes. With 3, each needed byte is copied
/// at most once while twice as many new bytes are written: a write amplification of 1.5.
const MAX_SIZE_FACTOR: u64 = 3;

/// Needed bytes shrink without a write. So the cleaner looks again after this time.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Sizes {
    segments: BTreeMap<SegmentId, u64>,
    needed: BTreeMap<Lane, u64>,
    is_closed: bool,
}

pub struct Ledger {
    sizes: Mutex<Sizes>,
    changed: Condvar,
    segment_bytes: u64,
}

impl Ledger {
    pub fn new(segments: BTreeMap<SegmentId, u64>, segment_bytes: u64) -> Self {
        let sizes = Sizes { segments, ..Sizes::default() };
        Self { sizes: Mutex::new(sizes), changed: Condvar::new(), segment_bytes }
    }

    /// Sets the size of the tail; a new segment wakes the cleaner.
    pub fn set_size(&self, segment: SegmentId, bytes: u64) {
        if self.sizes.lock().segments.insert(segment, bytes).is_none() {
            self.changed.notify_all();
        }
    }

    pub fn remove(&self, segment: SegmentId) {
        self.sizes.lock().segments.remove(&segment);
    }

    pub fn set_needed(&self, lane: Lane, bytes: u64) {
        self.sizes.lock().needed.insert(lane, bytes);
    }

    /// The number of segments and their bytes.
    pub fn size(&self) -> (u64, u64) {
        let sizes = self.sizes.lock();
        (sizes.segments.len() as u64, sizes.segments.values().sum())
    }

    pub fn close(&self) {
        self.sizes.lock().is_closed = true;
        self.changed.notify_all();
    }

    pub fn is_closed(&self) -> bool {
        self.sizes.lock().is_closed
    }

    /// Waits until the oldest segment should be cleaned; `None` after the end.
    pub fn next_to_clean(&self) -> Option<SegmentId> {
        let mut sizes = self.sizes.lock();
        loop {
            if sizes.is_closed {
                return None;
            }
            if let Some(segment) = self.too_large(&sizes) {
                return Some(segment);
            }
            self.changed.wait_for(&mut sizes, LOOK_INTERVAL);
        }
    }

    /// Waits before a segment is tried again.
    pub fn pause(&self) {
        let mut sizes = self.sizes.lock();
        if !sizes.is_closed {
            self.changed.wait_for(&mut sizes, LOOK_INTERVAL);
        }
    }

    fn too_large(&self, sizes: &Sizes) -> Option<SegmentId> {
        let total: u64 = sizes.segments.values().sum();
        let needed: u64 = sizes.needed.values().sum();
        let allowed = needed.saturating_mul(MAX_SIZE_FACTOR) + 2 * self.segment_bytes;
        // The tail is never cleaned.
        let is_due = total > allowed && sizes.segments.len() > 1;
        is_due.then(|| sizes.segments.first_key_value()).flatten().map(|(segment, _)| *segment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(sizes: &[u64]) -> Ledger {
        let numbered = (1..).map(SegmentId).zip(sizes.iter().copied());
        Ledger::new(numbered.collect(), 100)
    }

    #[test]
    fn the_oldest_segment_is_due_above_three_times_the_needed_bytes_and_two_segments() {
        let due = |ledger: &Ledger| ledger.too_large(&ledger.sizes.lock());
        let full = ledger(&[100, 100, 100, 50]);
        assert_eq!(due(&full), Some(SegmentId(1)));
        full.set_needed(Lane(0), 40);
        full.set_needed(Lane(1), 10);
        assert_eq!(due(&full), None);
        full.set_needed(Lane(0), 39);
        assert_eq!(due(&full), Some(SegmentId(1)));
        assert_eq!(due(&ledger(&[1000])), None, "the tail alone");
    }
}
