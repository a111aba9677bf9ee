//! The counts of a run: per stream, per reader thread, and their totals.

use std::{cell::RefCell, sync::Arc};

use hdrhistogram::Histogram;

use crate::{ledger::TopicRecord, run::Run};

/// Read buffer of a thread, shared by its streams.
pub(super) const BUFFER_BYTES: usize = 64 * 1024;

/// Longest latency in the histogram; longer ones are recorded as this.
const MAX_LATENCY_MICROS: u64 = 600_000_000;

/// The record of a stream, over all its connections.
pub(super) struct StreamRecord {
    /// The number of the stream in the run.
    pub number: usize,
    /// One ledger per topic of the stream.
    pub ledgers: Box<[TopicRecord]>,
    /// The value of its last `id:` line; kept only for a reconnect storm.
    pub last_id: Vec<u8>,
}

/// The totals of a thread's streams.
pub(super) struct Totals {
    pub streams: Vec<StreamRecord>,
    /// Deliveries within the window.
    pub delivered: u64,
    /// Latencies in microseconds, of events sent after the start of the window.
    pub latencies: Histogram<u64>,
    /// Gap events.
    pub gaps: u64,
    /// Events of topics without a subscription.
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

    /// Adds the totals of another thread.
    pub fn add(&mut self, other: Self) {
        self.streams.extend(other.streams);
        self.delivered += other.delivered;
        self.latencies.add(other.latencies).expect("the bounds are the same");
        self.gaps += other.gaps;
        self.strays += other.strays;
    }
}

/// The state shared by the streams of one thread.
pub(super) struct ReaderThread {
    pub run: Arc<Run>,
    pub buffer: RefCell<Box<[u8]>>,
    pub totals: RefCell<Totals>,
}

impl ReaderThread {
    /// Adds a record for a stream. Returns its index.
    pub fn add(&self, number: usize) -> usize {
        let topics = self.run.settings.topics.per_stream;
        let ledgers = (0..topics).map(|_| TopicRecord::default()).collect();
        let streams = &mut self.totals.borrow_mut().streams;
        streams.push(StreamRecord { number, ledgers, last_id: Vec::new() });
        streams.len() - 1
    }
}
