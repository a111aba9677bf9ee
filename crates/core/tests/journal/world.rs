//! The schedule, and the promises it checks.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use fanfare_core::{
    budget::HistoryBudget,
    cursor::Epoch,
    event::Event,
    fan_out::FanOutPublish,
    id_budget::IdBudget,
    interest::{Interest, StartFrom, TypeFilter},
    journal::JournalError,
    partition::{
        InterestChange, Outcome, PartitionSpec, PartitionState, Publishing, Recovery, StoreEnd,
    },
    pattern_set::PatternSet,
    policy::{Conflate, Flush, Policies, Policy},
    topic::{Pattern, Topic},
    wall_clock::WallClock,
};
use rand::{RngExt, rngs::StdRng};

use super::{
    client::Client,
    disk::{Disk, Write},
};

const TOPICS: [&str; 4] = ["plain", "other", "short", "keyed"];
const KEYED: usize = 3;
const SHORT: usize = 2;

#[derive(Debug, Default)]
pub struct Totals {
    crashes: usize,
    clean_stops: usize,
    cleanings: usize,
    refused: usize,
    repeated: usize,
    gaps: usize,
    lost: usize,
    expired: usize,
    received: usize,
    panics: usize,
}

impl Totals {
    pub fn add(&mut self, other: &Self) {
        self.crashes += other.crashes;
        self.clean_stops += other.clean_stops;
        self.cleanings += other.cleanings;
        self.refused += other.refused;
        self.repeated += other.repeated;
        self.gaps += other.gaps;
        self.lost += other.lost;
        self.expired += other.expired;
        self.received += other.received;
        self.panics += other.panics;
    }

    pub fn is_telling(&self, is_lazy: bool) -> bool {
        let counts = [self.crashes, self.clean_stops, self.cleanings, self.refused, self.repeated];
        let others = [self.gaps, self.received, self.expired, self.panics];
        counts.into_iter().chain(others).all(|count| count > 100) && (self.lost > 100) == is_lazy
    }
}

/// An accepted publish without its answer.
enum Waiting {
    Event { topic: usize, data: String, id: Option<String> },
    FanOut { data: String },
}

pub struct World {
    rng: StdRng,
    is_lazy: bool,
    now: Instant,
    clock: Arc<WallClock>,
    state: Option<PartitionState<()>>,
    disk: Disk,
    clients: Vec<Client>,
    waiting: VecDeque<Waiting>,
    /// Acknowledged events by topic: sequence and data.
    acknowledged: [BTreeMap<u64, String>; 4],
    /// The data of acknowledged fan-outs. A lazy disk may lose those before its last crash.
    fanned_out: Vec<String>,
    /// The answers by id, with their moment.
    answers: BTreeMap<String, (usize, u64, Instant)>,
    /// Ranges of sequences lost by crashes of a lazy disk, and by panics.
    lost: Vec<(u64, u64)>,
    /// Events up to here are gone from memory after a panic.
    panicked_through: u64,
    next_number: usize,
    totals: Totals,
}

impl World {
    pub fn new(rng: StdRng, is_lazy: bool) -> Self {
        let now = Instant::now();
        let clients = (0..6).map(|number| Client { topic: number % 4, ..Client::default() });
        let mut world = Self {
            rng,
            is_lazy,
            now,
            clock: Arc::new(WallClock::new(now, Duration::from_millis(1 << 40))),
            state: None,
            disk: Disk::default(),
            clients: clients.collect(),
            waiting: VecDeque::new(),
            acknowledged: Default::default(),
            fanned_out: Vec::new(),
            answers: BTreeMap::new(),
            lost: Vec::new(),
            panicked_through: 0,
            next_number: 0,
            totals: Totals::default(),
        };
        world.open(true);
        world
    }

