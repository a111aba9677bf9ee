//! `[publish]`: limits of publishers, their wait for a publish permit, and the idempotency window.

use std::time::Duration;

use serde::Deserialize;

use super::units;

/// Bounds of publishing.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a [publish] section")]
pub struct Publish {
    /// Bytes of one event's data, 1 to 16 MiB; more is refused with 413.
    #[serde(deserialize_with = "units::size")]
    pub max_payload: usize,
    /// Publishes admitted per partition and not yet delivered to every worker.
    #[serde(deserialize_with = "units::count")]
    pub max_pending: usize,
    /// How long a publish waits for a place before it is refused with `at_capacity`.
    #[serde(deserialize_with = "units::duration")]
    pub max_wait: Duration,
    /// How long a publish with an id is remembered; zero remembers none.
    #[serde(deserialize_with = "units::duration")]
    pub idempotency_window: Duration,
    /// Ids remembered at once; past it a publish with a new id is refused.
    #[serde(deserialize_with = "units::count")]
    pub max_remembered_ids: usize,
}
