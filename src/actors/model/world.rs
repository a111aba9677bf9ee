//! The parts under test, joined by queues that the schedule empties in any order.

mod linked;
mod verdict;

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use rand::{RngExt, rngs::StdRng};

use super::{
    any,
    client::Client,
    redis::{Redis, RedisPartition},
    reference::{Record, Reference},
};
use crate::{
    actors::{
        StreamId,
        connection::{ConnectionSpec, ConnectionState, Next},
        partition::{
            Delivery, InterestChange, MirrorSpec, MirrorState, PartitionSpec, PartitionState,
        },
        topic_manager::{Begin, Frames, ManagerSpec, ManagerState, Opening, Outlet},
    },
    config::{Config, Conflate, Flush, Rate, SlowConsumer, TopicHistory, TopicPolicy},
    domain::{
        budget::HistoryBudget,
        cursor::Epoch,
        event::Event,
        interest::StartFrom,
        policy::Policies,
        remembered::RememberedBudget,
        topic::{Pattern, Topic},
    },
    subscription::{Format, Subscription, Wanted},
    wire::ShutdownReason,
};

const PARTITIONS: u16 = 2;
const MANAGERS: usize = 2;
const CLIENTS: usize = 4;
const MAILBOX: usize = 2;
const HISTORY_TTL: Duration = Duration::from_secs(2);

const TOPICS: [&str; 8] =
    ["plain:a", "plain:b", "plain:c", "now:a", "lead:a", "latest:a", "key:a", "slow-tick:a"];
const PATTERNS: [&str; 5] = ["plain:*", "**", "*:a", "key:**", "now:*"];
const TYPES: [Option<&str>; 3] = [None, Some("x"), Some("y")];
const KEYS: [Option<&str>; 4] = [None, Some("k1"), Some("k2"), Some("k3")];

/// What the schedules reached, so that a check that nothing reaches is seen.
#[derive(Debug, Default)]
pub struct Totals {
    got: usize,
    gaps: usize,
    shutdowns: usize,
    superseded: usize,
    resumed: usize,
    refused_mail: usize,
}

impl Totals {
    pub fn add(&mut self, other: &Self) {
        self.got += other.got;
        self.gaps += other.gaps;
        self.shutdowns += other.shutdowns;
        self.superseded += other.superseded;
        self.resumed += other.resumed;
        self.refused_mail += other.refused_mail;
    }

    pub fn is_telling(&self) -> bool {
        let rare = [self.gaps, self.shutdowns, self.superseded, self.refused_mail];
        self.got > 10_000 && self.resumed > 1000 && rare.iter().all(|count| *count > 100)
    }
}

enum Mail {
    Open(Opening),
    Frames(Frames),
    Beat,
    Change(Arc<Wanted>, Option<Begin>),
    End(ShutdownReason),
}

/// A connection's mailbox.
#[derive(Clone, Default)]
struct Mailbox(Rc<RefCell<VecDeque<Mail>>>, Rc<RefCell<usize>>);

impl Outlet for Mailbox {
    fn open(&self, opening: Opening) {
        self.0.borrow_mut().push_back(Mail::Open(opening));
    }

    fn deliver(&self, frames: Frames) -> Result<(), Frames> {
        let mut mails = self.0.borrow_mut();
        if mails.len() >= MAILBOX {
            *self.1.borrow_mut() += 1;
            return Err(frames);
        }
        mails.push_back(Mail::Frames(frames));
        Ok(())
    }

    fn change(&self, wanted: &Arc<Wanted>, begin: Option<Begin>) {
        self.0.borrow_mut().push_back(Mail::Change(wanted.clone(), begin));
    }

    fn beat(&self) {
        if self.0.borrow().len() < MAILBOX {
            self.0.borrow_mut().push_back(Mail::Beat);
        }
    }

    fn end(&self, reason: ShutdownReason, _: Option<Duration>, _: Frames) {
        self.0.borrow_mut().push_back(Mail::End(reason));
    }
}

