//! A replica: the recent part of a log kept elsewhere. Pushes keep it up to date for the streams of
//! this instance.
//!
//! Pushes and answers share a connection, so they arrive in the order of Redis' execution. So an
//! answer is a cut: pushes before it are older than its head, pushes after it are newer. Only a
//! lost connection loses pushes. As a second check, each push names its topic's previous sequence.
//!
//! After a missing push, and after every reconnect, the replica **catches up**:
//! 1. It holds new pushes back.
//! 2. It reads everything changed since the last cut.
//! 3. It continues in sequence order.
//!
//! A stream begins once its channels are confirmed and its missing events are here.

mod arrivals;
mod asking;
mod attach;
mod catch_up;
mod coverage;
mod events;
mod push_buffer;
mod reads;
mod tail_losses;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    cursor::Epoch,
    event::SequencedEvent,
    ids::{ManagerId, StreamId},
    interest::Interest,
    log::{Channel, LogEvent, LogRequest, LogUpdate, Purpose},
    partition::{
        Delivery, InterestChange, Interruption, PartitionSpec,
        replica::{
            arrivals::{Arrival, Arrivals},
            attach::{PendingAttach, ToldLosses, channels_of},
            coverage::Coverage,
            push_buffer::PushBuffer,
            reads::{ListInFlight, Pinned, ReadInFlight},
            tail_losses::{AcknowledgedTails, TailLosses},
        },
        routing::Routing,
    },
    partition_log::{MissedReason, PartitionLog},
    topic::Topic,
};

/// Bound on the deliveries queued for a manager. They are references to events, and the log keeps
/// most of these events anyway.
const MAX_QUEUED_DELIVERIES: usize = 100_000;

/// The parts for building a replica, at its start and after a panic.
#[derive(Debug, Clone)]
pub struct ReplicaSpec {
    pub partition: PartitionSpec,
    /// How long a channel stays subscribed after its last stream.
    pub interest_grace: Duration,
}

/// The replica's view of its link to the log.
#[derive(Debug, Default)]
enum LinkState {
    #[default]
    Down,
    CatchingUp(CatchingUp),
    Up {
        /// Pushes of topics with an unconfirmed subscription.
        unconfirmed: PushBuffer,
    },
}

/// The replica waits for its missed events.
#[derive(Debug, Default)]
struct CatchingUp {
    /// Number of the request ending the catch-up; 0 while a new epoch is requested first.
    serial: u64,
    /// Pushes held back until the missed events are here.
    held: PushBuffer,
    /// Whether `held` overflowed and dropped pushes: then the replica catches up once more.
    has_dropped: bool,
    /// The epoch to be replaced by a requested new one.
    renewing: Option<Epoch>,
}

/// A partition with its log elsewhere, for example in Redis.
pub struct Replica<P> {
    spec: ReplicaSpec,
    log: PartitionLog,
    /// Whether the epoch is known: false before the first contact.
    is_known: bool,
    /// Earlier epochs of the log's sequences. Their positions are valid too.
    earlier_epochs: Vec<Epoch>,
    link: LinkState,
    arrivals: Arrivals,
    generation: u64,
    /// The `run_id` of the last known server.
    server: Option<String>,
    acknowledged: AcknowledgedTails,
    /// Managers with too many untaken deliveries.
    overflowed: BTreeSet<ManagerId>,
    /// Highest known sequence given out by the log.
    highest: u64,
    losses: TailLosses,
    /// The last cut: the replica has handled every change up to this sequence.
    cut: u64,
    /// The epoch's gap has told the streams of all events lost up to this sequence.
    told_through: u64,
    coverage: Coverage,
    waiting: Vec<PendingAttach>,
    /// Streams between two pages of their replay, not attached yet, with the losses told so far.
    replaying: HashMap<(ManagerId, StreamId), ToldLosses>,
    /// Reads in flight for streams.
    reading: Vec<ReadInFlight>,
    /// Seconds with a request in flight for their positions.
    locating: BTreeSet<u64>,
    /// Requests in flight for changed topics.
    listing: Vec<ListInFlight>,
    pinned: Pinned,
    /// Number of the last numbered request.
    serial: u64,
    /// Number of the request in flight for the head; 0 without one.
    head_serial: u64,
    pub(super) routing: Routing<P>,
    managers: BTreeSet<ManagerId>,
    requests: Vec<LogRequest>,
    trims: Vec<u16>,
    refill_count: u64,
}

