//! The table of all metrics: the one list behind `/stats` and `/metrics`.

use std::sync::atomic::Ordering;

use fanfare_core::{access::MayOperate, cluster::ClusterStatus};
use hdrhistogram::Histogram;

use super::{DiskGauges, Metrics, WorkerMetrics};
use crate::process::Process;

/// Upper bounds of the latency buckets, in seconds.
const LATENCY_BUCKETS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Upper bounds of the buckets of events in a batch.
const BATCH_BUCKETS: &[f64] = &[1.0, 2.0, 5.0, 10.0, 25.0, 100.0, 250.0, 1000.0, 10_000.0];

/// Upper bounds of the buckets of a stream's duration, in seconds.
const DURATION_BUCKETS: &[f64] = &[1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0];

const MICROS: f64 = 1_000_000.0;
const MILLIS: f64 = 1000.0;

/// One row: a metric, and its key in `/stats` if it has one.
#[cfg_attr(not(feature = "metrics"), allow(dead_code, reason = "for `/metrics`"))]
pub(crate) struct Row {
    /// The Prometheus name; counters get `_total` from the encoder.
    pub metric: &'static str,
    pub help: &'static str,
    pub stat: Option<&'static str>,
    pub value: Value,
}

/// The value of a metric.
#[cfg_attr(not(feature = "metrics"), allow(dead_code, reason = "for `/metrics`"))]
pub(crate) enum Value {
    Counter(u64),
    Gauge(i64),
    Seconds(f64),
    /// Counters of one metric, by the value of a label.
    Labelled(&'static str, Vec<(&'static str, u64)>),
    /// Divided by `unit`, recorded values have the metric's own unit.
    Histogram {
        recorded: Histogram<u64>,
        bounds: &'static [f64],
        unit: f64,
    },
}

/// Values from outside of [`Metrics`].
#[derive(Debug)]
pub(crate) struct Gauges {
    pub connections: usize,
    pub history_bytes: usize,
    pub request_bytes: usize,
    pub replays: usize,
    pub idle_topic_bytes: usize,
    pub remembered_bytes: usize,
    pub cluster: ClusterStatus,
    /// The log on disk, if there is one.
    pub disk: Option<DiskGauges>,
    pub process: Process,
}

