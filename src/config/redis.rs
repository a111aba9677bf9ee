//! `[redis]`: the Redis linking this instance to others.

use std::time::Duration;

use serde::Deserialize;

use super::units;

/// The address of Redis, and its use.
#[derive(Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a [redis] section")]
#[non_exhaustive]
pub struct Redis {
    /// `redis://`, `rediss://`, `redis+sentinel://` or `redis+cluster://`. Empty for a single
    /// instance without Redis.
    pub url: String,
    /// Prefix of all keys and channels: 1 to 100 letters, digits, `_`, `-`, `.` or `:`.
    pub prefix: String,
    /// A file of accepted certificate authorities (PEM). Empty for the system's authorities.
    pub tls_ca: String,
    /// Bytes of history in Redis, of all partitions together: 1 MiB to 1 TiB. Past them Redis drops
    /// the oldest events.
    #[serde(deserialize_with = "units::size")]
    pub max_history_bytes: usize,
    /// How far the clocks of several nodes may differ, at most 1 h: a returning stream's time is
    /// moved back by it. Not used with a single server.
    #[serde(deserialize_with = "units::duration")]
    pub clock_margin: Duration,
    /// Time limit for an answer of Redis, 100 ms to 1 h. Past it Redis counts as unavailable.
    #[serde(deserialize_with = "units::duration")]
    pub timeout: Duration,
    /// Interval of the probes of each connection, 100 ms to 1 h.
    #[serde(deserialize_with = "units::duration")]
    pub probe: Duration,
    /// Time a topic stays subscribed in Redis after its last stream, at most 1 h.
    #[serde(deserialize_with = "units::duration")]
    pub interest_grace: Duration,
}

/// Hides the URL: it may hold a password.
impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis")
            .field("prefix", &self.prefix)
            .field("max_history_bytes", &self.max_history_bytes)
            .field("clock_margin", &self.clock_margin)
            .field("timeout", &self.timeout)
            .field("probe", &self.probe)
            .field("interest_grace", &self.interest_grace)
            .finish_non_exhaustive()
    }
}

impl Redis {
    /// The margin of the clocks: none with a single server.
    pub(crate) fn margin(&self) -> Duration {
        let has_several = self.url.contains("+sentinel://") || self.url.contains("+cluster://");
        if has_several { self.clock_margin } else { Duration::ZERO }
    }
}
