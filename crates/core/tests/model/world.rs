//! The parts under test, joined by queues. The schedule empties the queues in any order.

mod changes;
mod feeds;
mod linked;
mod nodes;
mod passing;
mod promises;
mod publishing;
mod streams;
mod verdict;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use fanfare_core::{
    budget::HistoryBudget,
    connection::WorkerContext,
    cursor::Epoch,
    id_budget::IdBudget,
    ids::StreamId,
    partition::{MemoryPartition, PartitionSpec, PartitionState, Replica, ReplicaSpec},
    topic_manager::{ManagerSpec, ManagerState, Ticket},
    wall_clock::WallClock,
};
use rand::{RngExt, rngs::StdRng};

use self::{
    changes::Issued,
    feeds::{ExpectedSession, Reread},
    nodes::{ManagerNode, PartitionNode, Session},
    publishing::Repeated,
};
use super::{
    any,
    client::ModelClient,
    expectation::{Expectation, List},
    graph::{AUTHORS, ModelGraph, USERS},
    redis::{ModelRedis, RedisPartition},
    reference::Reference,
};
use crate::settings::{ModelSettings, PARTITIONS};

const MANAGERS: usize = 2;
const CLIENTS: usize = 4;
/// The time of day at the start, in milliseconds since 1970.
const START_MS: u64 = 1_000_000;
const MAILBOX: usize = 2;

const TOPICS: [&str; 10] = [
    "plain:a",
    "plain:b",
    "plain:c",
    "now:a",
    "tick:a",
    "latest:a",
    "key:a",
    "slow-tick:a",
    "notifications:u",
    "notifications:w",
];
const PATTERNS: [&str; 6] = ["plain:*", "**", "*:a", "key:**", "now:*", "notifications:*"];
const COLLAPSE: [Option<&str>; 4] = [None, None, Some("likes"), Some("replies")];
const TYPES: [Option<&str>; 3] = [None, Some("x"), Some("y")];
const KEYS: [Option<&str>; 4] = [None, Some("k1"), Some("k2"), Some("k3")];

/// Counts of the situations reached by the schedules: a check never reached would go unnoticed.
#[derive(Debug, Default)]
pub struct ModelTotals {
    /// Events expected by clients, and the ones excused by a gap or a loss.
    due: usize,
    excused: usize,
    /// Events promised to streams beginning with history.
    from_history: usize,
    /// Further pages of replays.
    pages: usize,
    got: usize,
    gaps: usize,
    shutdowns: usize,
    superseded: usize,
    resumed: usize,
    refused_mail: usize,
    /// Changes of lists: acknowledged, refused, and queued behind others.
    changed: usize,
    refused_changes: usize,
    queued_changes: usize,
    /// Events due in spite of the removal of their topic.
    kept: usize,
    /// Events possibly missed because the client had no id with their partition.
    unnamed: usize,
    /// Received merged events, and events left uncounted by a cut.
    collapsed: usize,
    uncounted: usize,
    /// Opened feeds, their received posts, and acknowledged changes of the graph.
    feeds: usize,
    posts: usize,
    calls: usize,
    /// Feeds read again after a lost link.
    rereads: usize,
    /// Calls repeated after a lost link.
    repeated_calls: usize,
    fanned_out: usize,
    /// Frames sent while draining.
    drained: usize,
    /// Frames passed at once to a direct transport.
    passed: usize,
    /// Topics added again after a return with the first list.
    owed: usize,
    /// Further pages of topics added to an open stream; changes and cuts between them.
    added_pages: usize,
    changes_between: usize,
    cuts_between: usize,
    lost_pushes: usize,
}

impl ModelTotals {
    pub fn add(&mut self, other: &Self) {
        self.due += other.due;
        self.excused += other.excused;
        self.from_history += other.from_history;
        self.pages += other.pages;
        self.got += other.got;
        self.gaps += other.gaps;
        self.shutdowns += other.shutdowns;
        self.superseded += other.superseded;
        self.resumed += other.resumed;
        self.refused_mail += other.refused_mail;
        self.changed += other.changed;
        self.refused_changes += other.refused_changes;
        self.queued_changes += other.queued_changes;
        self.kept += other.kept;
        self.unnamed += other.unnamed;
        self.collapsed += other.collapsed;
        self.uncounted += other.uncounted;
        self.feeds += other.feeds;
        self.posts += other.posts;
        self.calls += other.calls;
        self.rereads += other.rereads;
        self.repeated_calls += other.repeated_calls;
        self.fanned_out += other.fanned_out;
        self.drained += other.drained;
        self.passed += other.passed;
        self.owed += other.owed;
        self.added_pages += other.added_pages;
        self.changes_between += other.changes_between;
        self.cuts_between += other.cuts_between;
        self.lost_pushes += other.lost_pushes;
    }