/// A partition whose log is here, or in Redis.
enum Node {
    Own(Option<Box<PartitionState>>),
    Mirror(Option<Box<MirrorState>>),
}

impl Node {
    fn take_outgoing(&mut self, manager: u64) -> Vec<Delivery> {
        match self {
            Self::Own(state) => state.as_mut().unwrap().take_outgoing(manager),
            Self::Mirror(state) => state.as_mut().unwrap().take_outgoing(manager),
        }
    }

    fn change_interest(&mut self, manager: u64, changes: Vec<InterestChange>, now: Instant) {
        match self {
            Self::Own(state) => state.as_mut().unwrap().change_interest(manager, changes, now),
            Self::Mirror(state) => state.as_mut().unwrap().change_interest(manager, changes, now),
        }
    }

    fn rebuild(&mut self) {
        match self {
            Self::Own(state) => *state = state.take().map(|state| Box::new(state.rebuild())),
            Self::Mirror(state) => *state = state.take().map(|state| Box::new(state.rebuild())),
        }
    }
}

struct PartitionNode {
    state: Node,
    /// Per manager: whether it must be told of a restart, and what is on its way to it.
    must_restart: [bool; MANAGERS],
    to_manager: [Option<Vec<Delivery>>; MANAGERS],
}

struct ManagerNode {
    state: ManagerState<Mailbox>,
    /// Per partition, what is on its way to it.
    to_partition: Vec<Option<Vec<InterestChange>>>,
}

/// One open stream of a client.
struct Session {
    stream: StreamId,
    manager: usize,
    mailbox: Mailbox,
    state: ConnectionState,
    /// Whether the actor still runs; its bytes may outlive it.
    is_actor_alive: bool,
    is_finished: bool,
    /// Written by the hub, not read by the client.
    wire: VecDeque<u8>,
}

pub struct World {
    rng: StdRng,
    now: Instant,
    config: Config,
    manager_spec: ManagerSpec,
    /// By instance; a world without Redis has one.
    instances: Vec<Vec<PartitionNode>>,
    redis: Option<Redis>,
    managers: Vec<ManagerNode>,
    clients: Vec<Client>,
    sessions: Vec<Option<Session>>,
    streams: BTreeMap<StreamId, usize>,
    reference: Reference,
    next_stream: StreamId,
    totals: Totals,
}

fn config(rng: &mut StdRng) -> Config {
    let mut config = Config::default();
    config.hub.partitions = PARTITIONS;
    config.history.events = rng.random_range(2..12);
    config.history.ttl = any(rng, &[HISTORY_TTL, Duration::from_secs(1000)]);
    config.outbox.max_bytes = any(rng, &[4096, 1 << 20]);
    config.outbox.slow_consumer = any(rng, &[SlowConsumer::Disconnect, SlowConsumer::DropOldest]);
    config.stream.max_batch_events = any(rng, &[3, 10_000]);
    config.stream.rate = Rate { events_per_second: any(rng, &[0, 0, 40]), burst: 3 };
    let policy = |pattern: &str, flush, conflate| TopicPolicy {
        pattern: pattern.to_owned(),
        flush: Some(flush),
        tick: None,
        conflate: Some(conflate),
        history: TopicHistory::default(),
        rate: None,
    };
    config.topics = vec![
        policy("now:*", Flush::Immediate, Conflate::None),
        policy("lead:*", Flush::Leading, Conflate::None),
        policy("latest:*", Flush::Tick, Conflate::Latest),
        policy("key:*", Flush::Tick, Conflate::LatestByKey),
        TopicPolicy {
            tick: Some(Duration::from_millis(700)),
            ..policy("slow-tick:*", Flush::Tick, Conflate::None)
        },
    ];
    config.validate().unwrap();
    config
}

