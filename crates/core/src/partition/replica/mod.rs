//! A replica: the recent part of a log kept elsewhere, up to date by pushes, with the streams
//! listening on this instance.
//!
//! Pushes and answers arrive in the order of Redis' execution, since they share a connection. So an
//! answer is a cut: pushes before it are older than its head, pushes after it newer. Only a lost
//! connection can swallow a push. Each push names its topic's previous sequence, so a hole is found
//! in any case. After a hole, and after every reconnect, the replica **catches up**: it holds
//! pushes, reads everything changed since the last cut, and continues in sequence order.
//!
//! A stream begins once its channels are subscribed and its missing events are here.

mod asking;
mod attach;
mod catch_up;
mod coverage;
mod push_buffer;

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
    log::{Acknowledged, Channel, LogEvent, LogRequest, LogUpdate, Purpose},
    partition::{
        Delivery, InterestChange, Interruption, PartitionSpec,
        replica::{
            attach::{PendingAttach, channels_of},
            coverage::Coverage,
            push_buffer::PushBuffer,
        },
        routing::Routing,
    },
    partition_log::{MissedReason, PartitionLog},
    topic::Topic,
};

/// Bound on the deliveries queued for a manager: references to events, most of them in the log
/// anyway.
const MAX_QUEUED_DELIVERIES: usize = 100_000;

/// The parts of a replica, at its start and after a panic.
#[derive(Debug, Clone)]
pub struct ReplicaSpec {
    pub partition: PartitionSpec,
    /// How long a channel stays subscribed after its last stream.
    pub interest_grace: Duration,
}

/// The link to the log, as the replica sees it.
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

/// The replica waits for the events it missed.
#[derive(Debug, Default)]
struct CatchingUp {
    /// Number of the request ending it; 0 while a new epoch is requested first.
    serial: u64,
    /// Pushes held until the missing events are here.
    held: PushBuffer,
    /// Whether the buffer overflowed: then the replica has to catch up once more.
    has_dropped: bool,
    /// Whether another epoch was requested.
    is_renewing: bool,
}

/// A partition of a log in Redis.
pub struct Replica<P> {
    spec: ReplicaSpec,
    log: PartitionLog,
    /// Whether the epoch is known: not before the first contact.
    is_known: bool,
    link: LinkState,
    generation: u64,
    /// The last known server.
    server: Option<String>,
    /// The last publish of this instance confirmed by another server than that.
    acknowledged: Option<Acknowledged>,
    /// Managers with too many untaken deliveries.
    overflowed: BTreeSet<ManagerId>,
    /// Highest sequence known to be given out.
    highest: u64,
    /// All changes up to this sequence are accounted for.
    cut: u64,
    coverage: Coverage,
    waiting: Vec<PendingAttach>,
    /// Topics being read for streams, each after a sequence.
    reading: HashMap<Topic, u64>,
    /// Requests for changed topics for streams: their serials and positions.
    listing: Vec<(u64, u64)>,
    /// Number of the last numbered request.
    serial: u64,
    /// Number of the last request for the head that is under way; 0 if none is.
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
            log: spec.partition.log(spec.partition.epoch, 0),
            is_known: false,
            link: LinkState::default(),
            generation: 0,
            server: None,
            acknowledged: None,
            highest: 0,
            cut: 0,
            coverage: Coverage::default(),
            overflowed: BTreeSet::new(),
            waiting: Vec::new(),
            reading: HashMap::new(),
            listing: Vec::new(),
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
    /// so a loss is still noticed.
    pub fn rebuild(self) -> Self {
        let (epoch, position) = (self.log.epoch(), self.log.sequence());
        let (server, highest) = (self.server, self.highest.max(position));
        let acknowledged = self.acknowledged;
        // The old log gives its part of the budget back first.
        drop(self.log);
        let fresh = Self::new(self.spec);
        let log = fresh.spec.partition.log(epoch, 0);
        Self { log, server, acknowledged, highest, ..fresh }
    }

