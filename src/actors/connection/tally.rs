//! The deliveries of a turn, counted once for all its streams.

use std::{cell::Cell, time::Instant};

use crate::{clock::now, metrics::WorkerMetrics};

/// Deliveries not yet in the metrics.
#[derive(Default)]
pub(crate) struct Tally {
    events: Cell<u64>,
    /// Pieces with the same publish time, usually all of a turn.
    pieces: Cell<Option<(Instant, u64)>>,
}

impl Tally {
    /// Counts a piece of this many events.
    pub fn count(&self, events: u32, published_at: Option<Instant>, metrics: &WorkerMetrics) {
        self.events.set(self.events.get() + u64::from(events));
        let Some(published_at) = published_at else { return };
        match self.pieces.get() {
            Some((at, count)) if at == published_at => self.pieces.set(Some((at, count + 1))),
            others => {
                if others.is_some() {
                    self.record_pieces(metrics);
                }
                self.pieces.set(Some((published_at, 1)));
            }
        }
    }

    /// Adds everything to the metrics. Call it behind the writes: a latency ends with them.
    pub fn record(&self, metrics: &WorkerMetrics) {
        let events = self.events.take();
        if events > 0 {
            metrics.count_delivered(events);
        }
        self.record_pieces(metrics);
    }

    fn record_pieces(&self, metrics: &WorkerMetrics) {
        if let Some((published_at, count)) = self.pieces.take() {
            metrics.record_latency(now().saturating_duration_since(published_at), count);
        }
    }
}
