//! `[stream]`: what holds for every stream, whatever its topics. What it may leave
//! unread is `[outbox]`; when events leave is `[delivery]`.

use std::time::Duration;

use fanfare_core::policy::Rate;
use serde::Deserialize;

use super::{rate::RateTable, units};

/// Heartbeat, reconnection, lifetime, rate and batch bounds of a stream.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a [stream] section")]
pub struct Stream {
    /// Quiet time after which a heartbeat comment is written.
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
    /// Age at which a stream is ended and its client told to return; zero is never.
    #[serde(deserialize_with = "units::duration")]
    pub max_lifetime: Duration,
    /// Most that is added to `max_lifetime` at random, per stream.
    #[serde(deserialize_with = "units::duration")]
    pub max_lifetime_jitter: Duration,
    /// Events that one connection may be sent.
    #[serde(with = "RateTable")]
    pub rate: Rate,
    /// Events of a topic's pending batch that make it leave before its tick.
    #[serde(deserialize_with = "units::count")]
    pub max_batch_events: usize,
    /// Bytes of a topic's pending batch that make it leave before its tick.
    #[serde(deserialize_with = "units::size")]
    pub max_batch_bytes: usize,
}
