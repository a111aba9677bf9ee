//! The seam to other instances: who gives events their sequence, keeps their log, and brings
//! them to every instance.
//!
//! Every bridge promises:
//! 1. **Order.** Events enqueued for one partition, one after the other, get ascending
//!    sequences in that order.
//! 2. **Taken means kept.** An answer `Ok` comes only once the event has its sequence and is
//!    in the log: a stream that resumes from before it gets it.
//! 3. **Refused means not taken**, but for [`PublishError::Internal`] and
//!    [`PublishError::Unconfirmed`]: the event reaches no stream and is in no log.
//! 4. **Once.** Each partition of each instance passes each event on at most once, in
//!    sequence order.
//! 5. **Idempotence.** Within the window, an id that was taken on a topic is answered as the
//!    first time, and nothing is delivered.
//! 6. **No wait on clients.** However slow streams are, a publish is answered.
//!
//! The tests in `contract` hold every bridge to them.

mod call;
#[cfg(test)]
mod contract;
mod local;
pub(crate) mod redis;

use std::time::Duration;

use futures_util::future::BoxFuture;
use serde::Serialize;

pub(crate) use call::{InstanceAnswer, InstanceAnswers, InstanceCall, StreamChange, StreamOutcome};
pub(crate) use local::LocalBridge;

use crate::domain::topic::Topic;
use crate::error::{ChangeError, PublishError};

/// Whether and how this instance is linked to others.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BridgeStatus {
    pub kind: &'static str,
    #[serde(rename = "up")]
    pub is_up: bool,
    /// The name of this instance, if it has others beside it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// How often the link was lost.
    pub reconnects: u64,
    /// How long something sent around took.
    pub lag_ms: f64,
}

/// A topic over all instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct TopicStatus {
    /// On how many instances it has subscribers.
    pub instances: usize,
    pub subscribers: usize,
    /// Sequence of its last event; 0 if there was none, or none is remembered.
    pub sequence: u64,
}

/// What the bridge calls for what other instances ask.
pub(crate) trait Execute: Send + Sync {
    /// Does it, and answers within some seconds.
    fn execute(&self, call: InstanceCall) -> BoxFuture<'static, InstanceAnswer>;
}

/// What a hub asks of its bridge. Publishes go through the partitions.
pub(crate) trait Bridge: Send + Sync {
    /// How the bridge fares.
    fn status(&self) -> BridgeStatus;

    /// The epoch of the present sequences; none if it is not known yet.
    fn epoch(&self) -> Option<u64>;

    /// Remembers, for the idempotency window, what was decided about a fan-out of this name;
    /// returns what was decided first. `posts` is the topic of its author's posts.
    fn settle(
        &self,
        posts: Topic,
        name: String,
        is_pull: bool,
    ) -> BoxFuture<'static, Result<bool, PublishError>>;

    /// Has every instance execute a call, this one too, and returns what they have answered
    /// within the limit, if there is one, and within `redis.timeout`. It goes by the way that
    /// a partition's events go. None if there are no other instances.
    ///
    /// # Errors
    /// [`ChangeError::BridgeDown`] if nobody was asked, [`ChangeError::Unconfirmed`] if that
    /// is not known.
    fn call_all(
        &self,
        partition: u16,
        call: &InstanceCall,
        limit: Option<Duration>,
    ) -> Option<BoxFuture<'static, Result<InstanceAnswers, ChangeError>>>;

    /// Sequence of a topic's last event, 0 if there was none or none is remembered; none if
    /// that cannot be told at the moment.
    fn last_sequence(&self, topic: Topic) -> BoxFuture<'static, Option<u64>>;
}
