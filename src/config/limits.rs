//! `[limits]`: the share of one client address.

use serde::Deserialize;

use super::units;

/// Limits of each address; 0 is none. IPv6 addresses of one network (/64) are one address. Loopback
/// has no limits.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a [limits] section")]
#[non_exhaustive]
pub struct Limits {
    /// Open connections; further ones are answered 429 `too_many_connections` and closed. Only
    /// [`Server`](crate::Server) counts them.
    #[serde(deserialize_with = "units::count")]
    pub connections: usize,
    /// Open streams; further ones are refused with 429 `too_many_streams`.
    #[serde(deserialize_with = "units::count")]
    pub streams: usize,
    /// Requests a second, in the long run and at once; further ones are refused with 429
    /// `rate_limited`.
    #[serde(deserialize_with = "units::count")]
    pub requests_per_second: u32,
    /// Bytes of request bodies and unread answers; further ones are refused with 429
    /// `rate_limited`.
    #[serde(deserialize_with = "units::size")]
    pub request_bytes: usize,
    /// Open streams of each user with a grant; further ones are refused with 429
    /// `too_many_streams`.
    #[serde(deserialize_with = "units::count")]
    pub user_streams: usize,
    /// Published events a second of each user with a grant, in the long run and at once; further
    /// ones are refused with 429 `rate_limited`.
    #[serde(deserialize_with = "units::count")]
    pub user_publishes_per_second: u32,
    /// Addresses and networks of proxies, like `10.0.0.0/8`. Their word about the client's address
    /// (`Forwarded`, `X-Forwarded-For`) is believed.
    #[serde(deserialize_with = "units::list")]
    pub trusted_proxies: Vec<String>,
}
