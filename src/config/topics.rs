//! `[[topics]]`: policies by pattern. Omitted keys come from `[delivery]` and `[history]`.
//! `fanfare_core::policy` finds the policy of a topic.

use std::time::Duration;

use fanfare_core::policy::{Conflate, Flush, Rate};
use serde::Deserialize;

use super::{rate, units};

/// The policy of all topics matching `pattern`, unless an earlier entry matches.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a [[topics]] entry")]
#[non_exhaustive]
pub struct TopicPolicy {
    /// A topic or a pattern, as in a subscription.
    pub pattern: String,
    /// The moment of a topic's flush; else `delivery.flush`.
    #[serde(default, deserialize_with = "units::given_word")]
    pub flush: Option<Flush>,
    /// Time between two ticks, 1 ms to 1 h; else `delivery.tick`.
    #[serde(default, deserialize_with = "units::given_duration")]
    pub tick: Option<Duration>,
    /// The events of one tick to send; else `delivery.conflate`.
    #[serde(default, deserialize_with = "units::given_word")]
    pub conflate: Option<Conflate>,
    /// The topic's history.
    #[serde(default)]
    pub history: TopicHistory,
    /// The rate limit of one stream over all topics of this entry. The limit of the whole stream
    /// (`stream.rate`) applies too.
    #[serde(default, deserialize_with = "rate::given")]
    pub rate: Option<Rate>,
}

/// The history of a topic; omitted keys come from `[history]`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a history like { events = 100, ttl = \"1h\" }")]
#[non_exhaustive]
pub struct TopicHistory {
    /// Events stored per topic; 0 stores none.
    #[serde(default, deserialize_with = "units::given_count")]
    pub events: Option<usize>,
    /// The age of an event at its expiry, at most 365 days; zero stores none.
    #[serde(default, deserialize_with = "units::given_duration")]
    pub ttl: Option<Duration>,
}
