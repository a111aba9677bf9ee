//! The messages of a topic manager. Its messages to connections are in `connection`.

use std::sync::Arc;

use actix::Message;
use fanfare_core::{
    access::Grant,
    cluster::StreamInfo,
    ids::StreamId,
    sse::ShutdownReason,
    subscription::{Change, FeedOf, ResolvedSubscription},
    topic::Topic,
    topic_manager::{ChangeOutcome, Renewal, Which},
    user::User,
};

use crate::actors::partition::Deliver;

/// Attach a new stream. The run queue has its connection.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct OpenStream {
    pub stream: StreamId,
    pub subscription: Arc<ResolvedSubscription>,
}

/// Ask these partitions for the next page of a stream's replay: its client has taken the last one.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ContinueReplay {
    pub stream: StreamId,
    pub partitions: Vec<u16>,
}

/// Forget a stream: its connection has stopped.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct CloseStream {
    pub stream: StreamId,
}

/// The streams to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Whose {
    /// The stream with this number and secret, from its client id.
    Client { stream: StreamId, secret: u64 },
    /// All streams of a user's feed.
    Feed(User),
}

/// Change open streams, in this order. The answer comes once all changes are in force, with an
/// outcome for each stream found.
#[derive(Message)]
#[rtype(result = "Vec<ChangeOutcome>")]
pub(crate) struct ChangeStreams(pub Arc<[(Whose, Change)]>);

/// Renew the grant of a stream. The answer comes once it is in force.
#[derive(Message)]
#[rtype(result = "Renewal")]
pub(crate) struct RenewGrant {
    pub stream: StreamId,
    pub secret: u64,
    pub grant: Arc<Grant>,
}

/// End streams without their pending output. The answer, their number, comes once their connections
/// have ended.
#[derive(Message)]
#[rtype(result = "usize")]
pub(crate) struct EndStreams {
    pub which: Which,
    pub reason: ShutdownReason,
}

/// Describe streams, at most `limit`.
#[derive(Message)]
#[rtype(result = "Vec<StreamInfo>")]
pub(crate) struct ListStreams {
    pub which: Which,
    pub limit: usize,
}

/// Expect a stream of this user's feed: keep all later changes for it.
#[derive(Message)]
#[rtype(result = "FeedOf")]
pub(crate) struct ExpectFeed(pub User);

/// Forget an expected stream: it will not open.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ForgetFeed(pub FeedOf);

/// List the users with a feed on this worker subscribed to this topic: a hash of each name, and
/// `true` if the user mutes the kind.
#[derive(Message)]
#[rtype(result = "Vec<(u64, bool)>")]
pub(crate) struct ListFeedUsers {
    pub topic: Topic,
    pub kind: String,
}

/// Send pending events, then end every stream. Each client gets a random time within the window for
/// its reconnect.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Drain {
    pub window: std::time::Duration,
}

/// Deliveries of a new link, after a read of the revocations missed without it.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct DeliverRelinked(pub Deliver);

/// Panics like a bug, to show that the manager is rebuilt.
#[cfg(test)]
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Panic;
