//! The messages of a partition, and its messages to topic managers.

use std::sync::Arc;

use actix::{Message, Recipient};
use fanfare_core::{
    error::PublishError,
    event::Event,
    fan_out::{FanOutPublish, FannedOut},
    ids::ManagerId,
    log::LogUpdate,
    partition::{Delivery, InterestChange},
    topic::Topic,
};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{answers::AnswerSlot, in_flight::InFlight};

/// Publish permits of one message. They return when every worker has taken its events.
pub(crate) type PublishPermit = Arc<OwnedSemaphorePermit>;

/// Sequence, keep and route these events in this order, or have the log do so.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct PublishEvents {
    pub events: Vec<PublishEvent>,
    /// Given back when every worker has its events.
    pub permit: Option<PublishPermit>,
}

/// One event.
pub(crate) struct PublishEvent {
    pub topic: Topic,
    pub event: Event,
    pub answer: AnswerSlot,
}

/// Sequence, keep and route one event for each of these topics, or have the log do so.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct FanOutEvent {
    pub fan_out: Arc<FanOutPublish>,
    pub topics: Vec<Topic>,
    /// Given back when every worker has its events.
    pub permit: Option<PublishPermit>,
    pub answer: oneshot::Sender<Result<FannedOut, PublishError>>,
}

/// Apply a log's updates, in this order.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ApplyLogUpdates(pub Vec<LogUpdate>);

/// How many streams of this instance listen to a topic?
#[derive(Message)]
#[rtype(result = "usize")]
pub(crate) struct CountSubscribers(pub Topic);

/// The sequence of a topic's last event; 0 if there is none. `None` while the log is
/// unavailable.
#[derive(Message)]
#[rtype(result = "Option<u64>")]
pub(crate) struct ReadLastSequence(pub Topic);

/// Record the mode of a fan-out for the idempotency window. Answered with the mode recorded
/// first (`true` for pull).
#[derive(Message)]
#[rtype(result = "Result<bool, PublishError>")]
pub(crate) struct RecordFanOutMode {
    /// The topic of the author's posts.
    pub posts: Topic,
    pub name: String,
    pub is_pull: bool,
}

/// The interest of a manager's streams changed, in this order.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ChangeInterest {
    pub manager: ManagerId,
    /// The manager's mailbox for deliveries.
    pub deliveries: Recipient<Deliver>,
    pub changes: Vec<InterestChange>,
}

/// Forget the oldest events: the history budget is exceeded and they are the oldest of all.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct TrimHistory;

/// A manager has taken the last message, and more deliveries wait.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct DeliveriesTaken;

/// Log updates of one partition for one manager, in order. At the end of the manager's turn it is
/// marked as taken, and answered by [`DeliveriesTaken`] if more waits by then.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Deliver {
    pub partition: u16,
    pub deliveries: Vec<Delivery<PublishPermit>>,
    pub in_flight: Arc<InFlight>,
}

/// Panics like a bug, to show that the partition is rebuilt.
#[cfg(test)]
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Panic;
