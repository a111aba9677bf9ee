//! Follower fan-out: the router actor, and what a fan-out is asked and reports.

mod messages;
mod router;

pub(crate) use messages::FanOutToFollowers;
pub(crate) use router::{FanoutRouter, RouterHost};
use serde::{Deserialize, Serialize};

/// How an event reaches an author's followers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FanOutMode {
    /// It is published to each follower's topic `notifications:<user>`.
    Push,
    /// It is published once to `posts:<author>`, which the followers' feeds listen to.
    Pull,
    /// Push for up to `fanout.pull_above` followers, pull for more.
    #[default]
    Auto,
}

/// Whom a fan-out has reached: `followers` are those online, those who have muted the kind,
/// and the rest, who find it when they come back. What could not be counted of a pull is
/// left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct FanOutReport {
    /// Push or pull.
    pub mode: FanOutMode,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub followers: Option<u64>,
    /// Followers with an open stream of their own notifications, or if they pull of their
    /// feed, on any instance; those aside who have muted the kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub online: Option<u64>,
    /// Followers who have muted the kind; if they pull, of those with an open feed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub muted: Option<u64>,
}