impl<P> Replica<P> {
    pub fn new(spec: ReplicaSpec) -> Self {
        Self {
            log: spec.partition.log(spec.partition.epoch, 0, 0),
            is_known: false,
            earlier_epochs: Vec::new(),
            link: LinkState::default(),
            arrivals: Arrivals::default(),
            generation: 0,
            server: None,
            acknowledged: AcknowledgedTails::default(),
            highest: 0,
            losses: TailLosses::default(),
            cut: 0,
            told_through: 0,
            coverage: Coverage::default(),
            overflowed: BTreeSet::new(),
            waiting: Vec::new(),
            replaying: HashMap::new(),
            reading: Vec::new(),
            locating: BTreeSet::new(),
            listing: Vec::new(),
            pinned: Pinned::default(),
            serial: 0,
            head_serial: 0,
            routing: Routing::default(),
            managers: BTreeSet::new(),
            requests: Vec::new(),
            trims: Vec::new(),
            refill_count: 0,
            spec,
        }
    }

    /// Builds the replica anew. It waits for a new link, and keeps the highest sequence given out:
    /// so it notices lost events later.
    pub fn rebuild(self) -> Self {
        let (epoch, position) = (self.log.epoch(), self.log.sequence());
        let (server, highest) = (self.server, self.highest.max(position));
        let acknowledged = self.acknowledged;
        // First return the old log's part of the budget.
        drop(self.log);
        let fresh = Self::new(self.spec);
        let log = fresh.spec.partition.log(epoch, 0, 0);
        Self { log, server, acknowledged, highest, ..fresh }
    }

    /// Applies the changes in order. A delivery answers each attach, once the missing events of the
    /// stream are here.
    pub fn change_interest(
        &mut self,
        manager: ManagerId,
        changes: Vec<InterestChange>,
        now: Instant,
    ) {
        if self.managers.insert(manager) && self.generation > 0 {
            // The new manager may have read feeds during an outage, and missed the calls of other
            // instances since. `Relinked` makes it read the feeds again.
            self.queue(manager, Delivery::Relinked);
        }
        let mut new_channels = Vec::new();
        // The number of the first request after the subscription. Redis executes both in order, so
        // its answer proves the subscription.
        let serial = self.serial + 1;
        for change in changes {
            match change {
                InterestChange::Attach { stream, interest, from, max_bytes } => {
                    for channel in channels_of(&interest) {
                        if self.coverage.want(&channel, serial) {
                            new_channels.push(channel);
                        }
                    }
                    self.waiting.push(PendingAttach {
                        manager,
                        stream,
                        interest,
                        from,
                        max_bytes,
                        told: self.replaying.remove(&(manager, stream)).unwrap_or_default(),
                        came_after: self.serial,
                        has_head: false,
                        changed: None,
                        asked: None,
                        read: None,
                        pinned_after: None,
                    });
                }
                InterestChange::Detach { stream, interest } => {
                    self.detach(manager, stream, &interest, now);
                }
                InterestChange::DetachAll => {
                    // The queued deliveries stay: one may announce a new epoch to the manager.
                    self.routing.listeners.remove_manager(manager);
                    self.waiting.retain(|waiting| waiting.manager != manager);
                    self.replaying.retain(|(other, _), _| *other != manager);
                    self.coverage.leave_all(now);
                }
            }
        }
        if !matches!(self.link, LinkState::Down) && !new_channels.is_empty() {
            self.subscribe(new_channels);
        }
        self.answer_waiting();
    }

    /// Applies one log update. The caller passes them on in order.
    pub fn on_update(&mut self, news: LogUpdate, now: Instant) {
        match news {
            LogUpdate::LinkUp { generation, acknowledged } => {
                self.on_link_up(generation, &acknowledged)
            }
            LogUpdate::LinkDown => self.on_link_down(),
            // An update of an ended link. The next link reads everything after the cut again.
            _ if matches!(self.link, LinkState::Down) => {}
            news => {
                if self.arrival_of(&news) == Arrival::Missing {
                    // Before the newer push: it must wait for the missing one.
                    self.on_pushes_missing();
                }
                self.apply_update(news, now);
            }
        }
        self.drop_overflowed(now);
    }

