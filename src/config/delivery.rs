//! `[delivery]`: when a topic's events leave and which of them, unless the topic's
//! policy says otherwise.

use std::time::Duration;

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

/// When the events of a topic leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flush {
    /// At the next tick, together.
    Tick,
    /// Each at once.
    Immediate,
    /// At once if the topic was quiet for a tick, else at the next tick.
    Leading,
}

/// Which events of one tick leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Conflate {
    /// All of them.
    None,
    /// The last of the topic.
    Latest,
    /// The last of each key.
    LatestByKey,
}

impl Conflate {
    /// As it is written in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Latest => "latest",
            Self::LatestByKey => "latest-by-key",
        }
    }
}
