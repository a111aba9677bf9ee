//! The counts of a run: per stream, per reader thread, and their totals.

use std::{cell::RefCell, sync::Arc};

use hdrhistogram::Histogram;

use crate::{ledger::TopicRecord, run::Run};

/// What is read at once.
pub(super) const BUFFER_BYTES: usize = 64 * 1024;

/// Longest latency that is told from longer ones.
const MAX_LATENCY_MICROS: u64 = 600_000_000;

/// What a stream had, over all its connections.
pub(super) struct StreamRecord {
    /// Among those of the run.
    pub number: usize,
    /// Of its topics.
    pub ledgers: Box<[TopicRecord]>,
    /// What its last `id:` line said, if it is to come back with it.
    pub last_id: Vec<u8>,
}

/// What the streams of a thread had.
pub(super) struct Totals {
    pub streams: Vec<StreamRecord>,
    /// Deliveries that arrived within the window.
    pub delivered: u64,
    /// Of events that were sent within the window, in microseconds.
    pub latencies: Histogram<u64>,
    /// Times that a hub told of missed events.
    pub gaps: u64,
    /// Events of topics that the stream had not asked for.
    pub strays: u64,
}

impl Totals {
    pub fn new() -> Self {
        let latencies = Histogram::new_with_bounds(1, MAX_LATENCY_MICROS, 3);
        Self {
            streams: Vec::new(),
            delivered: 0,
            latencies: latencies.expect("the bounds are valid"),
            gaps: 0,
            strays: 0,
        }
    }

    /// Takes what another thread had.
    pub fn add(&mut self, other: Self) {
        self.streams.extend(other.streams);
        self.delivered += other.delivered;
        self.latencies.add(other.latencies).expect("the bounds are the same");
        self.gaps += other.gaps;
        self.strays += other.strays;
    }
}

/// What the streams of one thread share.
pub(super) struct ReaderThread {
    pub run: Arc<Run>,
    pub buffer: RefCell<Box<[u8]>>,
    pub totals: RefCell<Totals>,
}

impl ReaderThread {
    /// A place for a stream's totals.
    pub fn add(&self, number: usize) -> usize {
        let topics = self.run.settings.topics.per_stream;
        let ledgers = (0..topics).map(|_| TopicRecord::default()).collect();
        let streams = &mut self.totals.borrow_mut().streams;
        streams.push(StreamRecord { number, ledgers, last_id: Vec::new() });
        streams.len() - 1
    }
}