    fn spec(&self) -> PartitionSpec {
        let plain = Policy {
            entry: None,
            flush: Flush::Immediate,
            tick: Duration::from_millis(100),
            conflate: Conflate::None,
            history_events: 100_000,
            history_ttl: Duration::from_secs(1 << 30),
            rate: None,
        };
        let short = Policy { history_events: 3, ..plain.clone() };
        let keyed = Policy { conflate: Conflate::LatestByKey, history_events: 4, ..plain.clone() };
        let entry = |name, policy| (Pattern::parse(name).unwrap(), policy);
        let entries = vec![entry("short", short), entry("keyed", keyed)];
        PartitionSpec {
            partition: 0,
            epoch: Epoch::new(7),
            policies: Arc::new(Policies::new(plain, entries)),
            budget: Arc::new(HistoryBudget::new(1 << 30, 1, self.now)),
            clock: self.clock.clone(),
            started_ms: self.clock.at(self.now),
            max_idle_topics: 100,
            idempotency_window: Duration::from_secs(300),
            remembered: Arc::new(IdBudget::new(1 << 30)),
            remembered_fan_outs: Arc::new(IdBudget::new(1 << 30)),
        }
    }

    fn open(&mut self, is_clean: bool) {
        let mut recovery = Recovery::new(self.spec(), self.now);
        for record in &self.disk.records {
            recovery.read(record.sequence, record.kind, &record.payload);
        }
        assert_eq!(recovery.unreadable_count(), 0);
        let last_sequence = self.disk.last_sequence;
        let partition = recovery.finish(StoreEnd { is_clean, last_sequence, damaged: &[] });
        self.state = Some(PartitionState::Journaled(Box::new(partition)));
        self.panicked_through = 0;
        // As the hub: the mark of an unclean stop is safe before the first stream.
        let batch = self.state().journaled().unwrap().take_batch().unwrap();
        let is_full = !self.is_lazy && self.rng.random_range(0..4) == 0;
        if !is_full {
            self.disk.append(batch);
            self.disk.synced = self.disk.records.len();
        }
        let result = if is_full { Err(JournalError::Full) } else { Ok(()) };
        self.state().journaled().unwrap().on_written(result);
        if !is_clean {
            let head = self.state().memory().unwrap().head().1;
            self.lost.push((last_sequence, head));
        }
        let present = (0..self.clients.len()).filter(|client| !self.clients[*client].is_away);
        present.collect::<Vec<_>>().into_iter().for_each(|client| self.attach(client));
    }

    pub fn step(&mut self) {
        match self.rng.random_range(0..100) {
            0..35 => self.publish(),
            35..40 => self.fan_out(),
            40..55 => self.take_batch(),
            55..70 => self.write(),
            70..80 => self.apply(),
            80..86 => self.reconnect(),
            86..90 => self.pass_time(),
            90..94 => self.clean(),
            94..96 => self.crash(),
            96 => self.stop(),
            97 => self.panic(),
            _ => self.disk.synced = self.disk.records.len(),
        }
        self.deliver();
    }

    fn state(&mut self) -> &mut PartitionState<()> {
        self.state.as_mut().unwrap()
    }

    fn publish(&mut self) {
        let topic = self.rng.random_range(0..TOPICS.len());
        let parsed = Topic::parse(TOPICS[topic]).unwrap();
        self.next_number += 1;
        let data = format!("data: {}\n", self.next_number);
        let mut event = Event::text(self.next_number.to_string());
        if topic == KEYED {
            let key = self.rng.random_range(0..5).to_string();
            event = match self.rng.random_range(0..6) {
                0 => Event::delete(key),
                1 => event.key(key).ttl(Duration::from_secs(20)),
                _ => event.key(key),
            };
        }
        let mut id = None;
        if topic < 2 && self.rng.random_range(0..3) == 0 {
            let known = self.answers.keys().next_back().cloned();
            let is_repeat = self.rng.random_range(0..2) == 0;
            id = known.filter(|_| is_repeat).or_else(|| Some(format!("{:06}", self.next_number)));
        }
        event.id = id.clone();
        let now = self.now;
        match self.state().publish(&parsed, &event.into(), None, now) {
            Publishing::Journaled => {
                self.waiting.push_back(Waiting::Event { topic, data, id });
            }
            Publishing::Decided(taken) => {
                let taken = taken.ok().unwrap();
                assert!(!taken.is_new);
                self.check_repeated(topic, &id.unwrap(), taken.published.sequence);
            }
            Publishing::Append { .. } => unreachable!("the log is on disk"),
        }
    }

