//! The decisions of partitions, and the types exchanged between partitions and topic managers.
//!
//! [`MemoryPartition`] keeps its log itself, [`JournaledPartition`] keeps it on disk too, and
//! [`Replica`] caches a log kept elsewhere. All route events by [`Routing`].

mod journal;
mod key_ends;
mod listeners;
mod memory;
mod replica;
mod routing;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

pub use journal::{JournaledPartition, MAX_BATCHES_IN_FLIGHT, Outcome, Recovery, StoreEnd};
pub use memory::{MemoryPartition, Taken};
pub use replica::{Replica, ReplicaSpec};
pub use routing::Routing;

use crate::{
    budget::HistoryBudget,
    cursor::Epoch,
    error::PublishError,
    event::SequencedEvent,
    fan_out::{FanOutPublish, FannedOut},
    id_budget::IdBudget,
    ids::{ManagerId, PublisherId, StreamId},
    interest::{Interest, StartFrom},
    partition_log::{MissedReason, PartitionLog, Replay},
    policy::Policies,
    publish::SharedEvent,
    topic::Topic,
    wall_clock::WallClock,
};

/// A change of one stream's attachment, or the end of all attachments of a manager.
#[derive(Debug)]
pub enum InterestChange {
    /// Replay the events missing in the stream: a page of at most `max_bytes`. With the last page,
    /// route live events from here on.
    Attach { stream: StreamId, interest: Arc<Interest>, from: StartFrom, max_bytes: usize },
    /// Route no more for this stream.
    Detach { stream: StreamId, interest: Arc<Interest> },
    /// Route no more for any stream of this manager.
    DetachAll,
}

impl InterestChange {
    /// Whether it reads no history.
    fn is_short(&self) -> bool {
        !matches!(self, Self::Attach { from, .. } if *from != StartFrom::Live)
    }

    /// The topics and pattern sets to add or remove.
    fn name_count(&self) -> usize {
        match self {
            Self::Attach { interest, .. } | Self::Detach { interest, .. } => {
                interest.topics.len() + 1
            }
            Self::DetachAll => 0,
        }
    }
}

/// One message to a topic manager. `P` is a publish permit.
#[derive(Debug)]
pub enum Delivery<P> {
    /// An event for streams of this manager.
    Event { event: Arc<SequencedEvent>, permit: Option<P> },
    /// The answer to an attach: a page of the stream's replay. After the last page, every later
    /// event follows live.
    Attached { stream: StreamId, replay: Replay },
    /// Streams missed events, or a new epoch began.
    Interrupted(Arc<Interruption>),
    /// The link to other instances is back after an outage. Their calls during the outage are lost.
    /// Events published during the outage follow.
    Relinked,
    /// The partition has dropped all listeners of the manager: it was rebuilt, or the manager's
    /// queue was over its bound.
    Restarted,
}

/// Events of a partition missed by open streams, and too late for delivery in order. Or only a new
/// epoch of the same sequences.
#[derive(Debug, PartialEq, Eq)]
pub struct Interruption {
    pub partition: u16,
    /// `None` if no event is missed.
    pub reason: Option<MissedReason>,
    /// Only streams listening to one of these topics are concerned. If empty, all streams of the
    /// partition are.
    pub topics: Vec<Topic>,
    /// The new epoch, and the sequence before its first event.
    pub beginning: Option<(Epoch, u64)>,
    /// Whether events of before follow again.
    pub repeats: bool,
}

/// The parts for building a partition, at its start and after a panic.
#[derive(Debug, Clone)]
pub struct PartitionSpec {
    pub partition: u16,
    pub epoch: Epoch,
    pub policies: Arc<Policies>,
    pub budget: Arc<HistoryBudget>,
    pub clock: Arc<WallClock>,
    /// The start of the hub, in milliseconds since 1970.
    pub started_ms: u64,
    pub max_idle_topics: usize,
    pub idempotency_window: Duration,
    pub remembered: Arc<IdBudget>,
    /// Bounds the followers recorded for fan-outs with an id.
    pub remembered_fan_outs: Arc<IdBudget>,
}

