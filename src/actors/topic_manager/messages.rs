//! The messages of a topic manager. Its messages to connections are in `connection`.

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

/// The streams to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Whose {
    /// The one stream of this number and secret, as its client's id names it.
    Client { stream: StreamId, secret: u64 },
    /// All of a user's feed.
    Feed(User),
}

/// Change open streams, in this order. Answered once everything is in force, with the outcome for
/// each stream found.
#[derive(Message)]
#[rtype(result = "Vec<ChangeOutcome>")]
pub(crate) struct ChangeStreams(pub Arc<[(Whose, Change)]>);

/// A stream of this user's feed is about to open: keep the changes from here on for it.
#[derive(Message)]
#[rtype(result = "FeedOf")]
pub(crate) struct ExpectFeed(pub User);

/// The expected stream will not come.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ForgetFeed(pub FeedOf);

/// List the users with a feed here subscribed to this topic, by a hash of their names, each with
/// whether the kind is muted.
#[derive(Message)]
#[rtype(result = "Vec<(u64, bool)>")]
pub(crate) struct ListFeedUsers {
    pub topic: Topic,
    pub kind: String,
}

/// Send pending events, then end every stream. Each client is told to return at a moment of its own
/// within the window.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Drain {
    pub window: std::time::Duration,
}

/// Panics like a bug, to show that the manager is rebuilt.
#[cfg(test)]
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Panic;
