//! What an instance is told of a partition whose log is in Redis.
//!
//! How it is asked for and looks in bytes is the business of `bridge::redis`; what becomes
//! of it that of `actors::partition::mirror`.

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

/// Where a partition stands. As an answer it is a cut: every event pushed before it has a
/// sequence up to this one, every later one a higher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionHead {
    pub epoch: Epoch,
    /// The sequence that the epoch began after: 0 if numbers began anew with it.
    pub epoch_began_after: u64,
    pub sequence: u64,
    /// The servers that the partition has lived on, the present one first.
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

/// An event that Redis has confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledged {
    pub epoch: Epoch,
    pub sequence: u64,
    /// The `run_id` of the server that has confirmed it.
    pub server: String,
}

/// The topics of a partition that have had events after a sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// With the sequence of each one's last event.
    pub topics: Vec<(Topic, u64)>,
    /// Topics whose last event is up to here may be missing in any list.
    pub forgotten_through: u64,
}

/// What the log holds of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicRead {
    pub topic: Topic,
    /// It was asked what came after this sequence.
    pub after: u64,
    /// Sequence of the last event, held or not.
    pub last: u64,
    /// Highest sequence that a topic conflated by key has lost otherwise than by conflation.
    pub evicted_through: u64,
    /// In sequence order.
    pub events: Vec<LogEvent>,
}

/// What a mirror asks of the log. All of a partition's requests are answered in order, on
/// the connection that its events are pushed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogRequest {
    /// Push the events of these topics from now on; not answered.
    Subscribe(Vec<Channel>),
    /// Push them no more; not answered.
    Unsubscribe(Vec<Channel>),
    /// Where does the partition stand?
    Head { purpose: Purpose },
    /// And which topics have changed since?
    Changes { purpose: Purpose, after: u64 },
    /// What came of these topics, each after its sequence? `u64::MAX` asks for no events.
    Read { purpose: Purpose, topics: Vec<(Topic, u64)> },
    /// Let another epoch begin, if this one still holds: a later one than `above` too.
    Renew { epoch: Epoch, above: Epoch },
}

/// What pushes come by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Channel {
    Topic(Topic),
    /// All topics of the partition, for streams with patterns.
    All,
}

/// What an answer is for; numbered, so that none is taken for that of a later request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To continue where the connection was lost, or a hole found.
    CatchUp { serial: u64 },
    /// To let streams begin.
    Attach { serial: u64 },
}

/// One thing that a mirror is told.
#[derive(Debug)]
pub enum LogUpdate {
    /// A connection is there. What was asked before will not be answered.
    LinkUp {
        generation: u64,
        /// The last publish of this instance that was answered.
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