impl World {
    /// A hub on its own, or two with a manager each and a Redis between them.
    pub fn new(mut rng: StdRng, has_redis: bool) -> Self {
        let config = config(&mut rng);
        let now = Instant::now();
        let epoch = Epoch::new(rng.random());
        let policies = Arc::new(Policies::new(&config).unwrap());
        let budget = Arc::new(HistoryBudget::new(usize::MAX / 2, PARTITIONS, now));
        let manager_spec = ManagerSpec::new(&config, now);
        let partition = |partition| {
            let spec = PartitionSpec {
                partition,
                epoch,
                policies: policies.clone(),
                budget: budget.clone(),
                max_idle_topics: 100,
                idempotency_window: Duration::from_secs(300),
                remembered: Arc::new(RememberedBudget::new(10_000)),
                remembered_fan_outs: Arc::new(RememberedBudget::new(10_000)),
            };
            let state = match has_redis {
                false => Node::Own(Some(Box::new(PartitionState::new(spec)))),
                true => {
                    let interest_grace = Duration::from_millis(300);
                    let spec = MirrorSpec { partition: spec, interest_grace };
                    Node::Mirror(Some(Box::new(MirrorState::new(spec))))
                }
            };
            PartitionNode { state, must_restart: [false; MANAGERS], to_manager: [None, None] }
        };
        let instance_count = if has_redis { MANAGERS } else { 1 };
        let partitions = |_| (0..PARTITIONS).map(partition).collect();
        let redis = has_redis.then(|| Redis {
            partitions: (0..PARTITIONS).map(|_| RedisPartition::new(MANAGERS)).collect(),
            policies: Policies::new(&config).unwrap(),
            acknowledged: vec![vec![None; usize::from(PARTITIONS)]; MANAGERS],
            loses_pushes: rng.random_bool(0.3),
            era: 0,
            loses_tails: rng.random_bool(0.4),
        });
        let manager = |_| ManagerNode {
            state: ManagerState::new(manager_spec.clone()),
            to_partition: (0..PARTITIONS).map(|_| None).collect(),
        };
        Self {
            now,
            instances: (0..instance_count).map(partitions).collect(),
            redis,
            managers: (0..MANAGERS).map(manager).collect(),
            manager_spec,
            clients: (0..CLIENTS).map(|_| client(&mut rng)).collect(),
            sessions: (0..CLIENTS).map(|_| None).collect(),
            streams: BTreeMap::new(),
            reference: Reference::new(Policies::new(&config).unwrap()),
            config,
            next_stream: 1,
            totals: Totals::default(),
            rng,
        }
    }

    /// One thing happens somewhere.
    pub fn step(&mut self) {
        let client = self.rng.random_range(0..CLIENTS);
        match self.rng.random_range(0..100) {
            0..22 => self.publish(),
            22..45 if self.redis.is_some() => (0..3).for_each(|_| self.hand_over()),
            22..45 => self.hand_over(),
            45..57 => self.end_turn(),
            57..72 => self.run_connection(client),
            72..86 => self.transport(client),
            86..90 => self.now += Duration::from_millis(self.rng.random_range(1..150)),
            90..94 => self.open(client),
            94..96 => self.cut(client),
            96 if self.redis.is_some() => self.disturb_redis(),
            96..98 => {
                let stalled = self.rng.random_bool(0.5);
                self.clients[client].is_stalled = stalled;
            }
            // Rarer with Redis, where streams take longer to come.
            _ if self.redis.is_some() && self.rng.random_bool(0.8) => {}
            _ => self.panic(),
        }
    }