    fn check_repeated(&mut self, topic: usize, id: &str, sequence: u64) {
        self.totals.repeated += 1;
        if let Some((first_topic, first, _)) = self.answers.get(id)
            && *first_topic == topic
        {
            assert_eq!(*first, sequence, "the first answer to {id}");
        }
    }

    fn fan_out(&mut self) {
        self.next_number += 1;
        let data = format!("data: {}\n", self.next_number);
        let id = (self.rng.random_range(0..2) == 0).then(|| self.next_number.to_string().into());
        let event = Event::text(self.next_number.to_string());
        let fan_out = FanOutPublish { id, event: Arc::new(event.into()) };
        let topics: Vec<Topic> =
            TOPICS[..3].iter().map(|name| Topic::parse(name).unwrap()).collect();
        let now = self.now;
        let publishing = self.state().fan_out(&fan_out, &topics, None, now);
        assert!(matches!(publishing, Publishing::Journaled));
        self.waiting.push_back(Waiting::FanOut { data });
    }

    fn take_batch(&mut self) {
        if let Some(batch) = self.state().journaled().unwrap().take_batch() {
            self.disk.writes.push_back(Write::Batch(batch));
        }
    }

    fn write(&mut self) {
        match self.disk.writes.pop_front() {
            Some(Write::Batch(records)) => {
                let is_full = self.rng.random_range(0..8) == 0;
                if !is_full {
                    self.disk.append(records);
                }
                let result = if is_full { Err(JournalError::Full) } else { Ok(()) };
                self.state().journaled().unwrap().on_written(result);
            }
            Some(Write::Copies { kept, cleaned }) => {
                self.disk.append(kept);
                self.disk.cleaned = cleaned;
            }
            None if self.disk.cleaned > 0 => self.disk.unlink(),
            None => {}
        }
    }

    fn apply(&mut self) {
        let now = self.now;
        let state = self.state().journaled().unwrap();
        state.apply(now);
        let outcomes = state.take_outcomes();
        outcomes.into_iter().for_each(|outcome| self.on_outcome(outcome));
        self.state().end_keys(now);
    }

    fn on_outcome(&mut self, outcome: Outcome) {
        match (outcome, self.waiting.pop_front().unwrap()) {
            (Outcome::Published(Ok(taken)), Waiting::Event { topic, data, id }) => {
                let sequence = taken.published.sequence;
                match (taken.is_new, id) {
                    (true, id) => {
                        self.acknowledged[topic].insert(sequence, data);
                        if let Some(id) = id {
                            self.answers.insert(id, (topic, sequence, self.now));
                        }
                    }
                    (false, id) => self.check_repeated(topic, &id.unwrap(), sequence),
                }
            }
            (Outcome::FannedOut(Ok((fanned_out, _))), Waiting::FanOut { data }) => {
                assert_eq!(fanned_out.new, 3);
                self.fanned_out.push(data);
            }
            (Outcome::Published(Err(_)) | Outcome::FannedOut(Err(_)), _) => {
                self.totals.refused += 1;
            }
            _ => panic!("an answer of another kind"),
        }
    }

