//! Damaged records, a clock set back between two starts, and values copied by cleaning.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use fanfare_core::{
    budget::HistoryBudget,
    cursor::Epoch,
    event::Event,
    id_budget::IdBudget,
    interest::{Interest, StartFrom, TypeFilter},
    journal::Record,
    partition::{
        Delivery, InterestChange, JournaledPartition, Outcome, PartitionSpec, PartitionState,
        Publishing, Recovery, StoreEnd,
    },
    pattern_set::PatternSet,
    policy::{Conflate, Flush, Policies, Policy},
    topic::Topic,
    wall_clock::WallClock,
};

const EPOCH: Epoch = Epoch::new(7);

const HOUR: Duration = Duration::from_secs(3600);

fn spec(now: Instant, unix_ms: u64) -> PartitionSpec {
    let policy = Policy {
        entry: None,
        flush: Flush::Immediate,
        tick: Duration::from_millis(100),
        conflate: Conflate::LatestByKey,
        history_events: 100,
        history_ttl: 24 * HOUR,
        rate: None,
    };
    PartitionSpec {
        partition: 0,
        epoch: EPOCH,
        policies: Arc::new(Policies::new(policy, Vec::new())),
        budget: Arc::new(HistoryBudget::new(1 << 30, 1, now)),
        clock: Arc::new(WallClock::new(now, Duration::from_millis(unix_ms))),
        started_ms: unix_ms,
        max_idle_topics: 100,
        idempotency_window: Duration::from_secs(300),
        remembered: Arc::new(IdBudget::new(1 << 30)),
        remembered_fan_outs: Arc::new(IdBudget::new(1 << 30)),
    }
}

fn open(spec: PartitionSpec, now: Instant, records: &[Record], end: StoreEnd<'_>) -> Opened {
    let mut recovery = Recovery::new(spec, now);
    for record in records {
        recovery.read(record.sequence, record.kind, &record.payload);
    }
    let partition: JournaledPartition<()> = recovery.finish(end);
    Opened { state: PartitionState::Journaled(Box::new(partition)), records: records.to_vec(), now }
}

struct Opened {
    state: PartitionState<()>,
    records: Vec<Record>,
    now: Instant,
}

fn topic(name: &str) -> Topic {
    Topic::parse(name).unwrap()
}

impl Opened {
    fn write(&mut self) -> Vec<Outcome> {
        let journaled = self.state.journaled().unwrap();
        while let Some(batch) = journaled.take_batch() {
            self.records.extend(batch);
            journaled.on_written(Ok(()));
        }
        while journaled.apply(self.now) {}
        journaled.take_outcomes()
    }

    fn publish(&mut self, name: &str, event: Event) -> u64 {
        match self.state.publish(&topic(name), &event.into(), None, self.now) {
            Publishing::Decided(taken) => return taken.ok().unwrap().published.sequence,
            Publishing::Journaled => {}
            Publishing::Append { .. } => unreachable!("the log is on disk"),
        }
        match self.write().pop() {
            Some(Outcome::Published(Ok(taken))) => taken.published.sequence,
            _ => panic!("no answer"),
        }
    }

    /// Whether a client of a topic at this position gets a gap, and the sequences it gets.
    fn resume(&mut self, name: &str, sequence: u64) -> (bool, Vec<u64>) {
        let interest = Interest {
            topics: [topic(name)].into_iter().collect(),
            patterns: PatternSet::none(),
            types: TypeFilter::default(),
        };
        let from = StartFrom::After { epoch: EPOCH, sequence, since: 0 };
        let (interest, max_bytes) = (Arc::new(interest), 1 << 20);
        let attach = InterestChange::Attach { stream: 1, interest, from, max_bytes };
        self.state.change_interest(1, vec![attach], self.now);
        while self.state.continue_changes(self.now) {}
        match self.state.routing().take_outgoing(1).pop() {
            Some(Delivery::Attached { replay, .. }) => {
                let sequences = replay.events.iter().map(|event| event.sequence);
                (replay.missed.is_some(), sequences.collect())
            }
            other => panic!("{other:?}"),
        }
    }
}

const CLEAN: StoreEnd<'_> = StoreEnd { is_clean: true, last_sequence: 0, damaged: &[] };

#[test]
fn a_damaged_record_is_a_gap_for_clients_before_it_also_after_cleaning() {
    let now = Instant::now();
    let spec = || spec(now, 1 << 40);
    let mut hub = open(spec(), now, &[], CLEAN);
    for name in ["a", "b", "a", "b", "a"] {
        hub.publish(name, Event::text("x"));
    }
    let mut records = hub.records;
    records.retain(|record| record.sequence != 3);
    for damaged in [Some(3), None] {
        let end = StoreEnd { is_clean: true, last_sequence: 5, damaged: &[damaged] };
        let mut hub = open(spec(), now, &records, end);
        assert_eq!(hub.resume("b", 2), (true, vec![4]), "nobody knows its topic");
        assert_eq!(hub.resume("a", 3), (false, vec![5]));
        assert_eq!(hub.resume("b", 4), (false, vec![]));
        hub.write();
        let page = hub.records.clone();
        let kept = hub.state.journaled().unwrap().keep_of(page, false, now).unwrap();
        let end = StoreEnd { is_clean: true, last_sequence: 5, damaged: &[] };
        let mut hub = open(spec(), now, &kept, end);
        assert_eq!(hub.resume("b", 2), (true, vec![4]), "the damage has left the disk");
        assert_eq!(hub.resume("a", 3), (false, vec![5]));
    }
}

