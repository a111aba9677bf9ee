//! The seam to a log kept outside of the partitions: in Redis today, on disk later. A hub
//! without one keeps each partition's log in the partition itself, in memory.
//!
//! Every log promises:
//! 1. **Order.** Events appended to one partition, one after the other, get ascending
//!    sequences in that order.
//! 2. **Accepted means kept.** The log answers `Ok` only after the event has its sequence and
//!    is stored. A stream resuming from before the event gets it.
//! 3. **Refused means not stored.** The event reaches no stream and is in no history. The
//!    exceptions are [`PublishError::Internal`] and [`PublishError::Unconfirmed`].
//! 4. **Once.** Each partition of each instance routes each event at most once, in sequence
//!    order.
//! 5. **Idempotence.** Within the idempotency window, the log answers a repeated id on the same
//!    topic with the first answer, and delivers nothing.
//! 6. **No wait for clients.** Slow streams never delay the answer to a publish.
//!
//! The contract suite of the crate `fanfare` holds every log to these promises, the log in
//! memory too.

mod append;
mod update;

use std::fmt::Debug;

pub use append::{Append, AppendEvent, AppendFanOut, Permit, PublishResult, Reply};
pub use update::{
    Acknowledged, Changed, Channel, Era, LogEvent, LogRequest, LogUpdate, PartitionHead, Purpose,
    TopicRead,
};

use crate::{error::PublishError, future::BoxFuture, topic::Topic};

/// A log outside of the partitions. No method waits, and calls for one partition keep their
/// order.
pub trait Log: Debug + Send + Sync {
    /// Appends events of one partition, in this order. The log answers each by its
    /// [`Reply`].
    fn append(&self, partition: u16, appends: Vec<Append>);

    /// Subscribes, reads and lists on behalf of a partition. The log ignores requests of a
    /// `generation` other than the present link's.
    fn request(&self, partition: u16, generation: u64, requests: Vec<LogRequest>);

    /// Starts a new link for a rebuilt partition, so that the partition catches up.
    fn reconnect(&self, partition: u16);

    /// Records the mode of the fan-out `name` for the idempotency window, and returns the mode
    /// recorded first (`true` for pull). `posts` is the topic of the author's posts.
    fn record_fan_out_mode(
        &self,
        posts: Topic,
        name: String,
        is_pull: bool,
    ) -> BoxFuture<'static, Result<bool, PublishError>>;

    /// The last sequence of a topic; 0 if the log has none. `None` while the log is
    /// unavailable.
    fn last_sequence(&self, topic: Topic) -> BoxFuture<'static, Option<u64>>;

    /// The epoch of the present sequences. `None` before the first contact.
    fn epoch(&self) -> Option<u64>;
}

/// The partitions of an instance, as a log reaches them.
pub trait Replicas: Send + Sync {
    /// Applies updates of one partition in order. Ready once the partition applied them: until
    /// then the log sends this partition nothing more.
    ///
    /// # Errors
    /// The hub has stopped.
    fn apply(
        &self,
        partition: u16,
        updates: Vec<LogUpdate>,
    ) -> BoxFuture<'static, Result<(), HubStopped>>;

    /// Tells a partition about the end of its link, without waiting.
    fn link_down(&self, partition: u16);
}

/// The hub has stopped; nobody applies updates any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the hub has stopped")]
pub struct HubStopped;
