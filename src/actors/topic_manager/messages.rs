//! What a topic manager is told. What it tells connections is theirs (`connection`).

use std::sync::Arc;

use actix::{Addr, Message};
use fanfare_core::{
    ids::StreamId,
    subscription::{Change, FeedOf, ResolvedSubscription},
    topic::Topic,
    topic_manager::ChangeOutcome,
    user::User,
};

use crate::actors::connection::Connection;

/// A stream has opened and waits to be attached.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct OpenStream {
    pub stream: StreamId,
    pub connection: Addr<Connection>,
    pub subscription: Arc<ResolvedSubscription>,
}

/// A stream is gone.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct CloseStream {
    pub stream: StreamId,
}

/// Whose streams are changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Whose {
    /// The one stream of this number and secret, as its client's id names it.
    Client { stream: StreamId, secret: u64 },
    /// All of a user's feed.
    Feed(User),
}

/// Change what open streams want, in this order. Answered once all of it is in force, with
/// what became of each stream that was found.
#[derive(Message)]
#[rtype(result = "Vec<ChangeOutcome>")]
pub(crate) struct ChangeStreams(pub Arc<[(Whose, Change)]>);

/// A stream of this user's feed is about to open: keep the changes from here on for it.
#[derive(Message)]
#[rtype(result = "FeedOf")]
pub(crate) struct ExpectFeed(pub User);

/// The stream that was expected will not come.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ForgetFeed(pub FeedOf);

/// Which users have a feed here that wants this topic? By a hash of their names, and whether
/// they have muted the kind.
#[derive(Message)]
#[rtype(result = "Vec<(u64, bool)>")]
pub(crate) struct ListFeedUsers {
    pub topic: Topic,
    pub kind: String,
}

/// Send what is pending, then end every stream, each to return at a moment of its own
/// within the window.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Drain {
    pub window: std::time::Duration,
}

/// Panics, as a bug would, to show that the manager is rebuilt.
#[cfg(test)]
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Panic;
