//! Follower fan-out: the router actor, its modes and its report.

mod messages;
mod router;

pub(crate) use messages::FanOutToFollowers;
pub(crate) use router::{FanOutRouter, RouterHost};
use serde::{Deserialize, Serialize};

/// How an event reaches an author's followers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FanOutMode {
    /// It is published to each follower's topic `notifications:<user>`.
    Push,
    /// It is published once to `posts:<author>`, a topic of the followers' feeds.
    Pull,
    /// Push for up to `fanout.pull_above` followers, pull for more.
    #[default]
    Auto,
}

/// The reach of a fan-out. `followers` counts all: online, muted, and offline ones; offline
/// followers find the event on their return. A count unavailable for a pull is omitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct FanOutReport {
    /// Push or pull.
    pub mode: FanOutMode,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub followers: Option<u64>,
    /// Followers with an open stream of their own notifications (push) or an open feed (pull) on
    /// any instance, without those muting the kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub online: Option<u64>,
    /// Followers muting the kind; for a pull, only those with an open feed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub muted: Option<u64>,
}
