//! `[stream]`: times and limits of every stream. The bound on unread bytes is in `[outbox]`, flush
//! in `[delivery]`.

use std::time::Duration;

use fanfare_core::policy::Rate;
use serde::Deserialize;

use super::{rate::RateTable, units};

/// Heartbeat, reconnection, lifetime, rate and batch bounds of a stream.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a [stream] section")]
#[non_exhaustive]
pub struct Stream {
    /// Quiet time before a heartbeat comment, 100 ms to 1 h.
    #[serde(deserialize_with = "units::duration")]
    pub heartbeat: Duration,
    /// Shortest random `retry:` of a stream, 1 ms to 1 h.
    #[serde(deserialize_with = "units::duration")]
    pub retry_min: Duration,
    /// Longest random `retry:` of a stream, `retry_min` to 1 h.
    #[serde(deserialize_with = "units::duration")]
    pub retry_max: Duration,
    /// Longest time of a write without progress, 100 ms to 1 h. Past it the client counts as gone.
    #[serde(deserialize_with = "units::duration")]
    pub write_timeout: Duration,
    /// Longest life of a stream, 100 ms to 365 days; its client then reconnects. Zero is no limit.
    #[serde(deserialize_with = "units::duration")]
    pub max_lifetime: Duration,
    /// Longest random extension of `max_lifetime`, per stream. Zero if `max_lifetime` is zero.
    #[serde(deserialize_with = "units::duration")]
    pub max_lifetime_jitter: Duration,
    /// The rate limit of one stream, over all its topics. Zero events per second is no limit.
    #[serde(with = "RateTable")]
    pub rate: Rate,
    /// Topics added to or removed from one open stream a second, in the long run; further changes are
    /// refused with 429 `rate_limited`. At once as many as `hub.max_topics_per_stream`. Zero is no
    /// limit.
    #[serde(deserialize_with = "units::count")]
    pub topic_changes_per_second: u32,
    /// Events filling a topic's pending batch, at least 1. A full batch leaves before its tick.
    #[serde(deserialize_with = "units::count")]
    pub max_batch_events: usize,
    /// Bytes filling a topic's pending batch, at least 1. A full batch leaves before its tick.
    #[serde(deserialize_with = "units::size")]
    pub max_batch_bytes: usize,
}