impl Metrics {
    /// The current value of every metric.
    pub fn rows(&self, gauges: &Gauges, _: MayOperate) -> Vec<Row> {
        let workers = self.workers.lock().clone();
        let sum = |counter: fn(&WorkerMetrics) -> u64| -> u64 {
            workers.iter().map(|worker| counter(worker)).sum()
        };
        let level = |gauge: fn(&WorkerMetrics) -> i64| -> i64 {
            workers.iter().map(|worker| gauge(worker)).sum()
        };
        let merged = |part: fn(&WorkerMetrics) -> &super::SharedHistogram| {
            let mut all = super::histogram();
            for worker in &workers {
                all.add(&*part(worker).lock()).expect("an auto-resizing histogram takes all");
            }
            all
        };
        let row = |metric, stat: &'static str, value, help| {
            let stat = Some(stat).filter(|stat| !stat.is_empty());
            Row { metric, help, stat, value }
        };
        let closed = self.closed.lock().iter().map(|(reason, count)| (*reason, *count)).collect();
        let dropped = vec![
            ("slow", sum(|worker| worker.dropped_slow.load(Ordering::Relaxed))),
            ("rate", sum(|worker| worker.dropped_rate.load(Ordering::Relaxed))),
        ];
        let replays = vec![
            ("complete", self.replays_complete.load(Ordering::Relaxed)),
            ("gap", self.replays_gap.load(Ordering::Relaxed)),
        ];
        let topics: usize = self.topics.iter().map(|count| count.load(Ordering::Relaxed)).sum();
        let refills = self.refills.iter().map(|count| count.load(Ordering::Relaxed)).sum();
        let durations = self.durations.lock().clone();
        let latencies = merged(|worker| &worker.latencies);
        let batches = merged(|worker| &worker.batches);
        let histogram = |recorded, bounds, unit| Value::Histogram { recorded, bounds, unit };
        let mut rows = vec![
            row(
                "fanfare_connections",
                "connections",
                Value::Gauge(gauges.connections as i64),
                "Streams open now",
            ),
            row(
                "fanfare_connections_opened",
                "",
                Value::Counter(self.opened.load(Ordering::Relaxed)),
                "Streams opened",
            ),
            row(
                "fanfare_raw_streams_opened",
                "",
                Value::Counter(self.opened_raw.load(Ordering::Relaxed)),
                "Streams opened on the bare socket",
            ),
            row(
                "fanfare_polls",
                "",
                Value::Counter(self.polls.load(Ordering::Relaxed)),
                "Polls among the opened streams",
            ),
            row(
                "fanfare_connections_closed",
                "",
                Value::Labelled("reason", closed),
                "Streams closed, by reason",
            ),
            row(
                "fanfare_connection_duration_seconds",
                "",
                histogram(durations, DURATION_BUCKETS, MILLIS),
                "How long closed streams were open",
            ),
            row(
                "fanfare_topics",
                "topics",
                Value::Gauge(topics as i64),
                "Topics with events in history, or remembered",
            ),
            row(
                "fanfare_subscriptions",
                "subscriptions",
                Value::Gauge(level(|worker| worker.subscriptions.load(Ordering::Relaxed))),
                "Topics and patterns of the streams open now",
            ),
            row(
                "fanfare_events_published",
                "published",
                Value::Counter(self.published.load(Ordering::Relaxed)),
                "Events published",
            ),
            row(
                "fanfare_events_delivered",
                "delivered",
                Value::Counter(sum(|worker| worker.delivered.load(Ordering::Relaxed))),
                "Events written to streams",
            ),
            row(
                "fanfare_events_conflated",
                "conflated",
                Value::Counter(sum(|worker| worker.conflated.load(Ordering::Relaxed))),
                "Events superseded by a newer one before they left",
            ),
            row(
                "fanfare_events_dropped",
                "dropped",
                Value::Labelled("reason", dropped),
                "Events dropped from a stream, replaced by a gap",
            ),
            row(
                "fanfare_delivery_latency_seconds",
                "latencyMs",
                histogram(latencies, LATENCY_BUCKETS, MICROS),
                "From publish to socket write, of the oldest event of each write",
            ),
            row(
                "fanfare_batch_events",
                "",
                histogram(batches, BATCH_BUCKETS, 1.0),
                "Events of a topic sent together",
            ),
            row(
                "fanfare_replays",
                "",
                Value::Labelled("result", replays),
                "Streams resumed, completely or with a gap",
            ),
            row(
                "fanfare_access_refusals",
                "accessRefusals",
                Value::Labelled("reason", self.refusals.all()),
                "Requests refused by access control, by reason",
            ),
            row(
                "fanfare_outbox_bytes",
                "outboxBytes",
                Value::Gauge(level(|worker| worker.unsent_bytes.load(Ordering::Relaxed))),
                "Bytes waiting for slow clients",
            ),
            row(
                "fanfare_request_bytes",
                "requestBytes",
                Value::Gauge(gauges.request_bytes as i64),
                "Bytes of request bodies and unread answers",
            ),
            row(
                "fanfare_history_bytes",
                "historyBytes",
                Value::Gauge(gauges.history_bytes as i64),
                "Bytes of history, and of its topics",
            ),
            row(
                "fanfare_idle_topic_bytes",
                "idleTopicBytes",
                Value::Gauge(gauges.idle_topic_bytes as i64),
                "Bytes of topics remembered without events",
            ),
            row(
                "fanfare_remembered_id_bytes",
                "rememberedIdBytes",
                Value::Gauge(gauges.remembered_bytes as i64),
                "Bytes of remembered ids of publishes and fan-outs",
            ),
            row(
                "fanfare_replays_in_flight",
                "replaysInFlight",
                Value::Gauge(gauges.replays as i64),
                "Streams in a replay longer than a page",
            ),
            row(
                "fanfare_actor_panics",
                "actorPanics",
                Value::Counter(self.actor_panics.load(Ordering::Relaxed)),
                "Actors that panicked and were rebuilt or ended",
            ),
            row(
                "fanfare_bridge_up",
                "",
                Value::Gauge(i64::from(gauges.cluster.is_up)),
                "Whether the link to other instances is up",
            ),
            row(
                "fanfare_bridge_reconnects",
                "",
                Value::Counter(gauges.cluster.reconnects),
                "How often the link was lost",
            ),
            row(
                "fanfare_bridge_rejected_messages",
                "",
                Value::Counter(gauges.cluster.rejected),
                "Messages in Redis skipped for want of a valid signature",
            ),
            row(
                "fanfare_bridge_history_bytes",
                "",
                Value::Gauge(gauges.cluster.history_bytes as i64),
                "Bytes of history in Redis, of all partitions",
            ),
            row(
                "fanfare_bridge_refills",
                "",
                Value::Counter(refills),
                "How often a partition caught up with its log in Redis",
            ),
            row(
                "fanfare_bridge_lag_seconds",
                "",
                Value::Seconds(gauges.cluster.lag_ms / MILLIS),
                "Round trip of the last probe",
            ),
            row(
                "process_resident_memory_bytes",
                "residentBytes",
                Value::Gauge(gauges.process.resident_bytes as i64),
                "Resident memory",
            ),
            row(
                "process_open_fds",
                "openFiles",
                Value::Gauge(gauges.process.open_files as i64),
                "Open file descriptors",
            ),
        ];
        rows.extend(gauges.disk.iter().flat_map(|disk| self.disk.rows(disk)));
        rows
    }
}
