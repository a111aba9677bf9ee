//! `[stream]`: limits and times of every stream. Its unread bytes are in `[outbox]`, its flush in
//! `[delivery]`.

use std::time::Duration;

use fanfare_core::policy::Rate;
use serde::Deserialize;

use super::{rate::RateTable, units};

/// Heartbeat, reconnection, lifetime, rate and batch bounds of a stream.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a [stream] section")]
pub struct Stream {
    /// Quiet time before a heartbeat comment.
    #[serde(deserialize_with = "units::duration")]
    pub heartbeat: Duration,
    /// Least value of a stream's random `retry:`.
    #[serde(deserialize_with = "units::duration")]
    pub retry_min: Duration,
    /// Greatest value of a stream's random `retry:`, at least `retry_min`.
    #[serde(deserialize_with = "units::duration")]
    pub retry_max: Duration,
    /// How long a write may make no progress before the client counts as gone.
    #[serde(deserialize_with = "units::duration")]
    pub write_timeout: Duration,
    /// The maximum age of a stream; its client then reconnects. Zero turns the limit off.
    #[serde(deserialize_with = "units::duration")]
    pub max_lifetime: Duration,
    /// Most that is added to `max_lifetime` at random, per stream.
    #[serde(deserialize_with = "units::duration")]
    pub max_lifetime_jitter: Duration,
    /// Events sent to one connection.
    #[serde(with = "RateTable")]
    pub rate: Rate,
    /// Events filling a topic's pending batch: it then leaves before its tick.
    #[serde(deserialize_with = "units::count")]
    pub max_batch_events: usize,
    /// Bytes filling a topic's pending batch: it then leaves before its tick.
    #[serde(deserialize_with = "units::size")]
    pub max_batch_bytes: usize,
}