impl PartitionSpec {
    /// An empty log which is no cache of another. A budget keeping nothing has no current values
    /// to lose.
    fn own_log(&self, sequence: u64, began_at: u64) -> PartitionLog {
        let log = self.log(self.epoch, sequence, began_at);
        if self.budget.keeps_events() { log.telling_lost_values() } else { log }
    }

    /// An empty log starting after a sequence, at this time.
    pub fn log(&self, epoch: Epoch, sequence: u64, began_at: u64) -> PartitionLog {
        PartitionLog::new(
            epoch,
            self.partition,
            sequence,
            began_at,
            self.policies.clone(),
            self.budget.clone(),
            self.max_idle_topics,
        )
    }
}

/// A partition of any kind.
pub enum PartitionState<P> {
    Memory(Box<MemoryPartition<P>>),
    Journaled(Box<JournaledPartition<P>>),
    Replica(Box<Replica<P>>),
}

/// The result of a publish.
pub enum Publishing<T> {
    /// The partition decided: the event is stored and queued for its streams, or refused.
    Decided(Result<T, PublishError>),
    /// The event has its sequence, and waits for the journal. An [`Outcome`] follows.
    Journaled,
    /// The caller appends the event to the log elsewhere. `receivers` streams of this instance
    /// listen.
    Append { receivers: usize },
}

impl<P: Clone> PartitionState<P> {
    /// Builds the partition anew after a panic.
    pub fn rebuild(self) -> Self {
        match self {
            Self::Memory(memory) => Self::Memory(Box::new(memory.rebuild())),
            Self::Journaled(journaled) => Self::Journaled(Box::new(journaled.rebuild())),
            Self::Replica(replica) => Self::Replica(Box::new(replica.rebuild())),
        }
    }

    /// Whether this instance sets the clock; otherwise the log elsewhere does.
    pub fn sets_clock(&self) -> bool {
        !matches!(self, Self::Replica(_))
    }

    /// Publishes one event, or counts its receivers for a log elsewhere.
    pub fn publish(
        &mut self,
        topic: &Topic,
        event: &SharedEvent,
        permit: Option<&P>,
        now: Instant,
    ) -> Publishing<Taken> {
        match self {
            Self::Memory(memory) => Publishing::Decided(memory.publish(topic, event, permit, now)),
            Self::Journaled(journaled) => journaled.publish(topic, event, permit, now),
            Self::Replica(replica) => {
                let receivers =
                    replica.routing.listeners.receivers(topic, event.event().sent_type());
                Publishing::Append { receivers: receivers.stream_count }
            }
        }
    }

    /// Publishes one event to many topics.
    pub fn fan_out(
        &mut self,
        fan_out: &FanOutPublish,
        topics: &[Topic],
        permit: Option<&P>,
        now: Instant,
    ) -> Publishing<(FannedOut, Vec<u16>)> {
        match self {
            Self::Memory(memory) => {
                Publishing::Decided(memory.fan_out(fan_out, topics, permit, now))
            }
            Self::Journaled(journaled) => journaled.fan_out(fan_out, topics, permit, now),
            Self::Replica(_) => Publishing::Append { receivers: 0 },
        }
    }

    /// The deliveries queued for managers.
    pub fn routing(&mut self) -> &mut Routing<P> {
        match self {
            Self::Memory(memory) => &mut memory.routing,
            Self::Journaled(journaled) => &mut journaled.memory.routing,
            Self::Replica(replica) => &mut replica.routing,
        }
    }

    /// The replica; `None` with a log of its own.
    pub fn replica(&mut self) -> Option<&mut Replica<P>> {
        match self {
            Self::Memory(_) | Self::Journaled(_) => None,
            Self::Replica(replica) => Some(replica),
        }
    }

    /// The partition with its log on disk.
    pub fn journaled(&mut self) -> Option<&mut JournaledPartition<P>> {
        match self {
            Self::Journaled(journaled) => Some(journaled),
            Self::Memory(_) | Self::Replica(_) => None,
        }
    }

    /// The partition in memory, perhaps in front of a journal; `None` for a replica.
    pub fn memory(&mut self) -> Option<&mut MemoryPartition<P>> {
        match self {
            Self::Memory(memory) => Some(memory),
            Self::Journaled(journaled) => Some(&mut journaled.memory),
            Self::Replica(_) => None,
        }
    }

