//! A partition whose log is in Redis, as this instance sees it: a recent part of the log,
//! kept up to date by pushes, and the streams that listen here.
//!
//! Pushes and answers come in one order, that in which Redis did them (a connection keeps
//! it). So an answer is a cut: what was pushed before it is older than the head it names,
//! what comes after is newer. A push may be missing only where a connection was lost, and
//! each says which event of its topic came before it, so a hole is found even if it should
//! not be there. Then, and after every reconnect, the replica **catches up**: pushes are
//! held, what changed since the last cut is read, and both go on in sequence order.
//!
//! A stream begins once all its channels are subscribed and what it lacks is here.

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

/// Deliveries that a manager may leave untaken: references to events, of which the log keeps
/// most anyway.
const MAX_QUEUED_DELIVERIES: usize = 100_000;

/// What a replica is built from, at its start and after a panic.
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
        /// Pushes of topics whose subscription is not confirmed yet.
        unconfirmed: PushBuffer,
    },
}

/// The replica waits for the events it missed.
#[derive(Debug, Default)]
struct CatchingUp {
    /// Number of the request whose answer ends it; 0 while the epoch is being renewed first.
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
    /// The server that this replica last heard of.
    server: Option<String>,
    /// The last publish of this instance that another server answered than that one.
    acknowledged: Option<Acknowledged>,
    /// Managers that do not take what is queued for them.
    overflowed: BTreeSet<ManagerId>,
    /// Highest sequence that this instance knows to have been given out.
    highest: u64,
    /// The last sequence up to which all changes were accounted for.
    cut: u64,
    coverage: Coverage,
    waiting: Vec<PendingAttach>,
    /// What is being read for streams, and after which sequence.
    reading: HashMap<Topic, u64>,
    /// Requests for changes for streams: their serials, and after which sequences.
    listing: Vec<(u64, u64)>,
    /// Number of the last request that has one.
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

    /// Builds the replica anew. It waits for a new connection, and remembers what was given
    /// out, so that a loss is still noticed.
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
        // That of the requests that will follow the subscription.
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
                    // What is queued for it stays: where an epoch ends, the manager must know.
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

    /// Takes what a connection brings, or that there is none, in the order it came.
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

    /// What is to be asked, in this order, and of which connection.
    pub fn take_requests(&mut self) -> (u64, Vec<LogRequest>) {
        (self.generation, std::mem::take(&mut self.requests))
    }

    /// Other partitions that must trim their history.
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

    /// Forgets what time has overtaken, and channels that nobody wants any more.
    pub fn expire(&mut self, now: Instant) {
        self.log.expire(now);
        if !self.is_up() {
            // What is known of a topic may rest on what is still held.
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
        // Not those either whose own subscription is not in force yet: what comes meanwhile
        // would be missing in between.
        self.log.keep_topics(|topic| coverage.topic_since(topic).is_some());
        self.requests.push(LogRequest::Unsubscribe(gone));
    }

    /// How many topics are known here.
    pub fn topic_count(&self) -> usize {
        self.log.topic_count()
    }

    /// How often what was missing was read after a connection was lost or a hole found.
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

    /// Keeps a push of a topic whose subscription is not confirmed yet: the topic's read is in
    /// flight, and brings this event or older ones.
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

    /// Tells streams that they have missed something, or that sequences begin anew.
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

    /// Lets go of managers that do not take their deliveries: nobody can be asked to publish
    /// less, as the events come from other instances. Their streams end, and resume.
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