    /// Lets everything come to rest, every client connected and reading.
    pub fn settle(&mut self) {
        // Of a topic that has no later event a lost push is noticed by the next catching up.
        if let Some(redis) = self.redis.as_mut().filter(|redis| redis.loses_pushes) {
            let all = redis.partitions.iter_mut();
            all.for_each(|log| (0..MANAGERS).for_each(|instance| log.disconnect(instance)));
        }
        for _ in 0..60 {
            self.now += Duration::from_millis(100);
            self.run_redis();
            for client in 0..CLIENTS {
                self.clients[client].is_stalled = false;
                self.open(client);
            }
            for _ in 0..4 {
                self.run_redis();
                self.hand_over_all();
                (0..MANAGERS).for_each(|manager| self.end_turn_of(manager));
                self.hand_over_all();
                for client in 0..CLIENTS {
                    self.run_connection(client);
                    self.transport(client);
                }
            }
        }
    }

    fn publish(&mut self) {
        let topic = any(&mut self.rng, &TOPICS);
        let (event_type, key) = (any(&mut self.rng, &TYPES), any(&mut self.rng, &KEYS));
        let parsed = Topic::parse(topic).unwrap();
        let partition = parsed.partition(PARTITIONS);
        let index = self.reference.records.len();
        let mut event = Event::text(index.to_string()).id(format!("id {index}"));
        event.event_type = event_type.map(Into::into);
        event.key = key.map(Into::into);
        let again = self.rng.random_bool(0.1);
        let (sequence, era) = match &mut self.redis {
            Some(redis) => {
                let instance = self.rng.random_range(0..MANAGERS);
                if !redis.partitions[usize::from(partition)].lines[instance].is_up {
                    // Refused: there is no link.
                    return;
                }
                let policy = redis.policies.of(topic).clone();
                let log = &mut redis.partitions[usize::from(partition)];
                let sequence = log.publish(&parsed, &event, &policy, self.now);
                let acknowledged = Some(log.acknowledge());
                redis.acknowledged[instance][usize::from(partition)] = acknowledged;
                (sequence, redis.era)
            }
            None => {
                let node = &mut self.instances[0][usize::from(partition)].state;
                let Node::Own(Some(state)) = node else { panic!("no partition") };
                let mut publish = || {
                    let taken = state.publish(&parsed, &event, None, self.now);
                    taken.map_err(|error| error.to_string()).unwrap().published.sequence
                };
                let sequence = publish();
                assert!(!again || publish() == sequence);
                (sequence, 0)
            }
        };
        let topic = topic.to_owned();
        let at = self.now;
        let is_lost = false;
        let record = Record { topic, partition, era, sequence, event_type, key, at, is_lost };
        self.reference.publish(record);
    }

    /// A message between a partition and a manager arrives, or sets out.
    fn hand_over(&mut self) {
        let partition = self.rng.random_range(0..usize::from(PARTITIONS));
        let manager = self.rng.random_range(0..MANAGERS);
        if self.redis.is_some() && self.rng.random_bool(0.5) {
            let count = self.rng.random_range(1..10);
            return self.relay(manager, partition, count);
        }
        if self.rng.random_bool(0.5) {
            self.partition_to_manager(partition, manager);
        } else {
            self.manager_to_partition(partition, manager);
        }
    }

    fn hand_over_all(&mut self) {
        for partition in 0..usize::from(PARTITIONS) {
            for manager in 0..MANAGERS {
                for _ in 0..2 {
                    self.manager_to_partition(partition, manager);
                    self.partition_to_manager(partition, manager);
                }
            }
        }
    }

    /// The instance that a manager belongs to.
    fn instance_of(&self, manager: usize) -> usize {
        if self.redis.is_some() { manager } else { 0 }
    }

    fn partition_to_manager(&mut self, partition: usize, manager: usize) {
        let instance = self.instance_of(manager);
        let node = &mut self.instances[instance][partition];
        if let Some(deliveries) = node.to_manager[manager].take() {
            for delivery in deliveries {
                let state = &mut self.managers[manager].state;
                state.on_delivery(partition as u16, delivery, self.now);
            }
            return;
        }
        let mut deliveries = node.state.take_outgoing(manager as u64);
        if std::mem::take(&mut node.must_restart[manager]) {
            deliveries.insert(0, Delivery::Restarted);
        }
        if !deliveries.is_empty() {
            node.to_manager[manager] = Some(deliveries);
        }
    }