    /// Whether all pushes before this update have arrived.
    fn arrival_of(&mut self, news: &LogUpdate) -> Arrival {
        let coverage = &self.coverage;
        match news {
            LogUpdate::Announced { first, topics } => {
                let last = first + (topics.len() as u64).saturating_sub(1);
                let due = (*first..).zip(topics).filter(|(sequence, topic)| {
                    coverage.topic_since(topic).is_some_and(|since| since < *sequence)
                });
                self.arrivals.announce(*first, last, due.map(|(sequence, _)| sequence))
            }
            LogUpdate::FannedOut(events) => match (events.first(), events.last()) {
                (Some(first), Some(last)) => {
                    self.arrivals.announce(first.sequence, last.sequence, std::iter::empty())
                }
                _ => Arrival::Whole,
            },
            LogUpdate::Event(event) => self.arrivals.arrive(event.sequence),
            LogUpdate::Head { purpose, head } => {
                self.arrivals.answer(head.sequence, purpose.is_some())
            }
            LogUpdate::Located { head, .. }
            | LogUpdate::Changes { head, .. }
            | LogUpdate::Read { head, .. } => self.arrivals.answer(head.sequence, true),
            LogUpdate::LinkUp { .. } | LogUpdate::LinkDown | LogUpdate::PushesMissing => {
                Arrival::Whole
            }
        }
    }

    /// Applies an update of the present link.
    fn apply_update(&mut self, news: LogUpdate, now: Instant) {
        match news {
            LogUpdate::LinkUp { .. } | LogUpdate::LinkDown | LogUpdate::Announced { .. } => {}
            LogUpdate::PushesMissing => self.on_pushes_missing(),
            LogUpdate::Event(event) => self.on_event(event, now),
            LogUpdate::FannedOut(events) => {
                // Most followers have no stream on this instance: skip their topics.
                let wanted = events.into_iter().filter(|one| self.coverage.covers(&one.topic));
                wanted.collect::<Vec<_>>().into_iter().for_each(|one| self.on_event(one, now));
            }
            LogUpdate::Head { purpose, head } => self.on_head(purpose, &head, now),
            LogUpdate::Located { head, second, sequence, .. } => {
                self.on_located(&head, second, sequence);
            }
            LogUpdate::Changes { purpose: Purpose::CatchUp { serial }, head, changed } => {
                if self.accepts(&head) && self.is_catching_up_by(serial) {
                    self.on_changes(&head, &changed, now);
                }
            }
            LogUpdate::Changes { purpose: Purpose::Attach { serial }, head, changed } => {
                self.on_changes_for_streams(serial, &head, changed);
            }
            LogUpdate::Read { purpose: Purpose::CatchUp { serial }, head, topics, .. } => {
                if self.accepts(&head) && self.is_catching_up_by(serial) {
                    self.finish_catching_up(&head, topics, now);
                }
            }
            LogUpdate::Read { purpose: Purpose::Attach { serial }, head, through, topics } => {
                self.on_read_for_streams(serial, &head, through, topics, now);
            }
        }
    }

    /// Takes the pending requests, in order, with the generation of their link.
    pub fn take_requests(&mut self) -> (u64, Vec<LogRequest>) {
        (self.generation, std::mem::take(&mut self.requests))
    }

    /// Takes the other partitions due to trim their history.
    pub fn take_trims(&mut self) -> Vec<u16> {
        std::mem::take(&mut self.trims)
    }

    /// Forgets a manager and its streams.
    pub fn remove_manager(&mut self, manager: ManagerId, now: Instant) {
        self.change_interest(manager, vec![InterestChange::DetachAll], now);
        self.managers.remove(&manager);
        self.routing.drop_outgoing(manager);
    }

    /// Evicts events while the budget is exceeded and this partition has the oldest.
    pub fn trim(&mut self) {
        self.trims.extend(self.log.trim());
    }

