//! The log alone: budget, expiry, forgotten topics, replay.

use std::time::Duration;

use super::*;
use crate::{
    interest::TypeFilter,
    pattern_set::PatternSet,
    policy::{Conflate, Policy},
    testing,
    topic::Pattern,
};

const EPOCH: Epoch = Epoch::new(1);

fn after(sequence: u64) -> StartFrom {
    StartFrom::After { epoch: EPOCH, sequence, since: 0 }
}

fn keep_all() -> Policy {
    (*testing::policy(Conflate::None)).clone()
}

fn log(policy: &Policy, partition: u16, budget: &Arc<HistoryBudget>) -> PartitionLog {
    let policies = Arc::new(Policies::new(policy.clone(), Vec::new()));
    PartitionLog::new(EPOCH, partition, 0, 0, policies, budget.clone(), 2)
}

fn append(log: &mut PartitionLog, topic: &str, now: Instant) -> Option<u16> {
    let topic = Topic::parse(topic).unwrap();
    let (_, trim) = log.append(&topic, now, |sequence, history| {
        let event = testing::sequenced(topic.as_str(), sequence, None, &history.policy);
        let event = Arc::into_inner(event).unwrap();
        SequencedEvent { published_at: now, ..event }
    });
    trim
}

fn interest(topics: &[&str], patterns: &[&str]) -> Interest {
    let topics = topics.iter().map(|topic| Topic::parse(topic).unwrap()).collect();
    let patterns = patterns.iter().map(|pattern| Pattern::parse(pattern).unwrap()).collect();
    let patterns = PatternSet::of(patterns);
    Interest { topics, patterns, types: TypeFilter::default() }
}

fn sequences(replay: &Replay) -> Vec<u64> {
    replay.events.iter().map(|event| event.sequence).collect()
}

#[test]
fn the_budget_evicts_the_oldest_events_of_all_partitions() {
    let (policy, now) = (keep_all(), Instant::now());
    let size = testing::sequenced("a", 1, None, &testing::policy(Conflate::None)).size_bytes();
    let policies = Policies::new(policy.clone(), Vec::new());
    let topic_size = HistoryRing::new(Topic::parse("a").unwrap(), &policies).topic_bytes();
    let max_bytes = 20 * size + 2 * topic_size + 50;
    let budget = Arc::new(HistoryBudget::new(max_bytes, 2, now));
    let (mut old, mut new) = (log(&policy, 0, &budget), log(&policy, 1, &budget));
    let at = |millis| now + Duration::from_millis(millis);
    (0..10).for_each(|millis| assert_eq!(append(&mut old, "a", at(millis)), None));
    (10..20).for_each(|millis| assert_eq!(append(&mut new, "b", at(millis)), None));
    // Over the budget, with older events in the other partition: the log asks it once.
    assert_eq!(append(&mut new, "b", at(20)), Some(0));
    assert_eq!(append(&mut new, "b", at(21)), None);
    old.trim();
    assert!(budget.used_bytes() <= max_bytes);
    let replay = old.replay(&interest(&["a"], &[]), after(1), at(30));
    assert_eq!(sequences(&replay), (3..=10).collect::<Vec<_>>());
    assert_eq!(replay.missed.unwrap().topics.len(), 1);
    drop((old, new));
    assert_eq!(budget.used_bytes(), 0);
}

#[test]
fn a_partition_that_does_not_keep_up_does_not_let_the_budget_burst() {
    let (policy, now) = (keep_all(), Instant::now());
    let budget = Arc::new(HistoryBudget::new(10_000, 2, now));
    let (mut old, mut new) = (log(&policy, 0, &budget), log(&policy, 1, &budget));
    append(&mut old, "a", now);
    let later = now + Duration::from_secs(1);
    (0..1000).for_each(|_| {
        append(&mut new, "b", later);
    });
    assert!(budget.used_bytes() <= 10_000 * 9 / 8, "{}", budget.used_bytes());
}

#[test]
fn expired_events_are_a_gap_and_a_quiet_topic_is_none() {
    let policy = Policy { history_ttl: Duration::from_secs(10), ..keep_all() };
    let now = Instant::now();
    let mut log = log(&policy, 0, &Arc::new(HistoryBudget::new(usize::MAX / 2, 1, now)));
    append(&mut log, "loud", now);
    let later = now + Duration::from_secs(10);
    append(&mut log, "loud", later);
    let loud = log.replay(&interest(&["loud"], &[]), after(0), later);
    assert_eq!(sequences(&loud), [2]);
    assert_eq!(loud.missed.unwrap().reason, MissedReason::History);
    let quiet = log.replay(&interest(&["quiet"], &[]), after(0), later);
    assert_eq!((sequences(&quiet), quiet.missed), (vec![], None));
}

#[test]
fn topics_past_the_bound_are_forgotten_and_their_streams_are_told() {
    let policy = Policy { history_events: 0, ..keep_all() };
    let now = Instant::now();
    let mut log = log(&policy, 0, &Arc::new(HistoryBudget::new(usize::MAX / 2, 1, now)));
    for topic in 0..100 {
        append(&mut log, &format!("t:{topic}"), now);
    }
    assert!(log.topic_count() <= 3, "{}", log.topic_count());
    let exact = log.replay(&interest(&["t:0"], &[]), after(0), now);
    assert!(exact.missed.is_some(), "forgotten, and so perhaps missed");
    let pattern = log.replay(&interest(&[], &["t:*"]), after(50), now);
    assert!(pattern.missed.is_some());
    let current = log.replay(&interest(&["t:0"], &["t:*"]), after(100), now);
    assert_eq!(current.missed, None);
}

#[test]
fn a_pattern_replays_every_topic_that_it_matches_in_sequence_order() {
    let (policy, now) = (keep_all(), Instant::now());
    let mut log = log(&policy, 0, &Arc::new(HistoryBudget::new(usize::MAX / 2, 1, now)));
    for topic in ["a:1", "b:1", "a:2", "a:1", "c"] {
        append(&mut log, topic, now);
    }
    let replay = log.replay(&interest(&["c"], &["a:*"]), StartFrom::Earliest, now);
    assert_eq!(sequences(&replay), [1, 3, 4, 5]);
    let resumed = log.replay(&interest(&[], &["a:*"]), after(3), now);
    assert_eq!(sequences(&resumed), [4]);
    let foreign = log.replay(&interest(&["c"], &[]), after(6), now);
    assert_eq!(foreign.missed.unwrap().reason, MissedReason::Epoch);
}
