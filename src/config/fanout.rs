//! `[fanout]`: the delivery of events to an author's followers.

use serde::Deserialize;

use super::units;

/// Follower fan-out.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a [fanout] section")]
#[non_exhaustive]
pub struct FanOut {
    /// Above this number of followers, mode `auto` is pull, else push.
    #[serde(deserialize_with = "units::count")]
    pub pull_above: usize,
    /// Followers read and handed to the partitions at once, 1 to 65,536.
    #[serde(deserialize_with = "units::count")]
    pub chunk: usize,
    /// Fan-outs running at once, 1 to 1,024; the others wait in order.
    #[serde(deserialize_with = "units::count")]
    pub max_running: usize,
    /// Fan-outs running or waiting, 1 to 1,000,000; further ones are refused with `at_capacity`.
    #[serde(deserialize_with = "units::count")]
    pub max_pending: usize,
    /// Bytes of followers remembered for fan-outs with an id, within `publish.idempotency_window`, 1
    /// byte to 1 PiB. A publisher over HTTP may fill as many as it leaves free; then a fan-out with
    /// an id is refused with `too_many_ids`. Redis, if configured, remembers them itself, without
    /// this bound.
    #[serde(deserialize_with = "units::size")]
    pub max_remembered_bytes: usize,
}
