//! `[fanout]`: how events reach an author's followers.

use serde::Deserialize;

use super::units;

/// Follower fan-out.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a [fanout] section")]
pub struct FanOut {
    /// Above this number of followers, mode `auto` publishes once and followers pull.
    #[serde(deserialize_with = "units::count")]
    pub pull_above: usize,
    /// Followers resolved and handed to the partitions at once, 1 to 65,536.
    #[serde(deserialize_with = "units::count")]
    pub chunk: usize,
    /// Fan-outs running at once, 1 to 1,024; they take turns by chunks.
    #[serde(deserialize_with = "units::count")]
    pub max_running: usize,
    /// Fan-outs running or waiting; further ones are refused with `at_capacity`.
    #[serde(deserialize_with = "units::count")]
    pub max_pending: usize,
    /// Followers recorded for fan-outs with an id within `publish.idempotency_window`; further
    /// fan-outs are refused.
    #[serde(deserialize_with = "units::count")]
    pub max_remembered: usize,
}