    fn attach(&mut self, client: usize) {
        let manager = client as u64;
        let topic = Topic::parse(TOPICS[self.clients[client].topic]).unwrap();
        let interest = Interest {
            topics: [topic].into_iter().collect(),
            patterns: PatternSet::none(),
            types: TypeFilter::default(),
        };
        let from = match self.clients[client].rest.take() {
            Some(rest) => StartFrom::Continue(rest),
            None => {
                let sequence = self.clients[client].position;
                StartFrom::After { epoch: Epoch::new(7), sequence, since: 0 }
            }
        };
        let interest = Arc::new(interest);
        let attach = InterestChange::Attach { stream: 1, interest, from, max_bytes: 1 << 20 };
        let now = self.now;
        self.state().change_interest(manager, vec![attach], now);
        while self.state().continue_changes(now) {}
    }

    fn reconnect(&mut self) {
        let client = self.rng.random_range(0..self.clients.len());
        let now = self.now;
        self.state().remove_manager(client as u64, now);
        self.clients[client].rest = None;
        self.clients[client].is_attached = false;
        // It may stay away for a while.
        self.clients[client].is_away = self.rng.random_range(0..3) > 0;
        if !self.clients[client].is_away {
            self.attach(client);
        }
    }

    fn deliver(&mut self) {
        for client in 0..self.clients.len() {
            let deliveries = self.state().routing().take_outgoing(client as u64);
            for delivery in deliveries {
                let (before, gaps) =
                    (self.clients[client].position, self.clients[client].gaps.len());
                self.clients[client].on_delivery(delivery);
                if self.clients[client].gaps.len() > gaps {
                    self.check_gap(client, before);
                }
            }
            while self.clients[client].rest.is_some() {
                self.attach(client);
                for delivery in self.state().routing().take_outgoing(client as u64) {
                    self.clients[client].on_delivery(delivery);
                }
            }
        }
    }

    /// A gap needs a loss after the client's position.
    fn check_gap(&mut self, client: usize, position: u64) {
        self.totals.gaps += 1;
        let topic = self.clients[client].topic;
        let is_past = self.lost.iter().any(|(kept, next)| *kept < position && position < *next);
        let parsed = Topic::parse(TOPICS[topic]).unwrap();
        let last = self.state().memory().unwrap().last_sequence(&parsed);
        let has_evicted = topic >= SHORT && last > position;
        let is_panicked = position < self.panicked_through;
        assert!(
            is_past || has_evicted || is_panicked,
            "client {client} of {} got a needless gap at {position}; lost: {:?}",
            TOPICS[topic],
            self.lost
        );
    }

    fn pass_time(&mut self) {
        self.now += Duration::from_secs(self.rng.random_range(1..15));
        let now = self.now;
        self.state().expire(now);
        let before = self.state().journaled().unwrap().take_batch();
        self.disk.writes.extend(before.map(Write::Batch));
        self.state().end_keys(now);
        self.totals.expired += 1;
    }

    fn clean(&mut self) {
        if !self.disk.is_idle() || self.disk.records.len() < 10 {
            return;
        }
        // Batches taken before are before the copies.
        self.take_batch();
        let count = self.rng.random_range(1..self.disk.records.len() / 2);
        let page = self.disk.records[..count].to_vec();
        let now = self.now;
        let kept = self.state().journaled().unwrap().keep_of(page, false, now);
        if let Some(kept) = kept {
            self.totals.cleanings += 1;
            self.disk.writes.push_back(Write::Copies { kept, cleaned: count });
        }
    }

    fn crash(&mut self) {
        self.totals.crashes += 1;
        self.disk.crash(&mut self.rng, self.is_lazy);
        let kept = self.disk.last_sequence;
        if self.is_lazy {
            self.fanned_out.clear();
        }
        for acknowledged in &mut self.acknowledged {
            self.totals.lost += acknowledged.split_off(&(kept + 1)).len();
        }
        let lost = |answer: &(usize, u64, Instant)| answer.1 > kept;
        self.answers.retain(|_, answer| !lost(answer));
        self.restart(false);
    }

