//! `[delivery]`: flush and conflation of topics without their own policy.

use std::time::Duration;

use fanfare_core::policy::{Conflate, Flush};
use serde::Deserialize;

use super::units;

/// Defaults of the topic policies.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a [delivery] section")]
#[non_exhaustive]
pub struct Delivery {
    /// Time between two ticks, 1 ms to 1 h.
    #[serde(deserialize_with = "units::duration")]
    pub tick: Duration,
    /// The moment of a topic's flush.
    #[serde(deserialize_with = "units::word")]
    pub flush: Flush,
    /// The events of one tick to send: all, the newest, or the newest of each key.
    #[serde(deserialize_with = "units::word")]
    pub conflate: Conflate,
}
