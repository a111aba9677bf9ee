//! `/stats`: the table of counters for people and scripts.

use actix_web::{
    HttpRequest,
    web::{Data, Json},
};
use fanfare_core::cluster::ClusterStatus;
use hdrhistogram::Histogram;
use serde::{Serialize, Serializer, ser::SerializeMap};

use super::{operator::admit_operator, refusal::Refusal};
use crate::{
    clock::now,
    hub::Hub,
    metrics::{Row, Value},
};

/// Quantiles of a histogram in `/stats`, by their keys.
const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("p99.9", 0.999)];

/// The answer of `/stats`. Counters count since the start.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Stats {
    version: &'static str,
    uptime_seconds: u64,
    epoch: Option<String>,
    #[serde(flatten)]
    rows: StatRows,
    delivery: Defaults,
    bridge: ClusterStatus,
}

/// The policy of topics without their own: the latency added by the hub.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Defaults {
    flush: &'static str,
    tick_ms: u64,
}

/// The rows with a key in `/stats`.
struct StatRows(Vec<Row>);

impl Serialize for StatRows {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        for row in &self.0 {
            let Some(key) = row.stat else { continue };
            match &row.value {
                Value::Counter(count) => map.serialize_entry(key, count)?,
                Value::Gauge(level) => map.serialize_entry(key, level)?,
                Value::Seconds(seconds) => map.serialize_entry(key, seconds)?,
                Value::Labelled(_, counts) => map.serialize_entry(key, &Entries(counts))?,
                Value::Histogram { recorded, .. } => {
                    let quantiles = QUANTILES.map(|(key, at)| (key, millis_at(recorded, at)));
                    map.serialize_entry(key, &Entries(&quantiles))?;
                }
            }
        }
        map.end()
    }
}

/// Pairs as a JSON object.
struct Entries<'a, T>(&'a [(&'static str, T)]);

impl<T: Serialize> Serialize for Entries<'_, T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

/// A quantile of recorded microseconds, in milliseconds.
fn millis_at(recorded: &Histogram<u64>, quantile: f64) -> f64 {
    recorded.value_at_quantile(quantile) as f64 / 1000.0
}

/// `/stats`: every metric with a key there.
pub(crate) async fn stats(hub: Data<Hub>, request: HttpRequest) -> Result<Json<Stats>, Refusal> {
    let operator = admit_operator(&hub, &request).await?;
    let parts = hub.parts();
    let delivery = &parts.config.delivery;
    Ok(Json(Stats {
        version: env!("CARGO_PKG_VERSION"),
        uptime_seconds: now().saturating_duration_since(parts.started_at).as_secs(),
        epoch: parts.log.epoch().map(|epoch| epoch.to_string()),
        rows: StatRows(operator.rows()),
        delivery: Defaults {
            flush: delivery.flush.as_str(),
            tick_ms: delivery.tick.as_millis() as u64,
        },
        bridge: parts.instances.cluster.status(),
    }))
}