    pub fn is_telling(&self, has_redis: bool, scope: Scope) -> bool {
        if scope == Scope::Additions {
            let between = [self.changes_between, self.cuts_between];
            return self.added_pages > 50 && between.iter().all(|count| *count > 1);
        }
        let often = [self.got, self.fanned_out, self.from_history];
        let now_and_then =
            [self.resumed, self.changed, self.collapsed, self.feeds, self.calls, self.kept];
        let rare = [
            self.gaps,
            self.shutdowns,
            self.superseded,
            self.refused_mail,
            self.queued_changes,
            self.posts,
        ];
        often.iter().all(|count| *count > 3000)
            && now_and_then.iter().all(|count| *count > 500)
            && rare.iter().all(|count| *count > 100)
            && self.refused_changes > 10
            && self.unnamed > 50
            && self.drained > 20
            && self.passed > 20
            && self.owed > 20
            && self.pages > 500
            // Most expected events had to arrive.
            && self.due > 4 * self.excused
            && self.uncounted > 0
            && (!has_redis
                || self.rereads > 100 && self.repeated_calls > 100 && self.lost_pushes > 100)
    }
}

/// The subject of the schedules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    Everything,
    /// Topics added again after a return with the first list, and their long replays.
    Additions,
}

pub struct World {
    rng: StdRng,
    now: Instant,
    settings: ModelSettings,
    /// One for all managers: the encode cache must never give a stream another stream's bytes.
    worker: WorkerContext,
    manager_spec: ManagerSpec,
    /// By instance; a world without the model Redis has one.
    instances: Vec<Vec<PartitionNode>>,
    redis: Option<ModelRedis>,
    managers: Vec<ManagerNode>,
    clients: Vec<ModelClient>,
    sessions: Vec<Option<Session>>,
    /// Feeds about to open, by client.
    expected: Vec<Option<ExpectedSession>>,
    last_expected: u64,
    rereads: Vec<Reread>,
    has_feeds: bool,
    /// Messages per step, and the probability of a panic in a panic step.
    haste: usize,
    panics: f64,
    scope: Scope,
    graph: ModelGraph,
    tickets: BTreeMap<Ticket, Issued>,
    last_ticket: Ticket,
    fan_outs: Vec<Repeated>,
    last_number: usize,
    streams: BTreeMap<StreamId, usize>,
    reference: Reference,
    next_stream: StreamId,
    totals: ModelTotals,
}

impl World {
    /// One instance with two managers; or two instances, with a manager each and the model Redis
    /// between them.
    pub fn new(mut rng: StdRng, has_redis: bool, scope: Scope) -> Self {
        let settings = ModelSettings::new(&mut rng);
        let now = Instant::now();
        let epoch = Epoch::new(rng.random());
        let policies = Arc::new(settings.policies());
        let clock = Arc::new(WallClock::new(now, Duration::from_millis(START_MS)));
        let manager_spec = settings.manager(now);
        // With Redis, memory is a cache: every size must deliver the same events.
        let max_bytes = if has_redis { settings.cache_bytes } else { usize::MAX / 2 };
        let partition = |partition, budget: &Arc<HistoryBudget>| {
            let spec = PartitionSpec {
                partition,
                epoch,
                policies: policies.clone(),
                budget: budget.clone(),
                clock: clock.clone(),
                started_ms: START_MS,
                max_idle_topics: if has_redis { settings.max_idle_topics } else { 100 },
                idempotency_window: Duration::from_secs(300),
                remembered: Arc::new(IdBudget::new(1 << 24)),
                remembered_fan_outs: Arc::new(IdBudget::new(1 << 24)),
            };
            let state = match has_redis {
                false => PartitionState::Memory(Box::new(MemoryPartition::new(spec))),
                true => {
                    let interest_grace = Duration::from_millis(300);
                    let spec = ReplicaSpec { partition: spec, interest_grace };
                    PartitionState::Replica(Box::new(Replica::new(spec)))
                }
            };
            let state = Some(state);
            PartitionNode { state, must_restart: [false; MANAGERS], to_manager: [None, None] }
        };
        let instance_count = if has_redis { MANAGERS } else { 1 };
        let partitions = |_| {
            let budget = Arc::new(HistoryBudget::new(max_bytes, PARTITIONS, now));
            (0..PARTITIONS).map(|number| partition(number, &budget)).collect()
        };
        let redis = has_redis.then(|| ModelRedis {
            partitions: (0..PARTITIONS)
                .map(|_| RedisPartition::new(MANAGERS, clock.clone()))
                .collect(),
            policies: settings.policies(),
            acknowledged: vec![vec![Default::default(); usize::from(PARTITIONS)]; MANAGERS],
            loses_pushes: rng.random_bool(0.3),
            era: 0,
            is_cluster: rng.random_bool(0.3),
            loses_tails: rng.random_bool(0.4) && scope == Scope::Everything,
        });
        let manager = |_| ManagerNode {
            state: ManagerState::new(manager_spec.clone()),
            to_partition: (0..PARTITIONS).map(|_| None).collect(),
        };
        let clients: Vec<ModelClient> =
            (0..CLIENTS).map(|_| client(&mut rng, &settings, scope)).collect();
        let mut graph = ModelGraph::default();
        for (user, author) in (0..USERS.len()).flat_map(|u| (0..AUTHORS.len()).map(move |a| (u, a)))
        {
            if rng.random_bool(0.5) {
                graph.follow(user, author);
            }
        }
        Self {
            now,
            instances: (0..instance_count).map(partitions).collect(),
            redis,
            managers: (0..MANAGERS).map(manager).collect(),
            manager_spec,
            has_feeds: clients.iter().any(|client| client.expectation.feed_of().is_some()),
            haste: any(&mut rng, &[1, 3, 10]),
            panics: any(&mut rng, &[0.1, 0.1, 1.0]),
            scope,
            clients,
            sessions: (0..CLIENTS).map(|_| None).collect(),
            expected: (0..CLIENTS).map(|_| None).collect(),
            last_expected: 0,
            rereads: Vec::new(),
            graph,
            tickets: BTreeMap::new(),
            last_ticket: 0,
            fan_outs: Vec::new(),
            last_number: 0,
            streams: BTreeMap::new(),
            reference: Reference::new(settings.policies()),
            settings,
            worker: WorkerContext::new(clock),
            next_stream: 1,
            totals: ModelTotals::default(),
            rng,
        }
    }

