//! The memory of histories and idle topics, against the bytes counted in their budgets.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use allocation_counter::AllocationInfo;
use fanfare_core::{
    event::Event,
    partition::{MemoryPartition, PartitionSpec},
    policy::{Conflate, Flush, Policy},
    topic::Topic,
};

use super::support::{cost, partition_spec, policy};

const UNBOUNDED: usize = 1 << 40;

fn spec(max_history_bytes: usize) -> PartitionSpec {
    let policy = Policy::clone(&policy(Flush::Leading));
    partition_spec(0, policy, max_history_bytes)
}

/// Publishes an event to each topic. `event` names its type and its key.
fn publish(
    partition: &mut MemoryPartition<()>,
    topics: usize,
    event: impl Fn(usize) -> (Option<String>, Option<String>),
    now: Instant,
) {
    for number in 0..topics {
        let topic = Topic::parse(&format!("tenant:{number}")).unwrap();
        let (event_type, key) = event(number);
        let text = Event::text("a short event");
        let event = Event { event_type, key, ..text };
        partition.publish(&topic, &event.into(), None, now).unwrap();
    }
}

/// Asserts that the counted bytes are the allocated bytes, roughly: a little more, never fewer.
fn assert_counted(allocated: &AllocationInfo, counted: usize) {
    let allocated = allocated.bytes_current as usize;
    let share = counted as f64 / allocated as f64;
    assert!((0.97..1.35).contains(&share), "counted {counted}, allocated {allocated}: {share}");
}

#[test]
fn very_many_topics_of_one_event_are_counted() {
    // Different numbers: lists and maps have different shares of spare room.
    for topics in [10_000, 15_000, 20_000, 28_000] {
        let (spec, now) = (spec(UNBOUNDED), Instant::now());
        let budget = spec.budget.clone();
        let mut partition = MemoryPartition::new(spec);
        let cost = cost(|| publish(&mut partition, topics, |_| (None, None), now));
        assert_counted(&cost, budget.used_bytes());
    }
}

#[test]
fn many_events_of_one_topic_are_counted() {
    let (mut spec, now) = (spec(UNBOUNDED), Instant::now());
    let keyed = Policy {
        conflate: Conflate::LatestByKey,
        history_events: 100_000,
        ..Policy::clone(&policy(Flush::Leading))
    };
    for policy in [keyed.clone(), Policy { conflate: Conflate::None, ..keyed }] {
        spec.policies = partition_spec(0, policy, UNBOUNDED).policies;
        let budget = spec.budget.clone();
        let before = budget.used_bytes();
        let mut partition: MemoryPartition<()> = MemoryPartition::new(spec.clone());
        let topic = Topic::parse("a").unwrap();
        let cost = cost(|| {
            for number in 0..20_000 {
                let event = Event::text("a short event").key(format!("key {number}"));
                partition.publish(&topic, &event.into(), None, now).unwrap();
            }
        });
        assert_counted(&cost, budget.used_bytes() - before);
    }
}

#[test]
fn idle_topics_are_counted_and_bounded_with_their_evicted_types() {
    const MAX_IDLE_BYTES: usize = 1 << 20;
    let (mut spec, now) = (spec(0), Instant::now());
    let budget = fanfare_core::budget::HistoryBudget::new(0, 16, now);
    let budget = Arc::new(budget.with_max_idle_bytes(MAX_IDLE_BYTES));
    spec.budget = budget.clone();
    let mut partition = MemoryPartition::new(spec);
    let cost = cost(|| {
        for round in 0..8 {
            let event_type = |number| Some(format!("{:0200}", 8 * number + round));
            publish(&mut partition, 10_000, |number| (event_type(number), None), now);
        }
    });
    assert!(budget.used_bytes() == 0, "nothing is in history");
    assert!(budget.idle_bytes() <= MAX_IDLE_BYTES);
    assert!(budget.idle_bytes() > MAX_IDLE_BYTES * 9 / 10, "the budget is used");
    assert!((cost.bytes_current as usize) < MAX_IDLE_BYTES * 13 / 10, "{cost:?}");
}

#[test]
fn expired_topics_release_the_budget_of_history() {
    let (spec, now) = (spec(UNBOUNDED), Instant::now());
    let budget = spec.budget.clone();
    let mut partition = MemoryPartition::new(spec);
    publish(&mut partition, 1000, |_| (None, None), now);
    partition.expire(now + Duration::from_secs(3601));
    assert_eq!(budget.used_bytes(), 0);
    assert!(budget.idle_bytes() > 0);
    drop(partition);
    assert_eq!(budget.idle_bytes(), 0);
}
