//! The updates of a log kept elsewhere, and the requests of its replicas.
//!
//! Not here: their encoding (`fanfare-redis`), and the decisions (`partition::replica`).

use std::{sync::Arc, time::Instant};

use crate::{cursor::Epoch, event::EventBody, log::Acknowledgements, topic::Topic};

/// An event with its sequence, and with the previous sequence of its topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEvent {
    pub epoch: Epoch,
    pub sequence: u64,
    /// Sequence of the previous event of the same topic; 0 without one, or if the log has forgotten
    /// it.
    pub previous: u64,
    pub published_at: Instant,
    /// Milliseconds since 1970, by the log's clock.
    pub unix_ms: u64,
    pub topic: Topic,
    pub body: Arc<EventBody>,
}

/// The head of a partition. As an answer it is a cut: every event pushed before it has at most this
/// sequence, every later one a higher sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionHead {
    pub epoch: Epoch,
    /// Earlier epochs of the same sequences: their positions are valid in this epoch too.
    pub earlier_epochs: Vec<Epoch>,
    /// The last sequence before the epoch: 0 if numbers restarted with it. `None` if the log went
    /// back to earlier data: it has events of before, and has given out later sequences twice.
    pub epoch_began_after: Option<u64>,
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
    /// The known loss of its predecessor's last events.
    pub lost: Option<TailLoss>,
}

/// The loss of a server's last events: its successor began without them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TailLoss {
    /// All events from the successor's `began_after` to this sequence are lost.
    pub through: u64,
    /// The partition's sequence when the loss was recorded. Until then, instances may have continued
    /// streams without telling them.
    pub recorded_at: u64,
    /// The time of the record, in milliseconds since 1970.
    pub recorded_ms: u64,
}

/// A list of the partition's topics with events after a sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// Each topic with the sequence of its last event.
    pub topics: Vec<(Topic, u64)>,
    /// The list may lack topics with a last sequence up to this one.
    pub forgotten_through: u64,
}

/// One topic's events in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicRead {
    pub topic: Topic,
    /// The request asked for events after this sequence.
    pub after: u64,
    /// Sequence of the topic's last event, even if the log has removed it.
    pub last: u64,
    /// For a topic conflated by key: the highest sequence removed, except by conflation.
    pub evicted_through: u64,
    /// In sequence order. In a bounded read, the first event may be past its end: it names the last
    /// event lost before it.
    pub events: Vec<LogEvent>,
}

/// A replica's request to the log. The log answers all requests of a partition in order, on the
/// connection of its pushes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogRequest {
    /// Pushes the events of these channels from here on. Without an answer.
    Subscribe(Vec<Channel>),
    /// Ends these pushes. Without an answer.
    Unsubscribe(Vec<Channel>),
    /// Reads the partition's head.
    Head { purpose: Purpose },
    /// Finds a sequence with all events up to it before this second since 1970: the highest one known.
    Locate { purpose: Purpose, second: u64 },
    /// Reads the head, and lists the topics with events after a sequence.
    Changes { purpose: Purpose, after: u64 },
    /// Reads these topics, each after its sequence. `u64::MAX` requests no events. With `max_bytes`,
    /// some events of all topics together, the oldest first: at least one, and about these bytes.
    Read { purpose: Purpose, topics: Vec<(Topic, u64)>, max_bytes: Option<usize> },
    /// Begins a new epoch, later than `epoch` and `above`, unless `epoch` has already ended. In a
    /// log below the sequence `known`, sequences have been given out twice: then all positions are
    /// invalid.
    Renew { epoch: Epoch, above: Epoch, known: u64 },
    /// Records in the lineage: events up to `through` were given out by this server. If its successor
    /// began earlier, the events between are lost. The record takes a sequence, and all replicas
    /// learn of it before any later event. The answer is a head without a purpose.
    NoteLoss { server: String, through: u64 },
}

/// A channel of pushes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Channel {
    Topic(Topic),
    /// All topics of the partition, for streams with patterns.
    All,
}

/// The purpose of a request, repeated in its answer. The number keeps the answers of different
/// requests apart.
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
    /// A new link is up. Requests of earlier links stay unanswered.
    LinkUp {
        generation: u64,
        /// The answered publishes of this instance.
        acknowledged: Acknowledgements,
    },
    /// The link ended.
    LinkDown,
    /// Pushes may be missing.
    PushesMissing,
    /// Events of these topics follow, with consecutive sequences from `first`. Each replica gets every
    /// announcement, but only the events of its channels.
    Announced {
        first: u64,
        topics: Vec<Topic>,
    },
    Event(LogEvent),
    /// One event for many topics, with consecutive sequences. It is its own announcement.
    FannedOut(Vec<LogEvent>),
    /// An answer, or an unrequested head without a purpose.
    Head {
        purpose: Option<Purpose>,
        head: PartitionHead,
    },
    Located {
        purpose: Purpose,
        head: PartitionHead,
        second: u64,
        sequence: u64,
    },
    Changes {
        purpose: Purpose,
        head: PartitionHead,
        changed: Changed,
    },
    Read {
        purpose: Purpose,
        head: PartitionHead,
        /// The read has all events up to this sequence: the head, or less at its bound in bytes.
        through: u64,
        topics: Vec<TopicRead>,
    },
}
