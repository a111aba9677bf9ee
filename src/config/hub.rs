//! `[hub]`: the size of the hub and its threads. Limits of one stream or one publisher have their
//! own sections.

use fanfare_core::subscription::StreamLimits;
use serde::Deserialize;

use super::units;

/// Bounds of the hub as a whole.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a [hub] section")]
#[non_exhaustive]
pub struct HubLimits {
    /// Partitions: a power of two, 1 to 256, the same on every instance of a cluster. A change
    /// makes all older cursors invalid.
    #[serde(deserialize_with = "units::count")]
    pub partitions: u16,
    /// The hub's own threads for its partitions, 1 to `partitions`.
    #[serde(deserialize_with = "units::count")]
    pub threads: usize,
    /// Open streams, 1 to 10,000,000; further ones are refused with `at_capacity`.
    #[serde(deserialize_with = "units::count")]
    pub max_connections: usize,
    /// Topics and patterns of one stream, at least 1.
    #[serde(deserialize_with = "units::count")]
    pub max_topics_per_stream: usize,
    /// Patterns of one stream, at least 1. Every pattern costs memory on its worker and in every
    /// partition.
    #[serde(deserialize_with = "units::count")]
    pub max_patterns_per_stream: usize,
    /// Event types of one stream (`types`), at least 1. Every event of its topics is compared with
    /// them.
    #[serde(deserialize_with = "units::count")]
    pub max_types_per_stream: usize,
    /// Bytes of all request bodies and unread answers, at least 1 MiB; further ones are refused
    /// with `at_capacity`.
    #[serde(deserialize_with = "units::size")]
    pub max_request_bytes: usize,
    /// Topics without history, remembered by name and last sequence. It bounds the memory of
    /// publishes to ever new topics.
    #[serde(deserialize_with = "units::count")]
    pub max_idle_topics: usize,
    /// Replays longer than a page at the same time. Past it, a stream gets its first pages and ends
    /// with `capacity`; its client returns and continues.
    #[serde(deserialize_with = "units::count")]
    pub max_replays: usize,
}

impl HubLimits {
    pub(crate) fn stream_limits(&self) -> StreamLimits {
        StreamLimits {
            max_topics: self.max_topics_per_stream,
            max_patterns: self.max_patterns_per_stream,
            max_types: self.max_types_per_stream,
        }
    }
}
