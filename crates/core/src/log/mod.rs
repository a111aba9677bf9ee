//! The seam to a log kept outside of the partitions, for example in Redis. Without such a log, each
//! partition keeps its own in memory.
//!
//! Every log promises:
//! 1. **Order.** Events appended to one partition, one after the other, get ascending
//!    sequences in that order.
//! 2. **Accepted means kept.** The log answers `Ok` only after the event has its sequence and
//!    is stored. A stream resuming from before the event gets it.
//! 3. **Refused means not stored.** The event reaches no stream and no history. Exceptions:
//!    [`PublishError::Internal`] and [`PublishError::Unconfirmed`].
//! 4. **Once.** Each partition of each instance routes each event at most once, in sequence
//!    order.
//! 5. **Idempotence.** Within the idempotency window, the log answers a repeated id on the same
//!    topic with the first answer, and delivers nothing.
//! 6. **No wait for clients.** Slow streams never delay the answer to a publish.
//!
//! The contract suite of the crate `fanfare` tests these promises for every log, also in memory.

mod acknowledged;
mod append;
mod update;

use std::fmt::Debug;

pub use acknowledged::{Acknowledged, Acknowledgements};
pub use append::{Append, AppendEvent, AppendFanOut, Permit, PublishResult, Reply};
pub use update::{
    Changed, Channel, Era, LogEvent, LogRequest, LogUpdate, PartitionHead, Purpose, TailLoss,
    TopicRead,
};

/// The distance of sequences from one server to the next: the `INCRBY` in `publish.lua`.
pub const SERVER_JUMP: u64 = 1 << 20;

use crate::{cursor::Epoch, error::PublishError, future::BoxFuture, topic::Topic};

/// A log outside of the partitions. No method blocks. The log executes the calls of one partition
/// in their order.
pub trait Log: Debug + Send + Sync {
    /// Appends events of one partition, in this order. The log answers each by its [`Reply`].
    fn append(&self, partition: u16, appends: Vec<Append>);

    /// Sends a replica's requests. The log ignores requests with a `generation` other than the
    /// present link's.
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

    /// The epoch and the last sequence of a partition. `None` while the log is unavailable.
    fn head(&self, partition: u16) -> BoxFuture<'static, Option<(Epoch, u64)>>;

    /// The epoch of the present sequences. `None` before the first contact.
    fn epoch(&self) -> Option<u64>;
}

/// A log's access to the partitions of its instance.
pub trait Replicas: Send + Sync {
    /// Applies updates of one partition in order. The future is ready after the partition has
    /// applied them. Until then the log sends this partition no more updates.
    ///
    /// # Errors
    /// The hub has stopped.
    fn apply(
        &self,
        partition: u16,
        updates: Vec<LogUpdate>,
    ) -> BoxFuture<'static, Result<(), HubStopped>>;

    /// Reports the end of a partition's link, without waiting.
    fn link_down(&self, partition: u16);
}

/// The hub has stopped and applies no updates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the hub has stopped")]
pub struct HubStopped;