    fn manager_to_partition(&mut self, partition: usize, manager: usize) {
        let instance = self.instance_of(manager);
        let node = &mut self.managers[manager];
        if let Some(changes) = node.to_partition[partition].take() {
            changes.iter().for_each(|change| self.note_attach(partition as u16, change));
            let state = &mut self.instances[instance][partition].state;
            state.change_interest(manager as u64, changes, self.now);
        } else if node.state.has_changes(partition as u16) {
            node.to_partition[partition] = Some(node.state.take_changes(partition as u16));
        }
    }

    /// Notes what the stream cannot be given any more, at the moment of its attach.
    fn note_attach(&mut self, partition: u16, change: &InterestChange) {
        let InterestChange::Attach { stream, interest, from } = change else { return };
        let StartFrom::After { sequence: after, .. } = from else { return };
        if self.redis.is_some() {
            // The answer comes later, and may then lack more.
            return;
        }
        let Some(client) = self.streams.get(stream).copied() else { return };
        let session = self.sessions[client].as_ref();
        if session.is_none_or(|session| session.stream != *stream) {
            // A stream that is gone already.
            return;
        }
        let client = &mut self.clients[client];
        let evicted = self.reference.evicted(self.now).clone();
        let lost = evicted.into_iter().filter(|index| {
            let record = &self.reference.records[*index];
            let topic = Topic::parse(&record.topic).unwrap();
            let is_wanted = interest.topics.contains(&topic) || interest.matches_pattern(&topic);
            let is_wanted = is_wanted && interest.types.wants_type(record.event_type);
            is_wanted && record.partition == partition && record.sequence > *after
        });
        client.lost.extend(lost.collect::<Vec<_>>());
    }

    fn end_turn(&mut self) {
        let manager = self.rng.random_range(0..MANAGERS);
        self.end_turn_of(manager);
    }

    fn end_turn_of(&mut self, manager: usize) {
        let state = &mut self.managers[manager].state;
        state.on_time(self.now);
        state.take_activity();
    }

    fn run_connection(&mut self, client: usize) {
        let Some(session) = &mut self.sessions[client] else { return };
        while let Some(mail) = session.mailbox.0.borrow_mut().pop_front() {
            if !session.is_actor_alive {
                continue;
            }
            let result = match mail {
                Mail::Open(opening) => {
                    session.state.on_opened(opening, "client", 0);
                    Ok(())
                }
                Mail::Frames(frames) => session.state.on_frames(&frames, self.now),
                Mail::Change(wanted, begin) => {
                    session.state.on_change(wanted, begin);
                    Ok(())
                }
                Mail::Beat => session.state.on_heartbeat(self.now),
                Mail::End(reason) => Err(reason),
            };
            if let Err(reason) = result {
                session.state.end(reason, None);
                session.is_actor_alive = false;
            }
        }
        if !session.is_actor_alive {
            let (stream, manager) = (session.stream, session.manager);
            self.managers[manager].state.close(stream);
        }
    }

    /// The transport takes what there is, and the client reads some of it.
    fn transport(&mut self, client: usize) {
        let Some(session) = &mut self.sessions[client] else { return };
        let reader = &mut self.clients[client];
        if reader.is_stalled {
            return;
        }
        loop {
            match session.state.next(self.now) {
                Next::Write(piece) => session.wire.extend(&piece.bytes),
                Next::Finished => {
                    session.is_finished = true;
                    break;
                }
                Next::Idle | Next::WaitUntil(_) => break,
            }
        }
        let count = self.rng.random_range(0..=session.wire.len());
        let count = if self.rng.random_bool(0.5) { session.wire.len() } else { count };
        let bytes: Vec<u8> = session.wire.drain(..count).collect();
        if let Some(redis) = self.redis.as_ref().filter(|_| !bytes.is_empty()) {
            reader.evicted = Some(self.reference.evicted(self.now).clone());
            reader.present_era = redis.era;
        }
        reader.read(&bytes);
        if session.is_finished && session.wire.is_empty() {
            self.cut(client);
        }
    }