    /// Takes one random step.
    pub fn step(&mut self) {
        let client = self.rng.random_range(0..CLIENTS);
        if self.scope == Scope::Additions && self.rng.random_bool(0.2) {
            return self.add_again(client);
        }
        match self.rng.random_range(0..112) {
            0..22 => self.publish(),
            22..45 if self.redis.is_some() => (0..3 * self.haste).for_each(|_| self.hand_over()),
            22..45 => (0..self.haste).for_each(|_| self.hand_over()),
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
            98..100 if self.rng.random_bool(self.panics) => self.panic(),
            98..100 => {}
            100..103 => self.ask_change(client),
            103..105 => self.fan_out(),
            105..108 => self.step_of_feeds(),
            _ if !self.has_feeds => {}
            _ if self.rng.random_bool(0.5) => self.reread(),
            _ => self.tell_of_graph(),
        }
    }

    fn step_of_feeds(&mut self) {
        let expected = (0..CLIENTS).find(|client| self.expected[*client].is_some());
        match (self.rng.random_range(0..10), expected) {
            (0..7, Some(client)) => self.open(client),
            (7, Some(client)) => self.give_up(client),
            _ if self.has_feeds => self.change_graph(),
            _ => {}
        }
    }

    /// Runs long enough to empty all queues, with every client connected and reading.
    pub fn settle(&mut self) {
        // Without a later event, the head of the regular probe reveals a lost push.
        if let Some(redis) = self.redis.as_mut().filter(|redis| redis.loses_pushes) {
            let latest = redis.partitions.iter().map(RedisPartition::epoch).max().unwrap_or(0);
            redis.partitions.iter_mut().for_each(|log| log.probe(latest));
        }
        for _ in 0..60 {
            self.now += Duration::from_millis(100);
            self.run_redis();
            for client in 0..CLIENTS {
                self.clients[client].is_stalled = false;
                self.open(client);
                self.ask_owed(client);
            }
            (0..4).for_each(|_| self.tell_of_graph());
            (0..20).for_each(|_| self.reread());
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
}

fn client(rng: &mut StdRng, settings: &ModelSettings, scope: Scope) -> ModelClient {
    if scope == Scope::Additions {
        let first = List::from([any(rng, &TOPICS)]);
        return ModelClient::new(Expectation::of(first, settings.max_topics), None);
    }
    let mut topics: Vec<&'static str> =
        (0..rng.random_range(1..4)).map(|_| any(rng, &TOPICS)).collect();
    if rng.random_bool(0.4) {
        topics = vec![any(rng, &PATTERNS), any(rng, &PATTERNS), any(rng, &TOPICS)];
    }
    let types = rng.random_bool(0.2).then(|| vec!["x", "message"]);
    let expectation = match rng.random_bool(0.3) {
        true => Expectation::Feed { user: rng.random_range(0..USERS.len()) },
        false => Expectation::of(topics.into_iter().collect(), settings.max_topics),
    };
    ModelClient::new(expectation, types)
}
