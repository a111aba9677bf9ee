//! Reports of opened and closed streams to the application. Its function runs on a thread of its
//! own: it blocks no worker, and its panics end no stream.
//!
//! Bounds: [`MAX_WAITING`] reports and [`MAX_WAITING_BYTES`] wait. Past either, reports are dropped,
//! and the next one tells their number.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::Duration,
};

use fanfare_core::cluster::StreamInfo;

/// Reports waiting for the application: some 20 MiB of usual ones.
const MAX_WAITING: usize = 65_536;

/// Bytes of the waiting reports. A client chooses the names of its topics: a report can have 25 KiB.
const MAX_WAITING_BYTES: usize = 64 * 1024 * 1024;

/// A stream of this instance opened or closed, see
/// [`HubBuilder::on_stream`](crate::HubBuilder::on_stream).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StreamReport {
    /// The stream's client, user, opening time and topics: at its opening, or at its end.
    pub stream: StreamInfo,
    pub change: StreamChange,
    /// Reports dropped before this one: the function was slower than the streams for too long.
    /// `Hub::streams` lists the open streams.
    pub missed: u64,
}

/// The change of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum StreamChange {
    Opened,
    #[non_exhaustive]
    Closed {
        /// The reason of its `shutdown`, or `client`: the client closed it.
        reason: &'static str,
        duration: Duration,
        /// Events sent.
        events: u64,
    },
}

/// The application's function.
pub(crate) type OnStream = Box<dyn FnMut(StreamReport) + Send>;

/// The way to the application's function.
#[derive(Debug)]
pub(crate) struct StreamReports {
    sender: SyncSender<StreamReport>,
    waiting_bytes: Arc<AtomicUsize>,
    missed: AtomicU64,
}

impl StreamReports {
    /// Starts the thread. It ends after the last report, when this is dropped.
    pub fn start(on_stream: OnStream) -> io::Result<Self> {
        let (sender, reports) = sync_channel(MAX_WAITING);
        let thread = std::thread::Builder::new().name("fanfare-on-stream".to_owned());
        let waiting_bytes = Arc::<AtomicUsize>::default();
        let waiting = waiting_bytes.clone();
        thread.spawn(move || run(on_stream, &reports, &waiting))?;
        Ok(Self { sender, waiting_bytes, missed: AtomicU64::new(0) })
    }

    /// Reports a change. Never waits.
    pub fn report(&self, stream: StreamInfo, change: StreamChange) {
        let missed = self.missed.swap(0, Ordering::Relaxed);
        let report = StreamReport { stream, change, missed };
        let bytes = bytes(&report);
        let before = self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes > MAX_WAITING_BYTES || self.sender.try_send(report).is_err() {
            self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.missed.fetch_add(missed + 1, Ordering::Relaxed);
        }
    }
}

fn bytes(report: &StreamReport) -> usize {
    let StreamInfo { client_id, user, topics, .. } = &report.stream;
    let topics: usize = topics.iter().map(|topic| size_of::<String>() + topic.len()).sum();
    size_of::<StreamReport>() + client_id.len() + user.as_ref().map_or(0, String::len) + topics
}

fn run(mut on_stream: OnStream, reports: &Receiver<StreamReport>, waiting_bytes: &AtomicUsize) {
    while let Ok(report) = reports.recv() {
        waiting_bytes.fetch_sub(bytes(&report), Ordering::Relaxed);
        // A panicking function may work for the next stream.
        if catch_unwind(AssertUnwindSafe(|| on_stream(report))).is_err() {
            tracing::error!("the application's function for streams panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn info(number: usize) -> StreamInfo {
        StreamInfo::new(number.to_string(), 0)
    }

    #[test]
    fn a_blocked_function_delays_nobody_and_learns_the_number_of_dropped_reports() {
        let (go, gate) = mpsc::channel::<()>();
        let (seen, all) = mpsc::channel();
        let on_stream = move |report: StreamReport| {
            // The sender is dropped once the gate is open for good.
            let _ = gate.recv();
            let _ = seen.send((report.stream.client_id, report.missed));
        };
        let reports = StreamReports::start(Box::new(on_stream)).expect("a thread");
        let count = MAX_WAITING as u64 + 100;
        for _ in 0..count {
            reports.report(info(0), StreamChange::Opened);
        }
        drop(go);
        all.recv().expect("the first report makes room");
        reports.report(info(0), StreamChange::Opened);
        let (mut received, mut missed) = (1, 0);
        while received + missed < count + 1 {
            missed += all.recv().expect("a report").1;
            received += 1;
        }
        assert!((99..=100).contains(&missed), "{missed}");
    }

    #[test]
    fn large_reports_are_bounded_in_bytes() {
        let (go, gate) = mpsc::channel::<()>();
        let on_stream = move |_| {
            let _ = gate.recv();
        };
        let reports = StreamReports::start(Box::new(on_stream)).expect("a thread");
        for _ in 0..MAX_WAITING_BYTES / 25_000 * 2 {
            let mut stream = info(0);
            stream.topics = vec!["x".repeat(256); StreamInfo::MAX_TOPICS];
            reports.report(stream, StreamChange::Opened);
            assert!(reports.waiting_bytes.load(Ordering::Relaxed) <= MAX_WAITING_BYTES);
        }
        assert!(reports.missed.load(Ordering::Relaxed) > 0);
        drop(go);
    }

    #[test]
    fn a_panic_costs_one_report() {
        let (seen, all) = mpsc::channel();
        let on_stream = move |report: StreamReport| {
            assert_ne!(report.stream.client_id, "0", "asked to");
            let _ = seen.send(report.stream.client_id);
        };
        let reports = StreamReports::start(Box::new(on_stream)).expect("a thread");
        reports.report(info(0), StreamChange::Opened);
        reports.report(info(1), StreamChange::Opened);
        assert_eq!(all.recv().expect("the second report"), "1");
    }
}
