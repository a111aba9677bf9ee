//! A partition with its log on disk, under random schedules: publishes, a disk answering late or
//! full, cleaning, crashes between any two records, panics, and clients coming and going.
//!
//! A failure prints its seed.
//!
//! - `FANFARE_JOURNAL_SEED=n cargo test -p fanfare-core --test journal` repeats the schedule.
//! - `FANFARE_JOURNAL_SEED=random` runs others than the usual ones.
//! - `FANFARE_JOURNAL_SCHEDULES=m` runs `m` schedules, from the given seed on.

#![allow(clippy::disallowed_methods, reason = "the schedule's clock starts at a real moment")]

mod client;
mod damage;
mod disk;
mod world;

use rand::{SeedableRng, rngs::StdRng};

use self::world::{Totals, World};

const SCHEDULES: u64 = 500;
const STEPS: usize = 300;

#[test]
fn an_acknowledged_event_survives_every_crash_and_reaches_each_client_once() {
    run_all(false);
}

#[test]
fn a_client_past_the_kept_records_of_a_lazy_disk_gets_a_gap_and_no_other() {
    run_all(true);
}

fn run_all(is_lazy: bool) {
    let variable = |name: &str| std::env::var(name).ok();
    let count = variable("FANFARE_JOURNAL_SCHEDULES").map(|count| count.parse().unwrap());
    let (first, count): (u64, u64) = match variable("FANFARE_JOURNAL_SEED").as_deref() {
        Some("random") => (rand::random_range(0..1 << 40), count.unwrap_or(SCHEDULES)),
        Some(seed) => (seed.parse().unwrap(), count.unwrap_or(1)),
        None => (0, count.unwrap_or(SCHEDULES)),
    };
    let mut totals = Totals::default();
    let mut failed: Vec<u64> = Vec::new();
    for seed in first..first + count {
        let run = std::panic::catch_unwind(|| {
            let mut world = World::new(StdRng::seed_from_u64(seed), is_lazy);
            (0..STEPS).for_each(|_| world.step());
            world.settle()
        });
        match run {
            Ok(counts) => totals.add(&counts),
            Err(_) => {
                eprintln!("failed schedule: FANFARE_JOURNAL_SEED={seed}, lazy: {is_lazy}");
                failed.push(seed);
            }
        }
    }
    assert!(failed.is_empty(), "failed schedules: {failed:?}");
    if count >= SCHEDULES {
        // A check reached by no schedule proves nothing.
        assert!(totals.is_telling(is_lazy), "{totals:?}");
    }
}
