//! `[history]`: how far back a stream can resume. A topic's own `history` overrides
//! `events` and `ttl`; `max_bytes` holds for all topics together.

use std::time::Duration;

use serde::Deserialize;

use super::units;

/// The history kept for replay.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a [history] section")]
pub struct History {
    /// Bytes of history of the whole hub; past them the oldest events go first.
    #[serde(deserialize_with = "units::size")]
    pub max_bytes: usize,
    /// Events kept per topic; 0 keeps none.
    #[serde(deserialize_with = "units::count")]
    pub events: usize,
    /// The age of an event at its expiry; zero keeps none.
    #[serde(deserialize_with = "units::duration")]
    pub ttl: Duration,
}
