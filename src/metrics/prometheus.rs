//! The counters as Prometheus reads them. Nothing global: a registry per answer.

use std::fmt;

use fanfare_core::cluster::ClusterStatus;
use hdrhistogram::Histogram;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeMetric, NoLabelSet, text},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};

use super::Snapshot;
use crate::process::Process;

/// Upper bounds of the latency buckets, in seconds.
const LATENCY_BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Upper bounds of the buckets of events in a batch.
const BATCH_BUCKETS: [f64; 9] = [1.0, 2.0, 5.0, 10.0, 25.0, 100.0, 250.0, 1000.0, 10_000.0];

/// Upper bounds of the buckets of a stream's duration, in seconds.
const DURATION_BUCKETS: [f64; 9] = [1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0];

const MICROS: f64 = 1_000_000.0;
const MILLIS: f64 = 1000.0;

/// What the answer is made of.
#[derive(Debug)]
pub(crate) struct Scrape {
    pub snapshot: Snapshot,
    pub connections: usize,
    pub history_bytes: usize,
    pub bridge: ClusterStatus,
    pub process: Process,
}

/// The answer to a scrape, in the OpenMetrics text format that Prometheus reads.
pub(crate) fn render(scrape: Scrape) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(scrape));
    let mut out = String::new();
    text::encode(&mut out, &registry).expect("a String takes any text");
    out
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let snapshot = &self.snapshot;
        let mut out = MetricsText(encoder);
        out.gauge("fanfare_connections", "Streams open now", self.connections as i64)?;
        out.counter("fanfare_connections_opened", "Streams opened", snapshot.opened)?;
        out.counter(
            "fanfare_raw_streams_opened",
            "Streams opened on the bare socket",
            snapshot.opened_raw,
        )?;
        let closed = snapshot.closed.iter().map(|(reason, count)| (*reason, *count));
        out.family(
            "fanfare_connections_closed",
            "Streams closed, by who or what ended them",
            "reason",
            closed.collect(),
        )?;
        out.histogram(
            "fanfare_connection_duration_seconds",
            "How long closed streams were open",
            &snapshot.durations,
            &DURATION_BUCKETS,
            MILLIS,
        )?;
        out.gauge(
            "fanfare_subscriptions",
            "Topics and patterns of the streams open now",
            snapshot.subscriptions,
        )?;
        out.gauge(
            "fanfare_topics",
            "Topics with events in history, or remembered",
            snapshot.topics as i64,
        )?;
        out.counter("fanfare_events_published", "Events published", snapshot.published)?;
        out.counter("fanfare_events_delivered", "Events written to streams", snapshot.delivered)?;
        out.counter(
            "fanfare_events_conflated",
            "Events that a newer one superseded before they left",
            snapshot.conflated,
        )?;
        out.family(
            "fanfare_events_dropped",
            "Events dropped from a stream, which got a gap",
            "reason",
            vec![("slow", snapshot.dropped_slow), ("rate", snapshot.dropped_rate)],
        )?;
        out.histogram(
            "fanfare_delivery_latency_seconds",
            "From publish to socket write, of the oldest event of each write",
            &snapshot.latencies,
            &LATENCY_BUCKETS,
            MICROS,
        )?;
        out.histogram(
            "fanfare_batch_events",
            "Events of a topic that left together",
            &snapshot.batches,
            &BATCH_BUCKETS,
            1.0,
        )?;
        out.gauge(
            "fanfare_outbox_bytes",
            "Bytes that wait for slow clients",
            snapshot.unsent_bytes,
        )?;
        out.family(
            "fanfare_replays",
            "Streams that resumed, with all they missed or with a gap",
            "result",
            vec![("complete", snapshot.replays_complete), ("gap", snapshot.replays_gap)],
        )?;
        out.gauge("fanfare_history_bytes", "Bytes of history", self.history_bytes as i64)?;
        out.counter(
            "fanfare_actor_panics",
            "Actors that panicked and were rebuilt or ended",
            snapshot.actor_panics,
        )?;
        out.gauge("fanfare_bridge_up", "Whether the bridge works", i64::from(self.bridge.is_up))?;
        out.counter(
            "fanfare_bridge_reconnects",
            "How often the link was lost",
            self.bridge.reconnects,
        )?;
        out.counter(
            "fanfare_bridge_refills",
            "How often a partition caught up with its log in Redis",
            snapshot.refills,
        )?;
        out.gauge(
            "fanfare_bridge_lag_seconds",
            "How long something sent around the bridge took",
            self.bridge.lag_ms / MILLIS,
        )?;
        out.gauge(
            "process_resident_memory_bytes",
            "Resident memory",
            self.process.resident_bytes as i64,
        )?;
        out.gauge("process_open_fds", "Open file descriptors", self.process.open_files as i64)
    }
}

/// Writes one metric a call.
struct MetricsText<'a>(DescriptorEncoder<'a>);

impl MetricsText<'_> {
    fn gauge(&mut self, name: &str, help: &str, value: impl EncodeGaugeValue) -> fmt::Result {
        let gauge = ConstGauge::new(value);
        gauge.encode(self.0.encode_descriptor(name, help, None, MetricType::Gauge)?)
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let counter = ConstCounter::new(value);
        counter.encode(self.0.encode_descriptor(name, help, None, MetricType::Counter)?)
    }

    fn family(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: Vec<(&'static str, u64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (value, count) in values {
            ConstCounter::new(count).encode(family.encode_family(&[(label, value)])?)?;
        }
        Ok(())
    }

    /// Values are divided by `unit`.
    fn histogram(
        &mut self,
        name: &str,
        help: &str,
        histogram: &Histogram<u64>,
        bounds: &[f64],
        unit: f64,
    ) -> fmt::Result {
        let mut below = 0;
        let mut buckets = Vec::with_capacity(bounds.len() + 1);
        for bound in bounds.iter().copied().chain([f64::INFINITY]) {
            // Saturates for the last, which holds the rest.
            let through = histogram.count_between(0, (bound * unit) as u64);
            buckets.push((bound, through.saturating_sub(below)));
            below = through;
        }
        let sum = histogram
            .iter_recorded()
            .map(|value| value.value_iterated_to() as f64 * value.count_at_value() as f64);
        let mut out = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        out.encode_histogram::<NoLabelSet>(sum.sum::<f64>() / unit, histogram.len(), &buckets, None)
    }
}
