//! `[fanout]`: how events reach an author's followers.

use serde::Deserialize;

use super::units;

/// Follower fan-out.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a [fanout] section")]
pub struct FanOut {
    /// Followers past which mode `auto` publishes once and lets followers pull.
    #[serde(deserialize_with = "units::count")]
    pub pull_above: usize,
    /// Followers that are resolved and handed to the partitions at once, 1 to 65,536.
    #[serde(deserialize_with = "units::count")]
    pub chunk: usize,
    /// Fan-outs that run at once, 1 to 1,024; they take turns by chunks.
    #[serde(deserialize_with = "units::count")]
    pub max_running: usize,
    /// Fan-outs that run or wait; past it they are refused with `at_capacity`.
    #[serde(deserialize_with = "units::count")]
    pub max_pending: usize,
    /// Followers that fan-outs with an id are remembered to have reached, of those since
    /// `publish.idempotency_window`; past it they are refused.
    #[serde(deserialize_with = "units::count")]
    pub max_remembered: usize,
}
