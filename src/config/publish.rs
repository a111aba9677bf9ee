//! `[publish]`: limits of publishers, their wait for a publish permit, and the idempotency window.

use std::time::Duration;

use serde::Deserialize;

use super::units;

/// Limits of publishers.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a [publish] section")]
#[non_exhaustive]
pub struct Publish {
    /// Bytes of one event's data, 1 to 16 MiB; more is refused with 413.
    #[serde(deserialize_with = "units::size")]
    pub max_payload: usize,
    /// Publish permits of each partition, 1 to 1,000,000. An event holds one until every worker has
    /// taken it.
    #[serde(deserialize_with = "units::count")]
    pub max_pending: usize,
    /// Longest wait of a publish for a permit, up to 1 h; then it is refused with `at_capacity`.
    /// Zero refuses at once.
    #[serde(deserialize_with = "units::duration")]
    pub max_wait: Duration,
    /// Longest time without a byte of an NDJSON body, 100 ms to 1 h; then the hub ends the request.
    #[serde(deserialize_with = "units::duration")]
    pub max_idle: Duration,
    /// How long the hub remembers the id of a publish, at most 365 days; zero remembers none.
    #[serde(deserialize_with = "units::duration")]
    pub idempotency_window: Duration,
    /// Bytes of remembered ids, 1 byte to 1 PiB. A publisher over HTTP may fill as many as it leaves
    /// free; then a new id is refused with `too_many_ids`.
    #[serde(deserialize_with = "units::size")]
    pub max_remembered_bytes: usize,
}
