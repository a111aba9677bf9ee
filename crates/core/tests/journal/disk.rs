//! The model disk: records in order, written when the schedule wants.

use std::collections::VecDeque;

use fanfare_core::journal::Record;
use rand::{RngExt, rngs::StdRng};

/// A write in flight.
pub enum Write {
    /// A batch of the partition. It gets an answer.
    Batch(Vec<Record>),
    /// The records kept of the first ones.
    Copies { kept: Vec<Record>, cleaned: usize },
}

#[derive(Default)]
pub struct Disk {
    pub records: Vec<Record>,
    /// A crash keeps at least this many records.
    pub synced: usize,
    /// The first records, with their copies behind: to unlink.
    pub cleaned: usize,
    pub writes: VecDeque<Write>,
    pub last_sequence: u64,
}

impl Disk {
    pub fn append(&mut self, records: Vec<Record>) {
        for record in &records {
            self.last_sequence = self.last_sequence.max(record.sequence);
        }
        self.records.extend(records);
    }

    /// Removes the cleaned records.
    pub fn unlink(&mut self) {
        // Copies must be safe before their originals leave.
        self.synced = self.records.len();
        self.records.drain(..self.cleaned);
        self.synced -= self.cleaned;
        self.cleaned = 0;
    }

    /// Whether cleaning may begin: one round at a time.
    pub fn is_idle(&self) -> bool {
        self.cleaned == 0 && !self.writes.iter().any(|write| matches!(write, Write::Copies { .. }))
    }

    /// Loses everything in flight except a random beginning, and with a lazy disk some written
    /// records too.
    pub fn crash(&mut self, rng: &mut StdRng, is_lazy: bool) {
        let written = self.records.len();
        for write in std::mem::take(&mut self.writes) {
            match write {
                Write::Batch(records) => self.append(records),
                Write::Copies { kept, .. } => self.append(kept),
            }
        }
        let least = if is_lazy { self.synced } else { written };
        let kept = rng.random_range(least..=self.records.len());
        self.records.truncate(kept);
        self.synced = kept;
        self.cleaned = 0;
        self.last_sequence = self.records.iter().map(|record| record.sequence).max().unwrap_or(0);
    }
}
