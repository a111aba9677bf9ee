//! `[[topics]]`: policies by pattern. What a policy leaves out comes from `[delivery]`
//! and `[history]`; finding a topic's policy is not done here.

use std::time::Duration;

use fanfare_core::policy::{Conflate, Flush, Rate};
use serde::Deserialize;

use super::{rate, units};

/// The policy of the topics that match `pattern`, where no earlier policy does.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a [[topics]] entry")]
pub struct TopicPolicy {
    /// A topic or a pattern, as in a subscription.
    pub pattern: String,
    /// When events leave; else `delivery.flush`.
    #[serde(default, deserialize_with = "units::given_word")]
    pub flush: Option<Flush>,
    /// Time between two ticks, 1 ms to 1 h; else `delivery.tick`.
    #[serde(default, deserialize_with = "units::given_duration")]
    pub tick: Option<Duration>,
    /// Which events of one tick leave; else `delivery.conflate`.
    #[serde(default, deserialize_with = "units::given_word")]
    pub conflate: Option<Conflate>,
    /// What is kept for replay.
    #[serde(default)]
    pub history: TopicHistory,
    /// Events of all topics under this entry that one stream may be sent; else no limit but
    /// the stream's own.
    #[serde(default, deserialize_with = "rate::given")]
    pub rate: Option<Rate>,
}

/// What is kept of a topic; what is left out comes from `[history]`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a history like { events = 100, ttl = \"1h\" }")]
pub struct TopicHistory {
    /// Events kept per topic; 0 keeps none.
    #[serde(default, deserialize_with = "units::given_count")]
    pub events: Option<usize>,
    /// Age at which an event is forgotten; zero keeps none.
    #[serde(default, deserialize_with = "units::given_duration")]
    pub ttl: Option<Duration>,
}
