//! `[redis]`: the Redis linking this instance to others.

use std::time::Duration;

use serde::Deserialize;

use super::units;

/// The location of Redis, and its use.
#[derive(Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a [redis] section")]
pub struct Redis {
    /// `redis://`, `rediss://`, `redis+sentinel://` or `redis+cluster://`; empty for a hub on
    /// its own.
    pub url: String,
    /// Prefix of all keys and channels: 1 to 100 letters, digits, `_`, `-`, `.` or `:`.
    pub prefix: String,
    /// A file of accepted certificate authorities (PEM); empty for the system's.
    pub tls_ca: String,
    /// How long Redis may take to answer before it counts as away.
    #[serde(deserialize_with = "units::duration")]
    pub timeout: Duration,
    /// How often each connection is tried out.
    #[serde(deserialize_with = "units::duration")]
    pub probe: Duration,
    /// How long a topic stays subscribed after its last stream.
    #[serde(deserialize_with = "units::duration")]
    pub interest_grace: Duration,
}

/// Without the URL: it may hold a password.
impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis")
            .field("prefix", &self.prefix)
            .field("timeout", &self.timeout)
            .field("probe", &self.probe)
            .field("interest_grace", &self.interest_grace)
            .finish_non_exhaustive()
    }
}
