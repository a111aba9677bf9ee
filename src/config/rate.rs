//! A rate limit as it is written: so many events a second, so many at once. Who is
//! limited is said where it stands: each connection, or each stream's share of the topics
//! under a policy.

use serde::Deserialize;

use super::units;

/// A token bucket of `burst` events, refilled by `events_per_second`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a rate like { events_per_second = 100, burst = 200 }")]
pub struct Rate {
    /// Events a second in the long run; 0 turns the limit off.
    #[serde(deserialize_with = "units::count")]
    pub events_per_second: u32,
    /// Events that may leave at once; at least 1 while the limit is on.
    #[serde(deserialize_with = "units::count")]
    pub burst: u32,
}
