//! The messages of a partition, and its messages to topic managers.

use std::sync::Arc;

use actix::{Message, Recipient};
use fanfare_core::{
    cursor::Epoch,
    error::PublishError,
    fan_out::{FanOutPublish, FannedOut},
    ids::{ManagerId, PublisherId},
    journal::{JournalError, Record},
    log::{LogUpdate, Reply},
    partition::{Delivery, InterestChange},
    publish::SharedEvent,
    topic::Topic,
};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{answers::AnswerSlot, in_flight::InFlight};

/// The publish permits of one message. They return after every worker has taken its events.
pub(crate) type PublishPermit = Arc<OwnedSemaphorePermit>;

/// Sequence, store and route these events in this order; with a log elsewhere, the log does so.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct PublishEvents {
    pub events: Vec<PublishEvent>,
    /// One permit for each event.
    pub permit: Option<PublishPermit>,
}

pub(crate) struct PublishEvent {
    pub topic: Topic,
    pub event: Arc<SharedEvent>,
    pub answer: AnswerSlot,
}

/// Sequence, store and route one event for each of these topics; with a log elsewhere, the log does
/// so.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct FanOutEvent {
    pub fan_out: Arc<FanOutPublish>,
    pub topics: Vec<Topic>,
    /// One permit for each topic, at most all of the partition.
    pub permit: Option<PublishPermit>,
    pub answer: oneshot::Sender<Result<FannedOut, PublishError>>,
}

/// Apply a log's updates, in this order.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ApplyLogUpdates(pub Vec<LogUpdate>);

/// The journal has written the oldest batch in flight, or refused it.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct RecordsWritten(pub Result<(), JournalError>);

/// Choose the records still needed of a page of the log on disk.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct DecidePage {
    pub records: Vec<Record>,
    pub is_repeated: bool,
    /// Dropped without an answer, the page comes again later.
    pub keep: Reply<Vec<Record>>,
}

/// Count the streams of this instance subscribed to a topic.
#[derive(Message)]
#[rtype(result = "usize")]
pub(crate) struct CountSubscribers(pub Topic);

/// Read the sequence of a topic's last event: 0 without an event, `None` while the log is
/// unavailable.
#[derive(Message)]
#[rtype(result = "Option<u64>")]
pub(crate) struct ReadLastSequence(pub Topic);

/// Read the position now; `None` while the log is unavailable.
#[derive(Message)]
#[rtype(result = "Option<(Epoch, u64)>")]
pub(crate) struct ReadHead;

/// Record the mode of a fan-out for the idempotency window. The answer is the mode recorded first
/// (`true` for pull).
#[derive(Message)]
#[rtype(result = "Result<bool, PublishError>")]
pub(crate) struct RecordFanOutMode {
    /// The topic of the author's posts.
    pub posts: Topic,
    pub name: String,
    pub publisher: PublisherId,
    pub is_pull: bool,
}

/// Apply these changes of the interest of a manager's streams, in this order.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ChangeInterest {
    pub manager: ManagerId,
    /// The manager's mailbox for deliveries.
    pub deliveries: Recipient<Deliver>,
    pub changes: Vec<InterestChange>,
}

/// Apply changes of interest left over by earlier turns.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ContinueChanges;

/// Forget the oldest events: the history budget is exceeded, and this partition has the oldest of
/// all.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct TrimHistory;

/// A manager has taken the last message: send it the waiting deliveries.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct DeliveriesTaken;

/// Deliveries of one partition for one manager, in order. At the end of its turn the manager marks
/// the message as taken, and sends [`DeliveriesTaken`] if the partition has more by then.
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
