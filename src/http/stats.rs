//! `/stats` for people and `/metrics` for Prometheus: the same counters.

use actix_web::{
    HttpResponse,
    web::{Data, Json},
};
use fanfare_core::cluster::ClusterStatus;
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::{
    hub::Hub,
    metrics::{Scrape, render},
    process::Process,
};

/// The answer of `/stats`. Counters count since the start.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Stats {
    version: &'static str,
    uptime_seconds: u64,
    epoch: Option<String>,
    connections: usize,
    topics: usize,
    subscriptions: i64,
    published: u64,
    delivered: u64,
    conflated: u64,
    dropped: DroppedCounts,
    latency_ms: LatencyQuantiles,
    outbox_bytes: i64,
    history_bytes: usize,
    resident_bytes: u64,
    open_files: usize,
    actor_panics: u64,
    bridge: ClusterStatus,
}

/// Events dropped from streams that then got a `gap`.
#[derive(Debug, Serialize)]
struct DroppedCounts {
    slow: u64,
    rate: u64,
}

/// From publish to socket write, of the oldest event of each write.
#[derive(Debug, Serialize)]
struct LatencyQuantiles {
    p50: f64,
    p95: f64,
    p99: f64,
    #[serde(rename = "p99.9")]
    p999: f64,
}

impl LatencyQuantiles {
    fn of(micros: &Histogram<u64>) -> Self {
        let at = |quantile| micros.value_at_quantile(quantile) as f64 / 1000.0;
        Self { p50: at(0.5), p95: at(0.95), p99: at(0.99), p999: at(0.999) }
    }
}

/// Everything that is counted, now.
pub(crate) async fn stats(hub: Data<Hub>) -> Json<Stats> {
    let parts = hub.parts();
    let snapshot = parts.metrics.snapshot();
    let process = Process::now();
    Json(Stats {
        version: env!("CARGO_PKG_VERSION"),
        uptime_seconds: parts.started_at.elapsed().as_secs(),
        epoch: parts.log.epoch().map(|epoch| epoch.to_string()),
        connections: parts.open_streams(),
        topics: snapshot.topics,
        subscriptions: snapshot.subscriptions,
        published: snapshot.published,
        delivered: snapshot.delivered,
        conflated: snapshot.conflated,
        dropped: DroppedCounts { slow: snapshot.dropped_slow, rate: snapshot.dropped_rate },
        latency_ms: LatencyQuantiles::of(&snapshot.latencies),
        outbox_bytes: snapshot.unsent_bytes,
        history_bytes: parts.budget.used_bytes(),
        resident_bytes: process.resident_bytes,
        open_files: process.open_files,
        actor_panics: snapshot.actor_panics,
        bridge: parts.instances.cluster.status(),
    })
}

/// The same for Prometheus.
pub(crate) async fn metrics(hub: Data<Hub>) -> HttpResponse {
    let parts = hub.parts();
    let scrape = Scrape {
        snapshot: parts.metrics.snapshot(),
        connections: parts.open_streams(),
        history_bytes: parts.budget.used_bytes(),
        bridge: parts.instances.cluster.status(),
        process: Process::now(),
    };
    HttpResponse::Ok()
        .content_type("application/openmetrics-text; version=1.0.0; charset=utf-8")
        .body(render(scrape))
}