    /// Applies the changes in order; an attach is answered by a delivery once it can be.
    pub fn change_interest(
        &mut self,
        manager: ManagerId,
        changes: Vec<InterestChange>,
        now: Instant,
    ) {
        if self.managers.insert(manager) && self.generation > 0 {
            // Its feeds may have been read while there was no link: it was not told of this one.
            self.queue(manager, Delivery::Relinked);
        }
        let mut new_channels = Vec::new();
        // The number of the first request after the subscription.
        let serial = self.serial + 1;
        for change in changes {
            match change {
                InterestChange::Attach { stream, interest, from } => {
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
                        changed: None,
                        came_after: self.serial,
                        has_head: false,
                        rounds: 0,
                    });
                }
                InterestChange::Detach { stream, interest } => {
                    self.detach(manager, stream, &interest, now);
                }
                InterestChange::DetachAll => {
                    // Its queued deliveries stay: the manager must learn of an ended epoch.
                    self.routing.listeners.remove_manager(manager);
                    self.waiting.retain(|waiting| waiting.manager != manager);
                    self.coverage.leave_all(now);
                }
            }
        }
        if !matches!(self.link, LinkState::Down) && !new_channels.is_empty() {
            self.subscribe(new_channels);
        }
        self.answer_waiting();
    }

    /// Applies one update of the link, in order.
    pub fn on_update(&mut self, news: LogUpdate, now: Instant) {
        match news {
            LogUpdate::LinkUp { generation, acknowledged } => {
                self.on_link_up(generation, acknowledged)
            }
            LogUpdate::LinkDown => self.on_link_down(),
            _ if matches!(self.link, LinkState::Down) => {}
            LogUpdate::Event(event) => self.on_event(event, now),
            LogUpdate::FannedOut(events) => {
                // Most of the followers are not here.
                let wanted = events.into_iter().filter(|one| self.coverage.covers(&one.topic));
                wanted.collect::<Vec<_>>().into_iter().for_each(|one| self.on_event(one, now));
            }
            LogUpdate::Head { purpose, head } => self.on_head(purpose, &head, now),
            LogUpdate::Changes { purpose: Purpose::CatchUp { serial }, head, changed } => {
                if self.accepts(&head) && self.is_catching_up_by(serial) {
                    self.on_changes(&head, &changed, now);
                }
            }
            LogUpdate::Changes { purpose: Purpose::Attach { serial }, head, changed } => {
                self.on_changes_for_streams(serial, &head, changed);
            }
            LogUpdate::Read { purpose: Purpose::CatchUp { serial }, head, topics } => {
                if self.accepts(&head) && self.is_catching_up_by(serial) {
                    self.finish_catching_up(&head, topics, now);
                }
            }
            LogUpdate::Read { purpose: Purpose::Attach { serial }, head, topics } => {
                self.on_read_for_streams(serial, &head, topics, now);
            }
        }
        self.drop_overflowed(now);
    }

    /// The pending requests in order, and the generation of their link.
    pub fn take_requests(&mut self) -> (u64, Vec<LogRequest>) {
        (self.generation, std::mem::take(&mut self.requests))
    }

    /// Other partitions due to trim their history.
    pub fn take_trims(&mut self) -> Vec<u16> {
        std::mem::take(&mut self.trims)
    }

    /// Forgets a manager and its streams.
    pub fn remove_manager(&mut self, manager: ManagerId, now: Instant) {
        self.change_interest(manager, vec![InterestChange::DetachAll], now);
        self.managers.remove(&manager);
        self.routing.drop_outgoing(manager);
    }

    /// Forgets the oldest events while the budget is exceeded and they are the oldest.
    pub fn trim(&mut self) {
        self.trims.extend(self.log.trim());
    }

    /// Forgets expired events and unused channels.
    pub fn expire(&mut self, now: Instant) {
        self.log.expire(now);
        if !self.is_up() {
            // Coverage may rest on pushes still held.
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
        // Also drop topics with an unconfirmed subscription: their history would have a hole.
        self.log.keep_topics(|topic| coverage.topic_since(topic).is_some());
        self.requests.push(LogRequest::Unsubscribe(gone));
    }

    /// How many topics are known here.
    pub fn topic_count(&self) -> usize {
        self.log.topic_count()
    }

    /// How often the replica caught up.
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
            None => self.routing.listeners.detach(manager, interest),
        }
        for topic in &interest.topics {
            if !self.routing.listeners.has_topic(topic) {
                self.coverage.leave(Channel::Topic(topic.clone()), now);
            }
        }
        if !interest.patterns.is_empty() && !self.routing.listeners.has_patterns() {
            self.coverage.leave(Channel::All, now);
        }
    }

    fn on_event(&mut self, event: LogEvent, now: Instant) {
        if self.is_known && event.epoch < self.log.epoch() {
            return;
        }
        if self.is_up() && event.epoch == self.log.epoch() {
            return self.pass(event, now);
        }
        if self.is_up() {
            self.catch_up();
        }
        self.hold(event);
    }

    fn pass(&mut self, event: LogEvent, now: Instant) {
        if self.coverage.topic_since(&event.topic).is_none() {
            return self.hold_unconfirmed(event);
        }
        let known = self.known_through(&event.topic);
        if event.sequence <= known {
            return;
        }
        if event.previous > known {
            // A push is missing. Nothing newer of this topic may pass before it.
            self.catch_up();
            return self.hold(event);
        }
        if event.sequence > self.log.sequence() {
            self.apply(event, now);
        } else {
            self.apply_late(vec![event], now);
        }
    }

    /// Keeps a push of a topic with an unconfirmed subscription. The topic's read in flight brings
    /// this event or older ones, so applying the push now could open a hole.
    fn hold_unconfirmed(&mut self, event: LogEvent) {
        let LinkState::Up { unconfirmed } = &mut self.link else { return };
        if self.coverage.covers(&event.topic) {
            unconfirmed.push(event);
        }
        if unconfirmed.is_over_full() {
            self.catch_up();
        }
    }

    fn is_up(&self) -> bool {
        matches!(self.link, LinkState::Up { .. })
    }

    /// Whether the answer to the request of this number ends the present catching up.
    fn is_catching_up_by(&self, serial: u64) -> bool {
        matches!(&self.link, LinkState::CatchingUp(catching_up) if catching_up.serial == serial)
    }

    /// Events of the topic up to here have come, or came before anybody wanted them.
    fn known_through(&self, topic: &Topic) -> u64 {
        let since = self.coverage.topic_since(topic).unwrap_or(0);
        match self.log.history(topic) {
            Some(history) => history.last().max(since),
            None => self.log.forgotten_through().max(since),
        }
    }

    fn apply(&mut self, event: LogEvent, now: Instant) {
        if self.log.history(&event.topic).is_none() {
            let begin = self.begin_of(&event.topic);
            self.log.begin_topic(&event.topic, begin);
        }
        let partition = self.spec.partition.partition;
        let topic = event.topic.clone();
        let (event, trim) = self.log.append_at(event.sequence, &topic, now, |_, history| {
            sequenced(event, partition, history.policy.clone())
        });
        self.trims.extend(trim);
        let receivers = self.routing.listeners.receivers(&topic, event.event_type());
        for manager in receivers.managers {
            self.queue(manager, Delivery::Event { event: event.clone(), permit: None });
        }
    }

    fn merge(&mut self, topic: &Topic, events: Vec<LogEvent>, after: u64, lost_through: u64) {
        let begin = self.begin_of(topic);
        if self.log.history(topic).is_none() {
            self.log.begin_topic(topic, begin);
        }
        let policy = self.spec.partition.policies.of(topic.as_str());
        let partition = self.spec.partition.partition;
        let events = events.into_iter();
        let events = events.map(|event| Arc::new(sequenced(event, partition, policy.clone())));
        self.log.merge(topic, events.collect(), after, lost_through);
    }

    /// Tells streams about missed events or a new epoch.
    fn interrupt(
        &mut self,
        reason: MissedReason,
        topics: Vec<Topic>,
        beginning: Option<(Epoch, u64)>,
    ) {
        let partition = self.spec.partition.partition;
        let interruption = Arc::new(Interruption { partition, reason, topics, beginning });
        for manager in self.managers.clone() {
            self.queue(manager, Delivery::Interrupted(interruption.clone()));
        }
    }

    fn queue(&mut self, manager: ManagerId, delivery: Delivery<P>) {
        if self.routing.queue(manager, delivery) > MAX_QUEUED_DELIVERIES {
            self.overflowed.insert(manager);
        }
    }

    /// Drops managers not taking their deliveries: the events come from other instances, so no
    /// publisher can be slowed down. Their streams end and resume.
    fn drop_overflowed(&mut self, now: Instant) {
        for manager in std::mem::take(&mut self.overflowed) {
            self.change_interest(manager, vec![InterestChange::DetachAll], now);
            self.routing.replace_outgoing(manager, Delivery::Restarted);
        }
    }
}

/// The event as this instance keeps and sends it.
fn sequenced(
    event: LogEvent,
    partition: u16,
    policy: Arc<crate::policy::Policy>,
) -> SequencedEvent {
    let LogEvent { epoch, sequence, published_at, topic, body, .. } = event;
    SequencedEvent {
        topic,
        partition,
        epoch,
        sequence,
        published_at,
        policy,
        body,
        collapsed: None,
    }
}
