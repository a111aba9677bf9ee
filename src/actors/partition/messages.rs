//! What a partition is told, and what it tells topic managers.

use std::sync::Arc;

use actix::{Message, Recipient};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{answers::Answer, under_way::UnderWay};
use crate::{
    actors::{ManagerId, StreamId},
    domain::{
        cursor::Epoch,
        event::{Event, EventBody, SequencedEvent},
        interest::{Interest, StartFrom},
        partition_log::{MissedReason, Replay},
        relay::News,
        topic::Topic,
    },
    error::PublishError,
};

/// A publish's place among those a partition has taken and not yet delivered.
pub(crate) type Place = Arc<OwnedSemaphorePermit>;

/// Sequence, keep and route these events in this order, or have Redis do so.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct PublishEvents {
    pub events: Vec<PublishEvent>,
    /// Given back when every worker has its events.
    pub place: Option<Place>,
}

/// One event.
pub(crate) struct PublishEvent {
    pub topic: Topic,
    pub event: Event,
    pub answer: Answer,
}

/// Sequence, keep and route one event for each of these topics, or have Redis do so.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct FanOutEvent {
    pub fan_out: Arc<FanOut>,
    pub topics: Vec<Topic>,
    /// Given back when every worker has its events.
    pub place: Option<Place>,
    pub answer: oneshot::Sender<Result<FannedOut, PublishError>>,
}

/// One event for many topics.
#[derive(Debug)]
pub(crate) struct FanOut {
    /// By which it is known that a topic has it already.
    pub id: Option<Arc<str>>,
    pub event: Event,
    /// The event, encoded once for all.
    pub body: Arc<EventBody>,
}

/// What became of one event for many topics of a partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct FannedOut {
    /// Topics that have not had it before.
    pub new: usize,
    /// Topics that a stream has named and has open.
    pub online: usize,
}

/// A publish on its way to Redis.
#[derive(Debug)]
pub(crate) struct RelayedPublish {
    pub topic: Topic,
    pub event: Event,
    /// Streams of this instance that it will be queued for.
    pub receivers: usize,
    /// Given back with the answer.
    pub _place: Option<Place>,
    pub answer: Answer,
}

/// One event for many topics on its way to Redis.
#[derive(Debug)]
pub(crate) struct RelayedFanOut {
    pub fan_out: Arc<FanOut>,
    pub topics: Vec<Topic>,
    /// Given back with the answer.
    pub _place: Option<Place>,
    pub answer: oneshot::Sender<Result<FannedOut, PublishError>>,
}

/// What a partition sends to Redis.
#[derive(Debug)]
pub(crate) enum Relayed {
    Publish(RelayedPublish),
    FanOut(RelayedFanOut),
}

/// What the bridge brings, in order. Answered once it is taken in.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct TakeNews(pub Vec<News>);

/// How many streams of this instance listen to a topic, and what is its last sequence? Of the
/// latter a partition whose log is in Redis knows nothing.
#[derive(Message)]
#[rtype(result = "(usize, u64)")]
pub(crate) struct AskTopic(pub Topic);

/// Was a fan-out of this name a pull before? If there was none, it is now as said here.
#[derive(Message)]
#[rtype(result = "Result<bool, PublishError>")]
pub(crate) struct SettleFanOut {
    pub name: Arc<str>,
    pub is_pull: bool,
}

/// One stream comes or goes.
#[derive(Debug)]
pub(crate) enum InterestChange {
    /// Replay what the stream lacks and route live events from here on.
    Attach { stream: StreamId, interest: Arc<Interest>, from: StartFrom },
    /// Route no more for this stream.
    Detach { stream: StreamId, interest: Arc<Interest> },
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

/// A manager has taken what it was sent last, and more waits for it.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct DeliveriesTaken;

/// News of one partition for one manager, in order. At the end of the manager's turn it is
/// marked as taken, and answered by [`DeliveriesTaken`] if more waits by then.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Deliver {
    pub partition: u16,
    pub deliveries: Vec<Delivery>,
    pub under_way: Arc<UnderWay>,
}

/// One piece of news.
pub(crate) enum Delivery {
    /// An event that streams of this manager listen to.
    Event { event: Arc<SequencedEvent>, place: Option<Place> },
    /// A stream is attached: its replay, and every later event follows.
    Attached { stream: StreamId, replay: Replay },
    /// Streams have missed something, or numbers begin anew.
    Interrupted(Arc<Interruption>),
    /// The link to other instances was away and is there again: what they said meanwhile was
    /// not heard. What was published meanwhile follows.
    Relinked,
    /// The partition was rebuilt and has forgotten who listens.
    Restarted,
}

/// What open streams have missed of a partition and cannot be given in order any more.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Interruption {
    pub partition: u16,
    pub reason: MissedReason,
    /// Only streams that listen to one of these are concerned; if empty, all that touch the
    /// partition.
    pub topics: Vec<Topic>,
    /// The epoch that begins, and the sequence after which its first event will come.
    pub beginning: Option<(Epoch, u64)>,
}

/// Panics, as a bug would, to show that the partition is rebuilt.
#[cfg(test)]
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Panic;
