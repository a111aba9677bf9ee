//! `[delivery]`: flush and conflation of topics without a policy of their own.

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
    /// The events of one tick to send.
    #[serde(deserialize_with = "units::word")]
    pub conflate: Conflate,
}
