//! The model Redis: the effects of the scripts in a few lines, and connections in order until they
//! break. The schedule disturbs it: it repeats or loses pushes, empties it, or fails it over.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet, VecDeque},
    sync::Arc,
    time::Instant,
};

use fanfare_core::{
    cursor::Epoch,
    event::{Event, EventBody},
    fan_out::FanOutPublish,
    log::{
        Acknowledged, Acknowledgements, Changed, Channel, Era, LogEvent, LogRequest, LogUpdate,
        PartitionHead, SERVER_JUMP, TailLoss, TopicRead,
    },
    policy::{Conflate, Policies, Policy},
    sse::encode,
    topic::Topic,
    wall_clock::WallClock,
};

/// One topic's log.
#[derive(Default)]
struct ModelTopicLog {
    last: u64,
    evicted_through: u64,
    events: Vec<LogEvent>,
    /// All sequences of the topic, for a server going back.
    sequences: Vec<u64>,
}

/// One message to an instance, in flight.
pub enum ModelPush {
    /// To the partition's replica.
    Update(LogUpdate),
    /// To all managers of the instance: the change of the call with this number.
    Call(usize),
}

/// An instance's connection, for one partition.
#[derive(Default)]
pub struct InstanceLine {
    pub generation: u64,
    pub is_up: bool,
    pub channels: BTreeSet<Channel>,
    /// The highest sequence known to the instance, and its epoch. It survives the connection.
    pub known: u64,
    pub known_epoch: u64,
    /// In flight to the model Redis.
    pub requests: VecDeque<LogRequest>,
    /// In flight to the instance.
    pub news: VecDeque<ModelPush>,
}

/// A partition in the model Redis.
pub struct RedisPartition {
    clock: Arc<WallClock>,
    epoch: u64,
    /// Earlier epochs of the same sequences.
    earlier_epochs: Vec<u64>,
    epoch_began_after: Option<u64>,
    sequence: u64,
    lineage: Vec<Era>,
    topics: BTreeMap<Topic, ModelTopicLog>,
    /// Each second with events, and the last sequence before it.
    times: Vec<(u64, u64)>,
    /// Pairs of a fan-out's id and a reached topic.
    fanned_out: HashSet<(Arc<str>, Topic)>,
    /// By instance.
    pub lines: Vec<InstanceLine>,
}

impl RedisPartition {
    pub fn new(instances: usize, clock: Arc<WallClock>) -> Self {
        Self {
            clock,
            epoch: 1,
            earlier_epochs: Vec::new(),
            epoch_began_after: Some(0),
            sequence: 0,
            lineage: vec![Era { server: "server 0".to_owned(), began_after: 0, lost: None }],
            topics: BTreeMap::new(),
            times: Vec::new(),
            fanned_out: HashSet::new(),
            lines: (0..instances).map(|_| InstanceLine::default()).collect(),
        }
    }

    /// Loses everything: a new epoch begins, and sequences restart at 1.
    pub fn empty(&mut self, epoch: u64) {
        self.epoch = epoch;
        self.earlier_epochs.clear();
        self.epoch_began_after = Some(0);
        self.sequence = 0;
        self.lineage.truncate(1);
        self.lineage[0].began_after = 0;
        self.lineage[0].lost = None;
        self.topics.clear();
        self.times.clear();
        self.fanned_out.clear();
    }

    /// A replica of the server takes over without the last events. The log does not reuse their
    /// sequences. Returns the last kept sequence.
    pub fn fail_over(&mut self, lost: u64) -> u64 {
        let kept = self.sequence.saturating_sub(lost);
        self.cut(kept);
        let server = format!("server {}", self.lineage.len());
        self.lineage.insert(0, Era { server, began_after: kept, lost: None });
        self.sequence = kept + SERVER_JUMP;
        (0..self.lines.len()).for_each(|instance| self.disconnect(instance));
        kept
    }

    /// The same server goes back to earlier data, and gives out sequences a second time. It keeps at
    /// least one sequence less than each instance knows. Returns the last kept sequence.
    pub fn go_back(&mut self, lost: u64) -> Option<u64> {
        let known = self.lines.iter().map(|line| {
            let is_present =
                line.known_epoch == self.epoch || self.earlier_epochs.contains(&line.known_epoch);
            if is_present { line.known } else { 0 }
        });
        let kept = known.min()?.checked_sub(lost + 1)?;
        self.cut(kept);
        self.sequence = kept;
        Some(kept)
    }

