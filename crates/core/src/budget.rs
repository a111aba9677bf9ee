//! The byte budgets shared by all partitions: of their histories, and of the topics remembered
//! without events (idle topics).
//!
//! Each partition adds and releases its own bytes and reports the age of its oldest event. If the
//! budget is exceeded, any partition finds the one due to evict first. No lock.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    time::Instant,
};

/// Bytes in use over all partitions, and the age of each partition's oldest event.
#[derive(Debug)]
pub struct HistoryBudget {
    max_bytes: usize,
    used: AtomicUsize,
    max_idle_bytes: usize,
    idle: AtomicUsize,
    start: Instant,
    /// Microseconds from `start` to each partition's oldest event; `u64::MAX` for none.
    oldest: Box<[AtomicU64]>,
    /// Whether each partition has an unanswered request to evict.
    is_asked: Box<[AtomicBool]>,
}

/// The owner of the oldest events while the budget is exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excess {
    /// The asking partition.
    Own,
    /// Another partition.
    Other(u16),
}

impl HistoryBudget {
    pub fn new(max_bytes: usize, partition_count: u16, start: Instant) -> Self {
        let oldest = (0..partition_count).map(|_| AtomicU64::new(u64::MAX)).collect();
        let is_asked = (0..partition_count).map(|_| AtomicBool::new(false)).collect();
        Self {
            max_bytes,
            used: AtomicUsize::new(0),
            max_idle_bytes: usize::MAX,
            idle: AtomicUsize::new(0),
            start,
            oldest,
            is_asked,
        }
    }

    /// Bounds the memory of idle topics; without this call it has no bound.
    #[must_use]
    pub fn with_max_idle_bytes(self, max_idle_bytes: usize) -> Self {
        Self { max_idle_bytes, ..self }
    }

    pub fn add_idle(&self, bytes: usize) {
        self.idle.fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn release_idle(&self, bytes: usize) {
        self.idle.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub fn idle_bytes(&self) -> usize {
        self.idle.load(Ordering::Relaxed)
    }

    /// Whether a partition must forget its longest idle topic.
    pub fn has_idle_excess(&self) -> bool {
        self.idle_bytes() > self.max_idle_bytes
    }

    pub fn add(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn release(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Whether any event fits the budget.
    pub fn keeps_events(&self) -> bool {
        self.max_bytes > 0
    }

    /// Whether the budget has room for more bytes.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.used_bytes().saturating_add(bytes) <= self.max_bytes
    }

    pub fn used_bytes(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Records the publish time of a partition's oldest event; none for an empty history.
    pub fn set_oldest(&self, partition: u16, published_at: Option<Instant>) {
        let micros = published_at
            .map_or(u64::MAX, |at| at.saturating_duration_since(self.start).as_micros() as u64);
        self.oldest[usize::from(partition)].store(micros, Ordering::Relaxed);
    }

    /// Whether the caller must ask a partition to evict. False until the partition has answered an
    /// earlier request: one request at a time.
    pub fn ask(&self, partition: u16) -> bool {
        !self.is_asked[usize::from(partition)].swap(true, Ordering::Relaxed)
    }

    /// An asked partition has evicted.
    pub fn answer(&self, partition: u16) {
        self.is_asked[usize::from(partition)].store(false, Ordering::Relaxed);
    }

    /// The partition due to evict its oldest event, if the budget is exceeded. Past an eighth of
    /// the budget the asking partition evicts its own events: the partition with the oldest events
    /// has not kept up.
    pub fn excess(&self, asking: u16) -> Option<Excess> {
        let used = self.used_bytes();
        if used <= self.max_bytes {
            return None;
        }
        if used > self.max_bytes + self.max_bytes / 8 {
            return Some(Excess::Own);
        }
        let ages = self.oldest.iter().map(|oldest| oldest.load(Ordering::Relaxed));
        let (oldest, _) = ages.enumerate().min_by_key(|(_, micros)| *micros)?;
        let oldest = oldest as u16;
        Some(if oldest == asking { Excess::Own } else { Excess::Other(oldest) })
    }
}
