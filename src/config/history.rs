//! `[history]`: the stored events for resumes. A topic's own `history` overrides `events` and
//! `ttl`; `max_bytes` and `max_idle_bytes` are for all topics together.

use std::time::Duration;

use serde::Deserialize;

use super::units;

/// The bounds of history. The first bound reached drops an event.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a [history] section")]
#[non_exhaustive]
pub struct History {
    /// Bytes of history of the whole hub, 0 to 1 PiB; past them the hub drops its oldest events.
    #[serde(deserialize_with = "units::size")]
    pub max_bytes: usize,
    /// Bytes of topics remembered without events, of the whole hub, 0 to 1 PiB. Past them the hub
    /// forgets the longest idle topics.
    #[serde(deserialize_with = "units::size")]
    pub max_idle_bytes: usize,
    /// Events stored per topic; 0 stores none.
    #[serde(deserialize_with = "units::count")]
    pub events: usize,
    /// The age of an event at its expiry, at most 365 days; zero stores none.
    #[serde(deserialize_with = "units::duration")]
    pub ttl: Duration,
}