    /// Drops all events after a sequence.
    fn cut(&mut self, kept: u64) {
        self.times.retain(|(_, before)| *before < kept);
        for log in self.topics.values_mut() {
            log.events.retain(|event| event.sequence <= kept);
            log.sequences.retain(|sequence| *sequence <= kept);
            log.last = log.sequences.last().copied().unwrap_or(0);
            // The events after it may have made room for themselves.
            log.evicted_through = log.evicted_through.min(log.last);
        }
    }

    /// An instance passes the highest sequence known to it with every call of the publish script:
    /// the script notices a server gone back.
    pub fn check_sequence(&mut self, instance: usize) {
        let line = &mut self.lines[instance];
        let is_known =
            line.known_epoch == self.epoch || self.earlier_epochs.contains(&line.known_epoch);
        if is_known && self.sequence < line.known {
            self.epoch += 1;
            self.epoch_began_after = None;
            self.earlier_epochs.clear();
        }
    }

    /// An instance learns of a sequence.
    pub fn note(&mut self, instance: usize, epoch: u64, sequence: u64) {
        let is_present = |known: u64| {
            known == epoch || epoch == self.epoch && self.earlier_epochs.contains(&known)
        };
        let line = &mut self.lines[instance];
        let before = if is_present(line.known_epoch) { line.known } else { 0 };
        (line.known_epoch, line.known) = (epoch, before.max(sequence));
    }

    pub fn connect(&mut self, instance: usize, acknowledged: Acknowledgements) {
        let line = &mut self.lines[instance];
        let generation = line.generation + 1;
        let news =
            VecDeque::from([ModelPush::Update(LogUpdate::LinkUp { generation, acknowledged })]);
        let (known, known_epoch) = (line.known, line.known_epoch);
        *line = InstanceLine {
            generation,
            is_up: true,
            news,
            known,
            known_epoch,
            ..InstanceLine::default()
        };
    }

    /// Loses all messages in flight.
    pub fn disconnect(&mut self, instance: usize) {
        let line = &mut self.lines[instance];
        let generation = line.generation;
        let news = VecDeque::from([ModelPush::Update(LogUpdate::LinkDown)]);
        let (known, known_epoch) = (line.known, line.known_epoch);
        *line = InstanceLine { generation, news, known, known_epoch, ..InstanceLine::default() };
    }

    pub fn publish(&mut self, topic: &Topic, event: &Event, policy: &Policy, now: Instant) -> u64 {
        let event = self.append(topic, encode::body(event, 1).into(), policy, now);
        for line in self.lines.iter_mut().filter(|line| line.is_up) {
            let (first, topics) = (event.sequence, vec![topic.clone()]);
            line.news.push_back(ModelPush::Update(LogUpdate::Announced { first, topics }));
            for channel in [Channel::Topic(topic.clone()), Channel::All] {
                if line.channels.contains(&channel) {
                    line.news.push_back(ModelPush::Update(LogUpdate::Event(event.clone())));
                }
            }
        }
        self.sequence
    }

    /// Appends one event to many topics, except those already reached. Returns the new topics with
    /// their sequences.
    pub fn fan_out(
        &mut self,
        fan_out: &FanOutPublish,
        topics: &[Topic],
        policies: &Policies,
        now: Instant,
    ) -> Vec<(Topic, u64)> {
        let mut events = Vec::new();
        for topic in topics {
            let id = fan_out.id.clone().unwrap();
            if self.fanned_out.insert((id, topic.clone())) {
                let policy = policies.of(topic.as_str());
                events.push(self.append(topic, fan_out.event.body(), policy, now));
            }
        }
        if !events.is_empty() {
            for line in self.lines.iter_mut().filter(|line| line.is_up) {
                line.news.push_back(ModelPush::Update(LogUpdate::FannedOut(events.clone())));
            }
        }
        events.into_iter().map(|event| (event.topic, event.sequence)).collect()
    }

