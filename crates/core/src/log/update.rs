//! The updates of a log kept elsewhere, and the requests of its replicas.
//!
//! `fanfare-redis` has their form in bytes; `partition::replica` decides by them.

use std::{sync::Arc, time::Instant};

use crate::{cursor::Epoch, event::EventBody, topic::Topic};

/// An event with its place in the partition and in its topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEvent {
    pub epoch: Epoch,
    pub sequence: u64,
    /// Sequence of the event before it of the same topic; 0 if there was none or it is not
    /// remembered.
    pub previous: u64,
    pub published_at: Instant,
    pub topic: Topic,
    pub body: Arc<EventBody>,
}

/// The head of a partition. As an answer it is a cut: every event pushed before it has at most this
/// sequence, every later one a higher sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionHead {
    pub epoch: Epoch,
    /// The last sequence before the epoch: 0 if numbers restarted with it.
    pub epoch_began_after: u64,
    pub sequence: u64,
    /// The servers of the partition over time, the present one first.
    pub lineage: Vec<Era>,
}

/// The partition's time on one server process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Era {
    /// The server's `run_id`.
    pub server: String,
    /// The partition's sequence when it began.
    pub began_after: u64,
}

/// An event confirmed by Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledged {
    pub epoch: Epoch,
    pub sequence: u64,
    /// The `run_id` of the confirming server.
    pub server: String,
}

/// The topics of a partition with events after a sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// With the sequence of each one's last event.
    pub topics: Vec<(Topic, u64)>,
    /// A list may lack topics with a last sequence up to this one.
    pub forgotten_through: u64,
}

/// One topic's events in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicRead {
    pub topic: Topic,
    /// The request asked for events after this sequence.
    pub after: u64,
    /// Sequence of the last event, held or not.
    pub last: u64,
    /// Highest sequence lost by a topic conflated by key, other than by conflation.
    pub evicted_through: u64,
    /// In sequence order.
    pub events: Vec<LogEvent>,
}

/// A replica's request to the log. The log answers all requests of a partition in order, on the
/// connection of its pushes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogRequest {
    /// Push the events of these topics from now on; not answered.
    Subscribe(Vec<Channel>),
    /// Push them no more; not answered.
    Unsubscribe(Vec<Channel>),
    /// Ask for the partition's head.
    Head { purpose: Purpose },
    /// Also ask for the topics changed since.
    Changes { purpose: Purpose, after: u64 },
    /// Read these topics, each after its sequence. `u64::MAX` asks for no events.
    Read { purpose: Purpose, topics: Vec<(Topic, u64)> },
    /// Let another epoch begin, if this one still holds: a later one than `above` too.
    Renew { epoch: Epoch, above: Epoch },
}

/// A channel of pushes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Channel {
    Topic(Topic),
    /// All topics of the partition, for streams with patterns.
    All,
}

/// The purpose of an answer, numbered: an answer is never taken for the answer to a later request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To continue after a lost connection or a missing push.
    CatchUp { serial: u64 },
    /// To let streams begin.
    Attach { serial: u64 },
}

/// One update for a replica.
#[derive(Debug)]
pub enum LogUpdate {
    /// A link is up. Earlier requests stay unanswered.
    LinkUp {
        generation: u64,
        /// The last answered publish of this instance.
        acknowledged: Option<Acknowledged>,
    },
    /// There is no connection any more.
    LinkDown,
    Event(LogEvent),
    /// One event for many topics, in sequence order.
    FannedOut(Vec<LogEvent>),
    /// Asked for or not.
    Head {
        purpose: Option<Purpose>,
        head: PartitionHead,
    },
    Changes {
        purpose: Purpose,
        head: PartitionHead,
        changed: Changed,
    },
    Read {
        purpose: Purpose,
        head: PartitionHead,
        topics: Vec<TopicRead>,
    },
}