    fn restart(&mut self, is_clean: bool) {
        self.waiting.clear();
        for client in &mut self.clients {
            client.rest = None;
            client.is_attached = false;
        }
        self.open(is_clean);
    }

    fn stop(&mut self) {
        self.totals.clean_stops += 1;
        self.drain();
        self.restart(true);
    }

    fn panic(&mut self) {
        self.totals.panics += 1;
        let state = self.state.take().unwrap();
        self.state = Some(state.rebuild());
        for client in 0..self.clients.len() {
            self.clients[client].rest = None;
            self.clients[client].is_attached = false;
            if !self.clients[client].is_away {
                self.attach(client);
            }
        }
    }

    /// Writes and applies everything accepted.
    fn drain(&mut self) {
        for _ in 0..1000 {
            self.take_batch();
            self.write();
            self.apply();
            self.deliver();
            let is_marked = self.state().journaled().unwrap().is_marked();
            let now = self.now;
            self.state().expire(now);
            let is_idle = self.waiting.is_empty() && self.disk.writes.is_empty() && is_marked;
            if is_idle && self.disk.cleaned == 0 {
                return;
            }
        }
        panic!("{} publishes are without an answer", self.waiting.len());
    }

    /// Ends the schedule with a crash and a clean stop, and compares every client.
    pub fn settle(mut self) -> Totals {
        self.drain();
        self.crash();
        self.deliver();
        self.stop();
        self.deliver();
        for client in 0..self.clients.len() {
            if !self.clients[client].is_attached {
                self.attach(client);
            }
        }
        self.deliver();
        self.drain();
        self.check();
        self.totals
    }

    fn check(&mut self) {
        for client in &self.clients {
            self.totals.received += client.received.len();
            let sequences: Vec<u64> =
                client.received.iter().map(|(sequence, _)| *sequence).collect();
            assert!(sequences.is_sorted_by(|a, b| a < b), "in order, and once");
            let mut data: Vec<&String> = client.received.iter().map(|(_, data)| data).collect();
            if client.topic <= SHORT {
                let count = data.len();
                data.sort();
                data.dedup();
                assert_eq!(data.len(), count, "an event came twice");
                for (sequence, data) in &self.acknowledged[client.topic] {
                    let got = client.received.iter().find(|(other, _)| other == sequence);
                    let is_known = got.is_some_and(|(_, got)| got == data);
                    let is_told = client.gaps.iter().any(|position| position < sequence);
                    assert!(is_known || is_told, "{sequence} is lost");
                }
                for data in &self.fanned_out {
                    let is_known = client.received.iter().any(|(_, got)| got == data);
                    assert!(is_known || !client.gaps.is_empty(), "{data} is lost");
                }
            }
        }
        self.check_values();
    }

    /// Every client of the keyed topic has the partition's current values.
    fn check_values(&mut self) {
        let mut newcomer = Client { topic: KEYED, ..Client::default() };
        let topic = Topic::parse(TOPICS[KEYED]).unwrap();
        let memory = self.state.as_mut().unwrap().memory().unwrap();
        let interest = Interest {
            topics: [topic].into_iter().collect(),
            patterns: PatternSet::none(),
            types: TypeFilter::default(),
        };
        let (interest, from) = (Arc::new(interest), StartFrom::Snapshot);
        let attach = InterestChange::Attach { stream: 9, interest, from, max_bytes: 1 << 20 };
        memory.change_interest(99, vec![attach], self.now);
        while memory.continue_changes(self.now) {}
        let deliveries = self.state().routing().take_outgoing(99);
        deliveries.into_iter().for_each(|delivery| newcomer.on_delivery(delivery));
        // With a gap, a client asks for a snapshot of its own.
        let whole = |client: &&Client| client.topic == KEYED && client.gaps.is_empty();
        for client in self.clients.iter().filter(whole) {
            assert_eq!(client.values, newcomer.values);
        }
    }
}