    fn append(
        &mut self,
        topic: &Topic,
        body: Arc<EventBody>,
        policy: &Policy,
        now: Instant,
    ) -> LogEvent {
        let second = self.clock.at(now) / 1000;
        if self.times.last().is_none_or(|(last, _)| *last < second) {
            self.times.push((second, self.sequence));
        }
        // Only the latest stay.
        self.times.drain(..self.times.len().saturating_sub(3));
        self.sequence += 1;
        let log = self.topics.entry(topic.clone()).or_default();
        let event = LogEvent {
            epoch: Epoch::new(self.epoch),
            sequence: self.sequence,
            previous: log.last,
            published_at: now,
            unix_ms: self.clock.at(now),
            topic: topic.clone(),
            body,
        };
        log.last = self.sequence;
        log.sequences.push(self.sequence);
        let body = &event.body;
        match policy.conflate {
            Conflate::None => {}
            Conflate::Latest => log.events.clear(),
            Conflate::LatestByKey => {
                log.events.retain(|older| body.key.is_none() || older.body.key != body.key);
            }
        }
        log.events.push(event.clone());
        let is_passing =
            |event: &LogEvent| policy.conflate != Conflate::LatestByKey || !event.body.is_value();
        let excess = log.events.iter().filter(|event| is_passing(event)).count();
        for _ in policy.history_events..excess {
            let oldest = log.events.iter().position(is_passing).unwrap();
            log.evicted_through = log.events.remove(oldest).sequence;
        }
        event
    }

    /// The model Redis answers the next request of an instance.
    pub fn answer(&mut self, instance: usize, now: Instant) {
        let Some(request) = self.lines[instance].requests.pop_front() else { return };
        let head = self.head();
        let news = match request {
            LogRequest::Subscribe(channels) => {
                self.lines[instance].channels.extend(channels);
                return;
            }
            LogRequest::Unsubscribe(channels) => {
                self.lines[instance].channels.retain(|channel| !channels.contains(channel));
                return;
            }
            LogRequest::Head { purpose } => LogUpdate::Head { purpose: Some(purpose), head },
            LogRequest::Locate { purpose, second } => {
                let is_known = self.times.first().is_some_and(|(first, _)| *first <= second);
                let found = self.times.iter().find(|(found, _)| *found >= second);
                let sequence = found.map_or(head.sequence, |(_, before)| *before);
                let sequence = if is_known { sequence } else { 0 };
                LogUpdate::Located { purpose, head, second, sequence }
            }
            LogRequest::Changes { purpose, after } => {
                let changed = self.topics.iter().filter(|(_, log)| log.last > after);
                let topics = changed.map(|(topic, log)| (topic.clone(), log.last)).collect();
                LogUpdate::Changes {
                    purpose,
                    head,
                    changed: Changed { topics, forgotten_through: 0 },
                }
            }
            LogRequest::Read { purpose, topics, max_bytes } => {
                let topics = topics.into_iter().map(|(topic, after)| self.read(topic, after));
                let mut topics: Vec<TopicRead> = topics.collect();
                let through = max_bytes
                    .map_or(head.sequence, |bytes| bound(&mut topics, bytes))
                    .min(head.sequence);
                LogUpdate::Read { purpose, head, through, topics }
            }
            LogRequest::NoteLoss { server, through } => {
                self.note_loss(&server, through, now);
                LogUpdate::Head { purpose: None, head: self.head() }
            }
            LogRequest::Renew { epoch, above, known } => {
                if epoch.number() == self.epoch {
                    self.epoch = self.epoch.max(above.number()) + 1;
                    self.earlier_epochs.clear();
                    self.epoch_began_after = (self.sequence >= known).then_some(self.sequence);
                }
                let epoch_began_after = self.epoch_began_after;
                let epoch = Epoch::new(self.epoch);
                LogUpdate::Head {
                    purpose: None,
                    head: PartitionHead { epoch, epoch_began_after, ..self.head() },
                }
            }
        };
        self.lines[instance].news.push_back(ModelPush::Update(news));
    }

    fn note_loss(&mut self, server: &str, through: u64, now: Instant) {
        let place = self.lineage.iter().position(|era| era.server == server);
        let Some(place) = place.and_then(|place| place.checked_sub(1)) else { return };
        let era = &mut self.lineage[place];
        let known = era.lost.map_or(era.began_after, |lost| lost.through);
        if known >= through {
            return;
        }
        self.sequence += 1;
        let (recorded_at, recorded_ms) = (self.sequence, self.clock.at(now));
        era.lost = Some(TailLoss { through, recorded_at, recorded_ms });
        for line in self.lines.iter_mut().filter(|line| line.is_up) {
            line.news.push_back(ModelPush::Update(LogUpdate::PushesMissing));
        }
    }

