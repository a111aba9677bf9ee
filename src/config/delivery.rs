//! `[delivery]`: when a topic's events leave and which of them, unless the topic's
//! policy says otherwise.

use std::time::Duration;

use fanfare_core::policy::{Conflate, Flush};
use serde::Deserialize;

use super::units;

/// Defaults of the topic policies.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a [delivery] section")]
pub struct Delivery {
    /// Time between two ticks, 1 ms to 1 h.
    #[serde(deserialize_with = "units::duration")]
    pub tick: Duration,
    /// When events leave.
    #[serde(deserialize_with = "units::word")]
    pub flush: Flush,
    /// Which events of one tick leave.
    #[serde(deserialize_with = "units::word")]
    pub conflate: Conflate,
}
