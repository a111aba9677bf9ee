//! The state shared by the threads of a run: clock, counters, measuring window.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::{mark::Marker, settings::BenchSettings};

/// Most connections opening at once, except in a storm. With more, a server's accept queue could
/// overflow, and the run would measure the kernel's retransmissions.
const MAX_CONNECTING: usize = 256;

/// One run of the load tool.
pub(super) struct Run {
    pub settings: BenchSettings,
    /// The resolved address of the streams.
    pub stream_address: SocketAddr,
    pub marker: Marker,
    pub connecting: Arc<Semaphore>,
    /// Events sent and received in this window are measured.
    pub window: Window,
    pub counters: Counters,
    /// Set to stop all publishers.
    pub is_over: AtomicBool,
    start: Instant,
}

/// Counts since the start of the run, warm-up included.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub opened: AtomicU64,
    /// Streams refused or failed before they were open.
    pub refused: AtomicU64,
    /// Cut streams open again.
    pub returned: AtomicU64,
    /// Time of the last reopened stream, on the run's clock.
    pub last_return_micros: AtomicU64,
    /// Time of the last delivery, on the run's clock.
    pub last_delivery_micros: AtomicU64,
    /// Open streams ended by the server or by a broken connection.
    pub ended: AtomicU64,
    /// Deliveries, without repeated ones.
    pub delivered: AtomicU64,
    /// Deliveries due: one for each confirmed event and each stream on its topic.
    pub expected: AtomicU64,
    /// Reason of the first stream not opened.
    pub first_refusal: Mutex<Option<String>>,
    /// Reason of the first stream ended early.
    pub first_end: Mutex<Option<String>>,
}

/// Start and end of the measurement, in microseconds of the run's clock.
#[derive(Debug)]
pub(super) struct Window {
    from: AtomicU64,
    until: AtomicU64,
}

impl Window {
    /// A window in the far future: before [`Window::set`], nothing is measured.
    fn new() -> Self {
        Self { from: AtomicU64::new(u64::MAX), until: AtomicU64::new(u64::MAX) }
    }

    pub fn set(&self, from_micros: u64, until_micros: u64) {
        self.from.store(from_micros, Relaxed);
        self.until.store(until_micros, Relaxed);
    }

    /// Ends the window now, if it has not ended yet.
    pub fn cut(&self, now_micros: u64) {
        self.until.fetch_min(now_micros, Relaxed);
    }

    pub fn is_after_start(&self, micros: u64) -> bool {
        micros >= self.from.load(Relaxed)
    }

    pub fn is_within(&self, micros: u64) -> bool {
        self.is_after_start(micros) && micros < self.until.load(Relaxed)
    }

    pub fn length(&self) -> Duration {
        let (from, until) = (self.from.load(Relaxed), self.until.load(Relaxed));
        Duration::from_micros(until.saturating_sub(from))
    }
}

impl Run {
    pub fn new(settings: BenchSettings, stream_address: SocketAddr) -> Self {
        Self {
            settings,
            stream_address,
            marker: Marker::new(rand::random()),
            connecting: Arc::new(Semaphore::new(MAX_CONNECTING)),
            window: Window::new(),
            counters: Counters::default(),
            is_over: AtomicBool::new(false),
            start: Instant::now(),
        }
    }

    pub fn micros(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Whether to stop publishing: a publisher failed for good, or all streams ended.
    pub fn is_over(&self) -> bool {
        self.is_over.load(Relaxed) || self.counters.ended.load(Relaxed) >= self.stream_count()
    }

    pub fn stream_count(&self) -> u64 {
        self.settings.stream_count as u64
    }
}
