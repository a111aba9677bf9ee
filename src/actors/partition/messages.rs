//! What a partition is told, and what it tells topic managers.

use std::sync::Arc;

use actix::{Message, Recipient};
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    actors::{ManagerId, StreamId},
    domain::{
        event::{Event, SequencedEvent},
        interest::{Interest, StartFrom},
        partition_log::Replay,
        topic::Topic,
    },
    error::PublishError,
    hub::Published,
};

/// A publish's place among those a partition has taken and not yet delivered.
pub(crate) type Place = Arc<OwnedSemaphorePermit>;

/// Sequence, keep and route one event.
#[derive(Message)]
#[rtype(result = "Result<Published, PublishError>")]
pub(crate) struct PublishEvent {
    pub topic: Topic,
    pub event: Event,
    pub place: Option<Place>,
}

/// One stream comes or goes.
#[derive(Debug)]
pub(crate) enum InterestChange {
    /// Replay what the stream lacks and route live events from here on.
    Attach { stream: StreamId, interest: Arc<Interest>, from: StartFrom },
    /// Route no more for this stream.
    Detach { interest: Arc<Interest> },
    /// Route no more for any stream of this manager.
    DetachAll,
}

/// What a manager's streams want has changed, in this order.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ChangeInterest {
    pub manager: ManagerId,
    /// Where this manager takes its deliveries.
    pub deliveries: Recipient<Deliver>,
    pub changes: Vec<InterestChange>,
}

/// Forget the oldest events: the history budget is exceeded and they are the oldest of all.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct TrimHistory;

/// A manager has taken what it was sent last.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct DeliveriesTaken {
    pub manager: ManagerId,
}

/// News of one partition for one manager, in order. Answered by [`DeliveriesTaken`] at the
/// end of the manager's turn.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Deliver {
    pub partition: u16,
    pub deliveries: Vec<Delivery>,
}

/// One piece of news.
pub(crate) enum Delivery {
    /// An event that streams of this manager listen to.
    Event { event: Arc<SequencedEvent>, place: Option<Place> },
    /// A stream is attached: its replay, and every later event follows.
    Attached { stream: StreamId, replay: Replay },
    /// The partition was rebuilt and has forgotten who listens.
    Restarted,
}

/// Panics, as a bug would, to show that the partition is rebuilt.
#[cfg(test)]
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Panic;
