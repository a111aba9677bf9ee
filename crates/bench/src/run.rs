//! What the threads of a run share: its clock, its counters and when is measured.

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

/// Connections that are being opened at once, except in a storm: so few that no server's accept queue overflows,
/// for then the kernel's retransmissions would be measured.
const MAX_CONNECTING: usize = 256;

/// One run of the load tool.
pub(super) struct Run {
    pub settings: BenchSettings,
    /// Where the streams are, once resolved.
    pub stream_address: SocketAddr,
    pub marker: Marker,
    pub connecting: Arc<Semaphore>,
    /// Events sent within it are measured.
    pub window: Window,
    pub counters: Counters,
    /// Nothing more is to be published.
    pub is_over: AtomicBool,
    start: Instant,
}

/// Counted since the run began, warm-up included.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub opened: AtomicU64,
    /// StreamsReport that never opened.
    pub refused: AtomicU64,
    /// StreamsReport that are open again after they were cut.
    pub returned: AtomicU64,
    /// When the last of them was, and when the last delivery came, on the run's clock.
    pub last_return_micros: AtomicU64,
    pub last_delivery_micros: AtomicU64,
    /// StreamsReport that ended by themselves after they had opened.
    pub ended: AtomicU64,
    /// Without those that came again.
    pub delivered: AtomicU64,
    /// Deliveries that the confirmed events lead to.
    pub expected: AtomicU64,
    /// Why the first stream did not open, and why the first one ended.
    pub first_refusal: Mutex<Option<String>>,
    pub first_end: Mutex<Option<String>>,
}

/// From and until when is measured, in microseconds of the run's clock.
#[derive(Debug)]
pub(super) struct Window {
    from: AtomicU64,
    until: AtomicU64,
}

impl Window {
    /// Before it is set, nothing is measured.
    fn new() -> Self {
        Self { from: AtomicU64::new(u64::MAX), until: AtomicU64::new(u64::MAX) }
    }

    pub fn set(&self, from_micros: u64, until_micros: u64) {
        self.from.store(from_micros, Relaxed);
        self.until.store(until_micros, Relaxed);
    }

    /// The run ended before its time.
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

    /// Whether there is nobody left to publish for, or no sense in it.
    pub fn is_over(&self) -> bool {
        self.is_over.load(Relaxed) || self.counters.ended.load(Relaxed) >= self.stream_count()
    }

    pub fn stream_count(&self) -> u64 {
        self.settings.stream_count as u64
    }
}
