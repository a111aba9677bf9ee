//! Counters of a store, readable at any time.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// One written group, for histograms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group {
    pub record_count: u64,
    pub bytes: u64,
    /// The time of the sync, if the group was synced by itself.
    pub sync: Option<Duration>,
}

/// A store's counters since its opening, and its size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    pub bytes: u64,
    pub segment_count: u64,
    pub queued_bytes: u64,
    pub group_count: u64,
    pub record_count: u64,
    /// Bytes written: records with headers, copies included.
    pub written_bytes: u64,
    /// The bytes of copies of still needed records.
    pub copied_bytes: u64,
    pub sync_count: u64,
    /// Segments removed by cleaning.
    pub cleaned_count: u64,
}

#[derive(Default)]
pub struct Counters {
    pub groups: AtomicU64,
    pub records: AtomicU64,
    pub written_bytes: AtomicU64,
    pub copied_bytes: AtomicU64,
    pub syncs: AtomicU64,
    pub cleaned: AtomicU64,
}

impl Counters {
    pub fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }

    /// The counters; sizes are the caller's.
    pub fn read(&self) -> Figures {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Figures {
            group_count: read(&self.groups),
            record_count: read(&self.records),
            written_bytes: read(&self.written_bytes),
            copied_bytes: read(&self.copied_bytes),
            sync_count: read(&self.syncs),
            cleaned_count: read(&self.cleaned),
            ..Figures::default()
        }
    }
}
