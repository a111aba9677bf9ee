//! The hub's counters. Counters on an event's way are per worker, so no cache line moves between
//! cores. A scrape adds them up.
//!
//! `table` lists all metrics, for `prometheus` and `http::stats`.

mod disk;
#[cfg(feature = "metrics")]
mod prometheus;
mod refusals;
mod table;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use fanfare_core::{
    connection::{Losses, ReplayResult},
    topic_manager::Activity,
};
use hdrhistogram::Histogram;
use parking_lot::Mutex;

pub(crate) use self::disk::{DiskGauges, DiskMetrics};
#[cfg(feature = "metrics")]
pub(crate) use self::prometheus::render;
use self::refusals::Refusals;
pub(crate) use self::table::{Gauges, Row, Value};

/// Histograms keep two significant digits: a value is at most 1 % off.
const SIGNIFICANT_DIGITS: u8 = 2;

/// The reasons of a stream's end: `client`, `answered` (a poll), or the reason of its `shutdown`.
const CLOSE_REASONS: [&str; 6] = ["client", "answered", "drain", "capacity", "lifetime", "slow"];

/// A histogram. The lock is held to record one value, or for a scrape.
type SharedHistogram = Mutex<Histogram<u64>>;

/// Counters of the whole hub, for everything but deliveries.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub opened: AtomicU64,
    /// Polls among the opened streams.
    pub polls: AtomicU64,
    /// Raw streams among the opened ones.
    pub opened_raw: AtomicU64,
    pub published: AtomicU64,
    pub actor_panics: AtomicU64,
    pub refusals: Refusals,
    replays_complete: AtomicU64,
    replays_gap: AtomicU64,
    topics: Box<[AtomicUsize]>,
    refills: Box<[AtomicU64]>,
    closed: Mutex<BTreeMap<&'static str, u64>>,
    durations: SharedHistogram,
    workers: Mutex<Vec<Arc<WorkerMetrics>>>,
    /// The groups written to the log on disk.
    pub disk: DiskMetrics,
}

/// Counters of one worker, written by its thread only.
#[derive(Debug)]
pub(crate) struct WorkerMetrics {
    pub delivered: AtomicU64,
    conflated: AtomicU64,
    dropped_slow: AtomicU64,
    dropped_rate: AtomicU64,
    subscriptions: AtomicI64,
    unsent_bytes: AtomicI64,
    latencies: SharedHistogram,
    batches: SharedHistogram,
}

impl Metrics {
    pub fn new(partition_count: u16) -> Self {
        Self {
            opened: AtomicU64::default(),
            opened_raw: AtomicU64::default(),
            polls: AtomicU64::default(),
            published: AtomicU64::default(),
            actor_panics: AtomicU64::default(),
            refusals: Refusals::default(),
            replays_complete: AtomicU64::default(),
            replays_gap: AtomicU64::default(),
            topics: (0..partition_count).map(|_| AtomicUsize::default()).collect(),
            refills: (0..partition_count).map(|_| AtomicU64::default()).collect(),
            closed: Mutex::new(CLOSE_REASONS.map(|reason| (reason, 0)).into()),
            durations: Mutex::new(histogram()),
            workers: Mutex::default(),
            disk: DiskMetrics::default(),
        }
    }

    /// Counters for one more worker.
    pub fn add_worker(&self) -> Arc<WorkerMetrics> {
        let worker = Arc::new(WorkerMetrics::new());
        self.workers.lock().push(worker.clone());
        worker
    }

    /// Counts a closed stream.
    pub fn count_closed(&self, reason: &'static str, duration: Duration) {
        *self.closed.lock().entry(reason).or_default() += 1;
        record(&self.durations, duration.as_millis() as u64);
    }

    /// Counts the resume of an opened stream.
    pub fn count_replay(&self, result: ReplayResult) {
        let counter = match result {
            ReplayResult::None => return,
            ReplayResult::Complete => &self.replays_complete,
            ReplayResult::Gap => &self.replays_gap,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Sets the number of topics known to a partition.
    pub fn set_topics(&self, partition: u16, count: usize) {
        self.topics[usize::from(partition)].store(count, Ordering::Relaxed);
    }

    /// Sets the number of times a partition has caught up with its log in Redis.
    pub fn set_refills(&self, partition: u16, count: u64) {
        self.refills[usize::from(partition)].store(count, Ordering::Relaxed);
    }
}

impl WorkerMetrics {
    fn new() -> Self {
        Self {
            delivered: AtomicU64::default(),
            conflated: AtomicU64::default(),
            dropped_slow: AtomicU64::default(),
            dropped_rate: AtomicU64::default(),
            subscriptions: AtomicI64::default(),
            unsent_bytes: AtomicI64::default(),
            latencies: Mutex::new(histogram()),
            batches: Mutex::new(histogram()),
        }
    }

    /// Adds the topics and patterns of an opened or changed stream.
    pub fn add_subscriptions(&self, topic_count: usize) {
        self.subscriptions.fetch_add(topic_count as i64, Ordering::Relaxed);
    }

    /// Removes the topics and patterns of a closed or changed stream.
    pub fn remove_subscriptions(&self, topic_count: usize) {
        self.subscriptions.fetch_sub(topic_count as i64, Ordering::Relaxed);
    }

    /// Applies a change of a stream's unsent bytes.
    pub fn count_unsent(&self, before: usize, after: usize) {
        if before != after {
            self.unsent_bytes.fetch_add(after as i64 - before as i64, Ordering::Relaxed);
        }
    }

    /// Counts the events dropped from a stream.
    pub fn count_losses(&self, losses: &Losses) {
        let counts = [
            (&self.conflated, losses.conflated),
            (&self.dropped_slow, losses.dropped_slow),
            (&self.dropped_rate, losses.dropped_rate),
        ];
        for (counter, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
            counter.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Counts published events taken by transports.
    pub fn count_delivered(&self, events: u64) {
        self.delivered.fetch_add(events, Ordering::Relaxed);
    }

    /// Records the time from publish to write of this many writes' oldest events.
    pub fn record_latency(&self, latency: Duration, count: u64) {
        let latencies = &mut *self.latencies.lock();
        latencies.record_n(latency.as_micros() as u64, count).expect(TAKES_ALL);
    }

    /// Records the activity of a topic manager's turn.
    pub fn record_activity(&self, activity: &Activity) {
        if activity.conflated > 0 {
            self.conflated.fetch_add(activity.conflated, Ordering::Relaxed);
        }
        for events in &activity.batch_events {
            record(&self.batches, *events as u64);
        }
    }
}

fn histogram() -> Histogram<u64> {
    let mut histogram =
        Histogram::new(SIGNIFICANT_DIGITS).expect("2 significant digits are allowed");
    histogram.auto(true);
    histogram
}

const TAKES_ALL: &str = "an auto-resizing histogram takes all";

fn record(histogram: &SharedHistogram, value: u64) {
    histogram.lock().record(value).expect(TAKES_ALL);
}
