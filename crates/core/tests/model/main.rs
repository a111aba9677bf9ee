//! The model test: it runs the states behind the actors (partitions, topic managers, connections)
//! under random schedules, and compares them with a small reference.
//!
//! The schedule plays the actors and the network: it passes on one message at a time, in any order
//! possible with mailboxes. It cuts clients at any byte, stalls readers, panics and rebuilds
//! actors, and moves the clock. A failure prints its seed.
//!
//! - `FANFARE_MODEL_SEED=n cargo test -p fanfare-core --test model` repeats the schedule.
//! - `FANFARE_MODEL_SEED=random` runs others than the usual ones.
//! - `FANFARE_MODEL_SCHEDULES=m` runs `m` schedules, from the given seed on.

#![allow(clippy::disallowed_methods, reason = "the schedule's clock starts at a real moment")]

mod client;
mod expectation;
mod graph;
mod redis;
mod reference;
mod settings;
mod world;

use rand::{RngExt, SeedableRng, rngs::StdRng};

use self::world::{Scope, World};

const SCHEDULES: u64 = 1500;
/// Of a narrower scope.
const FEWER_SCHEDULES: u64 = 500;
const STEPS: usize = 400;

#[test]
fn every_stream_gets_each_event_once_in_order_or_a_gap() {
    run_all(false, Scope::Everything);
}

#[test]
fn two_instances_over_redis_act_as_one() {
    run_all(true, Scope::Everything);
}

#[test]
fn topics_added_to_open_streams_lose_nothing_over_several_pages() {
    run_all(false, Scope::Additions);
}

#[test]
fn topics_added_to_open_streams_lose_nothing_over_redis() {
    run_all(true, Scope::Additions);
}

fn run_all(has_redis: bool, scope: Scope) {
    let variable = |name: &str| std::env::var(name).ok();
    let usual = if scope == Scope::Everything { SCHEDULES } else { FEWER_SCHEDULES };
    let count = variable("FANFARE_MODEL_SCHEDULES").map(|count| count.parse().unwrap());
    let (first, count): (u64, u64) = match variable("FANFARE_MODEL_SEED").as_deref() {
        Some("random") => (rand::random_range(0..1 << 40), count.unwrap_or(usual)),
        Some(seed) => (seed.parse().unwrap(), count.unwrap_or(1)),
        None => (0, count.unwrap_or(usual)),
    };
    let mut totals = world::ModelTotals::default();
    let mut failed: Vec<u64> = Vec::new();
    for seed in first..first + count {
        match std::panic::catch_unwind(|| run(seed, has_redis, scope)) {
            Ok(counts) => totals.add(&counts),
            Err(_) => {
                eprintln!("failed schedule: FANFARE_MODEL_SEED={seed}");
                failed.push(seed);
            }
        }
    }
    assert!(failed.is_empty(), "failed schedules: {failed:?}");
    if count >= usual {
        // A check reached by no schedule proves nothing.
        assert!(totals.is_telling(has_redis, scope), "{totals:?}");
    }
}

fn run(seed: u64, has_redis: bool, scope: Scope) -> world::ModelTotals {
    let mut world = World::new(StdRng::seed_from_u64(seed), has_redis, scope);
    for _ in 0..STEPS {
        world.step();
    }
    world.settle();
    world.check()
}

/// A random choice of the values.
fn any<T: Copy>(rng: &mut StdRng, values: &[T]) -> T {
    values[rng.random_range(0..values.len())]
}
