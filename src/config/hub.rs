//! `[hub]`: the size of the hub and its threads. Limits of one stream or one publisher have
//! sections of their own.

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
    /// The hub's own threads for its partitions, 1 to `partitions`.
    #[serde(deserialize_with = "units::count")]
    pub threads: usize,
    /// Streams open at once; past it a new one is refused with `at_capacity`.
    #[serde(deserialize_with = "units::count")]
    pub max_connections: usize,
    /// Topics and patterns named by one stream.
    #[serde(deserialize_with = "units::count")]
    pub max_topics_per_stream: usize,
    /// Topics without history remembered as tombstones.
    #[serde(deserialize_with = "units::count")]
    pub max_idle_topics: usize,
}
