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

/// No bound on a page, neither in bytes nor in visits.
const WHOLE: usize = usize::MAX;

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
    let replay = old.page(&interest(&["a"], &[]), after(1), WHOLE, at(30));
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
    let loud = log.page(&interest(&["loud"], &[]), after(0), WHOLE, later);
    assert_eq!(sequences(&loud), [2]);
    assert_eq!(loud.missed.unwrap().reason, MissedReason::History);
    let quiet = log.page(&interest(&["quiet"], &[]), after(0), WHOLE, later);
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
    let exact = log.page(&interest(&["t:0"], &[]), after(0), WHOLE, now);
    assert!(exact.missed.is_some(), "forgotten, and so perhaps missed");
    let pattern = log.page(&interest(&[], &["t:*"]), after(50), WHOLE, now);
    assert!(pattern.missed.is_some());
    let current = log.page(&interest(&["t:0"], &["t:*"]), after(100), WHOLE, now);
    assert_eq!(current.missed, None);
}

#[test]
fn a_pattern_replays_every_topic_that_it_matches_in_sequence_order() {
    let (policy, now) = (keep_all(), Instant::now());
    let mut log = log(&policy, 0, &Arc::new(HistoryBudget::new(usize::MAX / 2, 1, now)));
    for topic in ["a:1", "b:1", "a:2", "a:1", "c"] {
        append(&mut log, topic, now);
    }
    let replay = log.page(&interest(&["c"], &["a:*"]), StartFrom::Earliest, WHOLE, now);
    assert_eq!(sequences(&replay), [1, 3, 4, 5]);
    let resumed = log.page(&interest(&[], &["a:*"]), after(3), WHOLE, now);
    assert_eq!(sequences(&resumed), [4]);
    let foreign = log.page(&interest(&["c"], &[]), after(6), WHOLE, now);
    assert_eq!(foreign.missed.unwrap().reason, MissedReason::Epoch);
}

/// Takes all pages of a replay, with at most this many bytes each.
fn pages(
    log: &mut PartitionLog,
    interest: &Interest,
    from: StartFrom,
    bytes: usize,
) -> Vec<Replay> {
    let mut pages = vec![log.page(interest, from, bytes, Instant::now())];
    while let Some(rest) = pages.last().and_then(|page| page.next) {
        pages.push(log.page(interest, StartFrom::Continue(rest), bytes, Instant::now()));
    }
    pages
}

#[test]
fn a_page_is_bounded_in_bytes_and_the_pages_join_without_a_hole() {
    let (policy, now) = (keep_all(), Instant::now());
    let mut log = log(&policy, 0, &Arc::new(HistoryBudget::new(usize::MAX / 2, 1, now)));
    (0..300).for_each(|number| {
        append(&mut log, ["a", "b:1", "b:2"][number % 3], now);
    });
    let size = testing::sequenced("a", 100, None, &testing::policy(Conflate::None)).stream_bytes();
    for interest in [interest(&["a", "b:1", "b:2"], &[]), interest(&["a"], &["b:*"])] {
        let pages = pages(&mut log, &interest, StartFrom::Earliest, 10 * size);
        assert!(pages.len() >= 30, "{}", pages.len());
        assert!(pages.iter().all(|page| page.events.len() <= 11));
        let all: Vec<u64> = pages.iter().flat_map(sequences).collect();
        assert_eq!(all, (1..=300).collect::<Vec<_>>());
        for (page, next) in pages.iter().zip(&pages[1..]) {
            assert_eq!((page.head, next.missed.is_some()), (next.start, false));
        }
        assert_eq!(pages.last().map(|last| (last.head, last.next)), Some((300, None)));
    }
}

#[test]
fn a_filter_that_matches_nothing_visits_a_bounded_number_of_events_a_page() {
    let policy = Policy { history_events: 100_000, ..keep_all() };
    let now = Instant::now();
    let mut log = log(&policy, 0, &Arc::new(HistoryBudget::new(usize::MAX / 2, 1, now)));
    (0..20_000).for_each(|_| {
        append(&mut log, "loud", now);
    });
    let mut by_type = interest(&["loud"], &[]);
    by_type.types = TypeFilter::of(vec!["rare".to_owned()]);
    for interest in [by_type, interest(&[], &["quiet:*"])] {
        let mut from = StartFrom::Earliest;
        let mut count = 0;
        loop {
            let page = log.page(&interest, from, WHOLE - 1, now);
            count += 1;
            let visits = log.take_visits();
            assert!(visits <= 4096 && page.events.is_empty(), "{visits} events in one turn");
            let Some(rest) = page.next else { break };
            from = StartFrom::Continue(rest);
        }
        assert!(count >= 4, "{count} pages");
    }
}

#[test]
fn events_evicted_between_two_pages_are_a_gap_once() {
    let policy = Policy { history_events: 10, ..keep_all() };
    let now = Instant::now();
    let mut log = log(&policy, 0, &Arc::new(HistoryBudget::new(usize::MAX / 2, 1, now)));
    (0..20).for_each(|_| {
        append(&mut log, "a", now);
    });
    let interest = interest(&["a", "b"], &[]);
    append(&mut log, "b", now);
    let first = log.page(&interest, after(0), 1, now);
    assert_eq!((sequences(&first), first.missed.is_some()), (vec![11], true));
    let second = log.page(&interest, StartFrom::Continue(first.next.unwrap()), 1, now);
    assert_eq!((sequences(&second), second.missed), (vec![12], None));
    (0..5).for_each(|_| {
        append(&mut log, "a", now);
    });
    let third = log.page(&interest, StartFrom::Continue(second.next.unwrap()), 1, now);
    assert_eq!((sequences(&third), third.missed.is_some()), (vec![16], true));
    let fourth = log.page(&interest, StartFrom::Continue(third.next.unwrap()), WHOLE, now);
    assert_eq!((fourth.missed, fourth.next), (None, None));
    assert_eq!(fourth.events.last().map(|last| last.sequence), Some(26));
}

#[test]
fn a_snapshot_in_pages_has_the_conflated_topics_and_then_everything_since() {
    let now = Instant::now();
    let latest = Policy { conflate: Conflate::LatestByKey, ..keep_all() };
    let entries = vec![(Pattern::parse("key:*").unwrap(), latest)];
    let policies = Arc::new(Policies::new(keep_all(), entries));
    let budget = Arc::new(HistoryBudget::new(usize::MAX / 2, 1, now));
    let mut log = PartitionLog::new(EPOCH, 0, 0, 0, policies, budget, 2);
    ["key:a", "plain", "key:b"].iter().for_each(|topic| {
        append(&mut log, topic, now);
    });
    for interest in [interest(&["key:a", "key:b", "plain"], &[]), interest(&[], &["**"])] {
        let first = log.page(&interest, StartFrom::Snapshot, 1, now);
        assert_eq!(sequences(&first), [1]);
        append(&mut log, "plain", now);
        let rest = StartFrom::Continue(first.next.unwrap());
        let last = log.page(&interest, rest, WHOLE, now);
        let newest = log.sequence();
        assert_eq!((sequences(&last)[0], sequences(&last).last()), (3, Some(&newest)));
        assert!(!sequences(&last).contains(&2), "not a part of the snapshot");
    }
}