#[test]
fn a_damaged_last_record_is_a_gap_and_its_sequence_is_not_given_out_again() {
    let now = Instant::now();
    let mut hub = open(spec(now, 1 << 40), now, &[], CLEAN);
    hub.publish("a", Event::text("first"));
    hub.publish("a", Event::text("damaged"));
    let mut records = hub.records;
    records.pop();
    let end = StoreEnd { is_clean: true, last_sequence: 1, damaged: &[None] };
    let mut hub = open(spec(now, 1 << 40), now, &records, end);
    hub.write();
    assert_eq!(hub.resume("a", 1), (true, vec![]));
    assert!(hub.publish("a", Event::text("next")) > 2);
}

#[test]
fn a_clock_set_back_shortens_no_window_and_lengthens_no_life() {
    let now = Instant::now();
    let unix_ms = 1 << 40;
    let mut hub = open(spec(now, unix_ms), now, &[], CLEAN);
    let value = Event::text("value").key("k").id("once").ttl(Duration::from_secs(20));
    let first = hub.publish("a", value.clone());
    let back = unix_ms - HOUR.as_millis() as u64;
    let end = StoreEnd { last_sequence: first, ..CLEAN };
    let mut hub = open(spec(now, back), now, &hub.records, end);
    assert_eq!(hub.publish("a", value), first, "the id is remembered");
    assert_eq!(hub.state.end_keys(now + Duration::from_secs(19)).map(|at| at - now), {
        Some(Duration::from_secs(20))
    });
    hub.now = now + Duration::from_secs(20);
    hub.state.end_keys(hub.now);
    hub.write();
    assert_eq!(hub.resume("a", first), (false, vec![first + 1]), "the key has ended once");
}

#[test]
fn a_copied_value_stays_removed_after_its_removal_has_left_the_history() {
    let now = Instant::now();
    // The history keeps the last 100 events without values.
    let mut hub = open(spec(now, 1 << 40), now, &[], CLEAN);
    hub.publish("a", Event::text("removed").key("k"));
    hub.publish("a", Event::text("kept").key("other"));
    let page = hub.records.clone();
    let kept = hub.state.journaled().unwrap().keep_of(page, false, now).unwrap();
    // The copies are behind newer records.
    hub.publish("b", Event::text("x"));
    let copied = hub.records.split_off(hub.records.len() - 1);
    hub.records = copied.into_iter().chain(kept).collect();
    hub.publish("a", Event::delete("k"));
    for _ in 0..100 {
        hub.publish("a", Event::text("x"));
    }
    let end = StoreEnd { last_sequence: 104, ..CLEAN };
    let mut hub = open(spec(now, 1 << 40), now, &hub.records, end);
    let (_, sequences) = hub.resume("a", 0);
    assert_eq!((sequences[0], sequences.len()), (2, 101), "the value left, and the events without");
}

/// A permit with a bug: its clone for a delivery panics.
#[derive(Debug)]
struct Panicking(std::cell::Cell<usize>);

impl Clone for Panicking {
    fn clone(&self) -> Self {
        // The first clone is the accepted entry's own, the second one a delivery's.
        assert_eq!(self.0.get(), 0, "asked to");
        Self(std::cell::Cell::new(1))
    }
}

#[test]
fn a_panic_while_an_event_is_applied_answers_and_is_a_gap_for_streams_before_it() {
    let now = Instant::now();
    let mut recovery: Recovery<Panicking> = Recovery::new(spec(now, 1 << 40), now);
    recovery.trim();
    let partition = recovery.finish(CLEAN);
    let mut state = PartitionState::Journaled(Box::new(partition));
    let interest = || {
        let topics = [topic("a")].into_iter().collect();
        Arc::new(Interest { topics, patterns: PatternSet::none(), types: TypeFilter::default() })
    };
    let attach =
        |from| InterestChange::Attach { stream: 1, interest: interest(), from, max_bytes: 1 << 20 };
    state.change_interest(1, vec![attach(StartFrom::Live)], now);
    let permit = Panicking(std::cell::Cell::new(0));
    state.publish(&topic("a"), &Event::text("x").into(), Some(&permit), now);
    let journaled = state.journaled().unwrap();
    journaled.take_batch().unwrap();
    journaled.on_written(Ok(()));
    let apply = std::panic::AssertUnwindSafe(|| journaled.apply(now));
    assert!(std::panic::catch_unwind(apply).is_err());
    let mut state = state.rebuild();
    let outcome = state.journaled().unwrap().take_outcomes().pop();
    assert!(matches!(outcome, Some(Outcome::Published(Err(_)))), "the event may be stored");
    assert!(state.memory().unwrap().take_stored(&topic("a")).is_none());
    let from = StartFrom::After { epoch: EPOCH, sequence: 0, since: 0 };
    state.change_interest(1, vec![attach(from)], now);
    while state.continue_changes(now) {}
    let Some(Delivery::Attached { replay, .. }) = state.routing().take_outgoing(1).pop() else {
        panic!("no answer to the attach");
    };
    assert!(replay.missed.is_some());
    assert!(replay.head >= 1, "its sequence is not given out again");
}