    fn open(&mut self, client: usize) {
        if self.sessions[client].is_some() {
            return;
        }
        let wanted = Arc::new(self.wanted(client));
        let manager = self.rng.random_range(0..MANAGERS);
        let stream = self.next_stream;
        self.next_stream += 1;
        self.streams.insert(stream, client);
        let mailbox = Mailbox::default();
        self.managers[manager].state.open(stream, mailbox.clone(), &wanted, 0.5, self.now);
        let spec = Arc::new(ConnectionSpec::new(&self.config));
        self.clients[client].reconnect();
        self.totals.resumed += usize::from(!self.clients[client].last_id.is_empty());
        self.sessions[client] = Some(Session {
            stream,
            manager,
            mailbox,
            state: ConnectionState::new(spec, Duration::from_secs(1), wanted, self.now),
            is_actor_alive: true,
            is_finished: false,
            wire: VecDeque::new(),
        });
    }

    fn wanted(&mut self, client: usize) -> Wanted {
        let client = &self.clients[client];
        let mut subscription = Subscription::new().topics(client.topics.iter().copied());
        if let Some(types) = &client.types {
            subscription = subscription.types(types.iter().copied());
        }
        if self.rng.random_bool(0.2) {
            subscription.format = Some(Format::JsonBatch);
        }
        subscription = subscription.last_event_id(client.last_id.clone());
        subscription.resolve(100).unwrap()
    }

    /// The connection breaks at any byte.
    fn cut(&mut self, client: usize) {
        let Some(mut session) = self.sessions[client].take() else { return };
        let count = self.rng.random_range(0..=session.wire.len());
        let bytes: Vec<u8> = session.wire.drain(..count).collect();
        self.clients[client].read(&bytes);
        self.totals.refused_mail += *session.mailbox.1.borrow();
        self.managers[session.manager].state.close(session.stream);
    }

    /// An actor panics and is rebuilt, or a connection's dies.
    fn panic(&mut self) {
        match self.rng.random_range(0..3) {
            0 => {
                let partition = self.rng.random_range(0..usize::from(PARTITIONS));
                let instance = self.rng.random_range(0..self.instances.len());
                let node = &mut self.instances[instance][partition];
                node.state.rebuild();
                node.must_restart = [true; MANAGERS];
                if let Some(redis) = &mut self.redis {
                    redis.partitions[partition].disconnect(instance);
                }
            }
            1 => {
                let manager = self.rng.random_range(0..MANAGERS);
                let node = &mut self.managers[manager];
                node.state.end_all(ShutdownReason::Drain);
                node.state = ManagerState::new(self.manager_spec.clone());
                node.state.reset_interest();
            }
            _ => {
                let client = self.rng.random_range(0..CLIENTS);
                if let Some(session) = &mut self.sessions[client] {
                    session.state.end(ShutdownReason::Drain, None);
                    session.is_actor_alive = false;
                }
            }
        }
    }
}

fn client(rng: &mut StdRng) -> Client {
    let mut topics: Vec<&'static str> =
        (0..rng.random_range(1..4)).map(|_| any(rng, &TOPICS)).collect();
    if rng.random_bool(0.4) {
        topics = vec![any(rng, &PATTERNS), any(rng, &PATTERNS), any(rng, &TOPICS)];
    }
    let types = rng.random_bool(0.2).then(|| vec!["x", "message"]);
    Client::new(topics, types)
}

fn wants(client: &Client, record: &Record) -> bool {
    let event_type = record.event_type.unwrap_or("message");
    client.types.as_ref().is_none_or(|types| types.contains(&event_type))
        && client.topics.iter().any(|name| Pattern::parse(name).unwrap().matches(&record.topic))
}
