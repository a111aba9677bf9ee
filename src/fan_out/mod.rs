//! Follower fan-out: the router actor, its modes and its report.

mod messages;
mod router;

pub(crate) use messages::FanOutToFollowers;
pub(crate) use router::{FanOutRouter, RouterHost};
use serde::{Deserialize, Serialize};

/// The way of an event to an author's followers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FanOutMode {
    /// Publishes to the topic `notifications:<user>` of each follower. Costs history per follower.
    Push,
    /// Publishes once to `posts:<author>`, a topic of the followers' feeds. Reaches feeds only.
    Pull,
    /// Push for up to `fanout.pull_above` followers, pull for more.
    #[default]
    Auto,
}

/// The reach of a finished fan-out, for people: followers may come and go during it. A count
/// unavailable for a pull is `None`, and JSON omits it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct FanOutReport {
    /// Push or pull, never auto.
    pub mode: FanOutMode,
    /// All followers: online, muting, and offline. An offline follower gets the event from history
    /// on return.
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