    fn head(&self) -> PartitionHead {
        PartitionHead {
            epoch: Epoch::new(self.epoch),
            earlier_epochs: self.earlier_epochs.iter().copied().map(Epoch::new).collect(),
            epoch_began_after: self.epoch_began_after,
            sequence: self.sequence,
            lineage: self.lineage.clone(),
        }
    }

    /// Pushes a call to the connected instances. Returns them with the generations of their
    /// connections.
    pub fn call(&mut self, number: usize) -> Vec<(usize, u64)> {
        let lines = self.lines.iter_mut().enumerate().filter(|(_, line)| line.is_up);
        let called = lines.map(|(instance, line)| {
            line.news.push_back(ModelPush::Call(number));
            (instance, line.generation)
        });
        called.collect()
    }

    /// The regular probe of a link: it names the sequences also by the latest epoch, and sends the
    /// head to all connected replicas.
    pub fn probe(&mut self, latest: u64) {
        if self.epoch < latest {
            self.earlier_epochs.insert(0, self.epoch);
            self.epoch = latest;
        }
        for instance in 0..self.lines.len() {
            if self.lines[instance].is_up {
                self.check_sequence(instance);
            }
        }
        let head = self.head();
        for line in self.lines.iter_mut().filter(|line| line.is_up) {
            line.news.push_back(ModelPush::Update(LogUpdate::Head {
                purpose: None,
                head: head.clone(),
            }));
        }
    }

    pub fn acknowledge(&self) -> Acknowledged {
        Acknowledged {
            epoch: Epoch::new(self.epoch),
            sequence: self.sequence,
            server: self.lineage[0].server.clone(),
        }
    }

    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    fn read(&self, topic: Topic, after: u64) -> TopicRead {
        let log = self.topics.get(&topic);
        let events = log.into_iter().flat_map(|log| &log.events);
        TopicRead {
            events: events.filter(|event| event.sequence > after).cloned().collect(),
            after,
            last: log.map_or(0, |log| log.last),
            evicted_through: log.map_or(0, |log| log.evicted_through),
            topic,
        }
    }
}

/// Cuts a read at its bound in bytes. Returns the end of the read; `u64::MAX` for a whole one.
fn bound(topics: &mut [TopicRead], max_bytes: usize) -> u64 {
    let events = topics.iter().flat_map(|read| &read.events);
    let mut events: Vec<_> = events.map(|one| (one.sequence, one.body.lines.len())).collect();
    events.sort_unstable();
    let mut bytes = 0;
    let full = events.iter().position(|(_, length)| {
        bytes += length;
        bytes >= max_bytes
    });
    let Some(last) = full.filter(|last| last + 1 < events.len()) else { return u64::MAX };
    let through = events[last].0;
    for read in topics {
        let count = read.events.partition_point(|one| one.sequence <= through);
        let has_loss = read.events.first().is_some_and(|first| first.previous > read.after);
        if count == 0 && !has_loss && !read.events.is_empty() {
            read.last = read.after.max(read.evicted_through);
        }
        // The first event past the end names the last one lost before it.
        read.events.truncate(count.max(usize::from(has_loss)));
    }
    through
}

/// Redis for a world with several instances.
pub struct ModelRedis {
    pub partitions: Vec<RedisPartition>,
    pub policies: Policies,
    /// Each instance's acknowledged publishes, by partition.
    pub acknowledged: Vec<Vec<Acknowledgements>>,
    /// Whether the schedule may lose single pushes. A real connection never does.
    pub loses_pushes: bool,
    /// The number of times it was emptied.
    pub era: u64,
    /// Whether it is a Redis Cluster: emptied partitions begin different epochs. Until they agree, a
    /// cursor names no position in the partitions behind, so a client cut then may get their events
    /// twice, after a gap.
    pub is_cluster: bool,
    /// Whether it fails over to servers without the last events, instead of being emptied.
    pub loses_tails: bool,
}
