//! `[hub]`: how large the hub may grow and on how many threads it runs. What one
//! stream or one publisher may do has sections of its own.

use serde::Deserialize;

use super::units;

/// Bounds of the hub as a whole.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a [hub] section")]
pub struct HubLimits {
    /// Partitions: a power of two, 1 to 256, the same on every instance of a cluster
    /// and for as long as its cursors live.
    #[serde(deserialize_with = "units::count")]
    pub partitions: u16,
    /// Threads that the hub owns and its partitions run on, 1 to `partitions`.
    #[serde(deserialize_with = "units::count")]
    pub threads: usize,
    /// Streams open at once; past it a new one is refused with `at_capacity`.
    #[serde(deserialize_with = "units::count")]
    pub max_connections: usize,
    /// Topics and patterns that one stream may name.
    #[serde(deserialize_with = "units::count")]
    pub max_topics_per_stream: usize,
    /// Topics without history that the hub remembers as tombstones.
    #[serde(deserialize_with = "units::count")]
    pub max_idle_topics: usize,
}