    /// Forgets expired events and unused channels.
    pub fn expire(&mut self, now: Instant) {
        self.log.expire(now);
        if !self.is_up() {
            // Coverage may depend on held pushes: keep all channels until they are applied.
            return;
        }
        if !self.coverage.has_expired(now, self.spec.interest_grace) {
            return;
        }
        let waiting = self.waiting.iter().flat_map(|waiting| channels_of(&waiting.interest));
        let waited_for: HashSet<Channel> = waiting.collect();
        let listeners = &self.routing.listeners;
        let gone = self.coverage.expire(now, self.spec.interest_grace, |channel| {
            waited_for.contains(channel)
                || match channel {
                    Channel::Topic(topic) => listeners.has_topic(topic),
                    Channel::All => listeners.has_patterns(),
                }
        });
        if gone.is_empty() {
            return;
        }
        let coverage = &self.coverage;
        // Also drop the history of topics with an unconfirmed subscription: it would get a hole.
        self.log.keep_topics(|topic| coverage.topic_since(topic).is_some());
        self.requests.push(LogRequest::Unsubscribe(gone));
    }

    /// The number of topics in the replica.
    pub fn topic_count(&self) -> usize {
        self.log.topic_count()
    }

    /// The number of catch-ups, without the first contact.
    pub fn refill_count(&self) -> u64 {
        self.refill_count
    }

    fn detach(&mut self, manager: ManagerId, stream: StreamId, interest: &Interest, now: Instant) {
        let is_it =
            |waiting: &PendingAttach| waiting.manager == manager && waiting.stream == stream;
        match self.waiting.iter().position(is_it) {
            Some(index) => {
                self.waiting.swap_remove(index);
            }
            None if self.replaying.contains_key(&(manager, stream)) => {}
            None => self.routing.listeners.detach(manager, interest),
        }
        self.replaying.remove(&(manager, stream));
        for topic in &interest.topics {
            if !self.routing.listeners.has_topic(topic) {
                self.coverage.leave(Channel::Topic(topic.clone()), now);
            }
        }
        if !interest.patterns.is_empty() && !self.routing.listeners.has_patterns() {
            self.coverage.leave(Channel::All, now);
        }
    }

    fn is_up(&self) -> bool {
        matches!(self.link, LinkState::Up { .. })
    }

    /// Whether the request of this number ends the present catch-up.
    fn is_catching_up_by(&self, serial: u64) -> bool {
        matches!(&self.link, LinkState::CatchingUp(catching_up) if catching_up.serial == serial)
    }

    /// Replaces the log. Pins stay.
    fn replace_log(&mut self, epoch: Epoch, sequence: u64) {
        self.log = self.spec.partition.log(epoch, sequence, 0);
        self.log.pin(self.pinned.after);
    }

    /// Tells all managers about missed events or a new epoch.
    fn interrupt(
        &mut self,
        reason: Option<MissedReason>,
        topics: Vec<Topic>,
        beginning: Option<(Epoch, u64)>,
    ) {
        let partition = self.spec.partition.partition;
        let repeats = false;
        let interruption = Arc::new(Interruption { partition, reason, topics, beginning, repeats });
        self.tell(&interruption);
    }

    /// Queues an interruption for all managers.
    fn tell(&mut self, interruption: &Arc<Interruption>) {
        for manager in self.managers.clone() {
            self.queue(manager, Delivery::Interrupted(interruption.clone()));
        }
    }

    fn queue(&mut self, manager: ManagerId, delivery: Delivery<P>) {
        if self.routing.queue(manager, delivery) > MAX_QUEUED_DELIVERIES {
            self.overflowed.insert(manager);
        }
    }

    /// Drops managers with too many untaken deliveries. Their streams end and resume. The events
    /// come from other instances, so the replica cannot slow down their publishers.
    fn drop_overflowed(&mut self, now: Instant) {
        for manager in std::mem::take(&mut self.overflowed) {
            self.change_interest(manager, vec![InterestChange::DetachAll], now);
            self.routing.replace_outgoing(manager, Delivery::Restarted);
        }
    }
}

/// The event in the form of this instance, with its policy. Its id names the present epoch: an
/// event read from the log may have an earlier one.
fn sequenced(
    event: LogEvent,
    partition: u16,
    epoch: Epoch,
    policy: Arc<crate::policy::Policy>,
) -> SequencedEvent {
    let LogEvent { sequence, published_at, unix_ms, topic, body, .. } = event;
    SequencedEvent {
        topic,
        partition,
        epoch,
        sequence,
        published_at,
        unix_ms,
        policy,
        body,
        collapsed: None,
    }
}

#[cfg(test)]
mod tests;
