//! A replica with a topic conflated by key: the values of keys outlive the other events, so the log
//! may have values missing here.

use std::{sync::Arc, time::Instant};

use super::*;
use crate::{
    budget::HistoryBudget,
    event::{Event, EventBody},
    id_budget::IdBudget,
    interest::{StartFrom, TypeFilter},
    log::{Acknowledgements, Changed, PartitionHead, TopicRead},
    pattern_set::PatternSet,
    policy::{Conflate, Policies, Policy},
    sse::encode,
    testing,
    wall_clock::WallClock,
};

const EPOCH: Epoch = Epoch::new(1);

fn topic() -> Topic {
    Topic::parse("topic").unwrap()
}

fn replica(now: Instant) -> Replica<()> {
    let policy =
        Policy { history_events: 2, ..Policy::clone(&testing::policy(Conflate::LatestByKey)) };
    let remembered = || Arc::new(IdBudget::new(1 << 20));
    let partition = PartitionSpec {
        partition: 0,
        epoch: EPOCH,
        policies: Arc::new(Policies::new(policy, Vec::new())),
        budget: Arc::new(HistoryBudget::new(1 << 30, 1, now)),
        clock: Arc::new(WallClock::new(now, Duration::from_secs(1000))),
        started_ms: 0,
        max_idle_topics: 100,
        idempotency_window: Duration::from_secs(300),
        remembered: remembered(),
        remembered_fan_outs: remembered(),
    };
    Replica::new(ReplicaSpec { partition, interest_grace: Duration::from_secs(1) })
}

fn event(sequence: u64, previous: u64, key: Option<&str>) -> LogEvent {
    let mut event = Event::text(sequence.to_string());
    event.key = key.map(Into::into);
    let body: EventBody = encode::body(&event, 1);
    LogEvent {
        epoch: EPOCH,
        sequence,
        previous,
        published_at: Instant::now(),
        unix_ms: 1000,
        topic: topic(),
        body: body.into(),
    }
}

fn head(sequence: u64) -> PartitionHead {
    PartitionHead {
        epoch: EPOCH,
        earlier_epochs: Vec::new(),
        epoch_began_after: Some(0),
        sequence,
        lineage: Vec::new(),
    }
}

/// A replica, and its log as a list of events.
struct Linked {
    replica: Replica<()>,
    now: Instant,
    last: u64,
    evicted_through: u64,
    events: Vec<LogEvent>,
    stream: StreamId,
}

impl Linked {
    /// At first contact with a log of these events, with a live stream.
    fn new(events: Vec<LogEvent>) -> Self {
        let (now, last) = (Instant::now(), events.last().map_or(0, |last| last.sequence));
        let replica = replica(now);
        let mut linked = Self { replica, now, last, evicted_through: 0, events, stream: 0 };
        linked.link_up(1);
        linked.attach(StartFrom::Live);
        linked
    }

    fn link_up(&mut self, generation: u64) {
        let acknowledged = Acknowledgements::default();
        self.update(LogUpdate::LinkUp { generation, acknowledged });
        self.answer_all();
    }

    fn update(&mut self, update: LogUpdate) {
        self.replica.on_update(update, self.now);
    }

    /// Answers the replica's requests.
    fn answer_all(&mut self) {
        loop {
            let requests = self.replica.take_requests().1;
            if requests.is_empty() {
                return;
            }
            for request in requests {
                let head = head(self.last);
                match request {
                    LogRequest::Head { purpose } => {
                        self.update(LogUpdate::Head { purpose: Some(purpose), head });
                    }
                    LogRequest::Changes { purpose, after } => {
                        let topics = vec![(topic(), self.last)];
                        let topics = topics.into_iter().filter(|(_, last)| *last > after).collect();
                        let changed = Changed { topics, forgotten_through: 0 };
                        self.update(LogUpdate::Changes { purpose, head, changed });
                    }
                    LogRequest::Read { purpose, topics, .. } => {
                        let read = |(topic, after)| TopicRead {
                            topic,
                            after,
                            last: self.last,
                            evicted_through: self.evicted_through,
                            events: self.after(after),
                        };
                        let topics = topics.into_iter().map(read).collect();
                        let through = self.last;
                        self.update(LogUpdate::Read { purpose, head, through, topics });
                    }
                    _ => {}
                }
            }
        }
    }

    fn after(&self, after: u64) -> Vec<LogEvent> {
        self.events.iter().filter(|event| event.sequence > after).cloned().collect()
    }

    /// The log gets an event, and pushes it.
    fn publish(&mut self, key: Option<&str>) {
        let event = event(self.last + 1, self.last, key);
        self.last += 1;
        self.events.push(event.clone());
        self.update(LogUpdate::Announced { first: self.last, topics: vec![topic()] });
        self.update(LogUpdate::Event(event));
        assert!(self.replica.is_up());
    }

    /// Attaches a stream. Returns the sequences of its replay.
    fn attach(&mut self, from: StartFrom) -> Vec<u64> {
        self.stream += 1;
        let interest = Interest {
            topics: [topic()].into_iter().collect(),
            patterns: PatternSet::none(),
            types: TypeFilter::default(),
        };
        let (stream, interest, max_bytes) = (self.stream, Arc::new(interest), 1 << 20);
        let attach = InterestChange::Attach { stream, interest, from, max_bytes };
        self.replica.change_interest(1, vec![attach], self.now);
        self.answer_all();
        let deliveries = self.replica.routing.take_outgoing(1).into_iter();
        let mut replays = deliveries.filter_map(|delivery| match delivery {
            Delivery::Attached { stream: attached, replay } if attached == stream => Some(replay),
            _ => None,
        });
        let replay = replays.next().expect("an attached stream");
        replay.events.iter().map(|event| event.sequence).collect()
    }
}

#[test]
fn a_snapshot_has_values_older_than_the_events_trimmed_here() {
    let mut linked = Linked::new(vec![event(1, 0, Some("old"))]);
    // More than the policy keeps, so the oldest leaves the replica: 2.
    (0..3).for_each(|_| linked.publish(None));
    linked.events.retain(|event| event.sequence != 2);
    linked.evicted_through = 2;
    assert_eq!(linked.attach(StartFrom::Snapshot), [1, 3, 4]);
}

#[test]
fn a_value_removed_during_an_outage_is_in_no_later_snapshot() {
    let mut linked = Linked::new(Vec::new());
    linked.publish(Some("removed"));
    linked.publish(Some("kept"));
    linked.update(LogUpdate::LinkDown);
    // The log has removed the key by 3, and trimmed 3 and 4 since.
    linked.events.retain(|event| event.sequence == 2);
    linked.events.extend([event(5, 4, None), event(6, 5, None)]);
    (linked.last, linked.evicted_through) = (6, 4);
    linked.link_up(2);
    assert_eq!(linked.attach(StartFrom::Snapshot), [2, 5, 6]);
    linked.publish(Some("new"));
    assert_eq!(linked.attach(StartFrom::Snapshot), [2, 5, 6, 7]);
}