    /// Records the mode of the fan-out `name`; the answer is the mode recorded first (`true` for
    /// pull). `None` for a replica.
    pub fn record_fan_out_mode(
        &mut self,
        name: &Arc<str>,
        publisher: PublisherId,
        is_pull: bool,
        now: Instant,
    ) -> Option<Publishing<bool>> {
        match self {
            Self::Memory(memory) => {
                Some(Publishing::Decided(memory.record_fan_out_mode(name, publisher, is_pull, now)))
            }
            Self::Journaled(journaled) => {
                Some(journaled.record_fan_out_mode(name, publisher, is_pull, now))
            }
            Self::Replica(_) => None,
        }
    }

    /// Takes the other partitions due to trim their history after removed keys.
    pub fn take_trims(&mut self) -> Vec<u16> {
        match self {
            Self::Memory(memory) => memory.take_trims(),
            Self::Journaled(journaled) => journaled.take_trims(),
            Self::Replica(_) => Vec::new(),
        }
    }

    /// Streams of this instance listening to a topic.
    pub fn subscriber_count(&mut self, topic: &Topic) -> usize {
        self.routing().listeners.subscriber_count(topic)
    }

    /// Applies the changes in order. A delivery answers each attach: at once, or in a later
    /// [`Self::continue_changes`]; with a replica, after the missing events have arrived.
    pub fn change_interest(
        &mut self,
        manager: ManagerId,
        changes: Vec<InterestChange>,
        now: Instant,
    ) {
        match self {
            Self::Memory(memory) => memory.change_interest(manager, changes, now),
            Self::Journaled(journaled) => journaled.memory.change_interest(manager, changes, now),
            Self::Replica(replica) => replica.change_interest(manager, changes, now),
        }
    }

    /// Whether changes are left for later turns.
    pub fn has_changes(&self) -> bool {
        match self {
            Self::Memory(memory) => memory.has_changes(),
            Self::Journaled(journaled) => journaled.memory.has_changes(),
            Self::Replica(_) => false,
        }
    }

    /// Applies changes left over by the bound on a turn. Returns whether more are left.
    pub fn continue_changes(&mut self, now: Instant) -> bool {
        match self {
            Self::Memory(memory) => memory.continue_changes(now),
            Self::Journaled(journaled) => journaled.memory.continue_changes(now),
            Self::Replica(_) => false,
        }
    }

    /// Forgets a manager and its streams.
    pub fn remove_manager(&mut self, manager: ManagerId, now: Instant) {
        match self {
            Self::Memory(memory) => memory.remove_manager(manager),
            Self::Journaled(journaled) => journaled.memory.remove_manager(manager),
            Self::Replica(replica) => replica.remove_manager(manager, now),
        }
    }

    /// Evicts the oldest events while the history budget is exceeded.
    pub fn trim(&mut self, now: Instant) {
        match self {
            Self::Memory(memory) => memory.trim(now),
            Self::Journaled(journaled) => journaled.trim(),
            Self::Replica(replica) => replica.trim(),
        }
    }

    /// Removes keys at the end of their time to live. Returns the next end; `None` also for a
    /// replica, whose log removes them.
    pub fn end_keys(&mut self, now: Instant) -> Option<Instant> {
        match self {
            Self::Memory(memory) => memory.end_keys(now),
            Self::Journaled(journaled) => journaled.end_keys(now),
            Self::Replica(_) => None,
        }
    }

    /// Forgets expired events and ids, and unused channels.
    pub fn expire(&mut self, now: Instant) {
        match self {
            Self::Memory(memory) => memory.expire(now),
            Self::Journaled(journaled) => journaled.expire(now),
            Self::Replica(replica) => replica.expire(now),
        }
    }

    /// The number of topics in the log.
    pub fn topic_count(&self) -> usize {
        match self {
            Self::Memory(memory) => memory.topic_count(),
            Self::Journaled(journaled) => journaled.memory.topic_count(),
            Self::Replica(replica) => replica.topic_count(),
        }
    }
}
