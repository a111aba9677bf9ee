//! The rows in the OpenMetrics text format, for Prometheus. Each answer has its own registry, so
//! several hubs in one process stay apart.

use std::fmt;

use hdrhistogram::Histogram;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet, text},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};

use super::table::{Row, Value};

/// The text of a scrape.
pub(crate) fn render(rows: Vec<Row>) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape(rows)));
    let mut out = String::new();
    text::encode(&mut out, &registry).expect("a String takes any text");
    out
}

struct Scrape(Vec<Row>);

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|row| row.metric)).finish()
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        self.0.iter().try_for_each(|row| encode(&mut encoder, row))
    }
}

fn encode(encoder: &mut DescriptorEncoder, row: &Row) -> fmt::Result {
    let kind = match row.value {
        Value::Counter(_) | Value::Labelled(..) => MetricType::Counter,
        Value::Gauge(_) | Value::Seconds(_) => MetricType::Gauge,
        Value::Histogram { .. } => MetricType::Histogram,
    };
    let mut metric = encoder.encode_descriptor(row.metric, row.help, None, kind)?;
    match &row.value {
        Value::Counter(count) => ConstCounter::new(*count).encode(metric),
        Value::Gauge(level) => ConstGauge::new(*level).encode(metric),
        Value::Seconds(seconds) => ConstGauge::new(*seconds).encode(metric),
        Value::Labelled(label, counts) => counts.iter().try_for_each(|(value, count)| {
            ConstCounter::new(*count).encode(metric.encode_family(&[(*label, *value)])?)
        }),
        Value::Histogram { recorded, bounds, unit } => {
            let sum = recorded
                .iter_recorded()
                .map(|value| value.value_iterated_to() as f64 * value.count_at_value() as f64);
            let (sum, buckets) = (sum.sum::<f64>() / unit, buckets(recorded, bounds, *unit));
            metric.encode_histogram::<NoLabelSet>(sum, recorded.len(), &buckets, None)
        }
    }
}

/// The upper bound and the count of each bucket, not cumulated.
fn buckets(recorded: &Histogram<u64>, bounds: &[f64], unit: f64) -> Vec<(f64, u64)> {
    let mut below = 0;
    let bounds = bounds.iter().copied().chain([f64::INFINITY]);
    let bucket = |bound: f64| {
        // The cast saturates for the last bucket, so it holds the rest.
        let through = recorded.count_between(0, (bound * unit) as u64);
        (bound, through.saturating_sub(std::mem::replace(&mut below, through)))
    };
    bounds.map(bucket).collect()
}
