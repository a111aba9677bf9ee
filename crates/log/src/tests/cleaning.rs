//! Cleaning: needed records stay, the log stays small.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tempfile::tempdir;

use super::{append, options, try_open};
use crate::{Lane, Options};

/// Small segments, so that a few appends fill many.
fn small() -> Options {
    Options { segment_bytes: 10_000, ..options() }
}

fn wait(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "the condition never came true");
        std::thread::yield_now();
    }
}

#[test]
fn needed_records_survive_and_all_others_go() {
    let directory = tempdir().unwrap();
    let (log, _) = try_open(directory.path(), small()).unwrap();
    let needed: BTreeSet<u64> = BTreeSet::from([3, 50, 777]);
    let wanted = needed.clone();
    log.store.set_needed_bytes(Lane(2), 300);
    log.store
        .start_cleaning(move |mut page| {
            let mut entries = std::mem::take(&mut page.entries);
            entries.retain(|entry| wanted.contains(&entry.sequence));
            page.keep(entries);
        })
        .unwrap();
    for sequence in 1..=2000 {
        append(&log.store, 2, sequence, &[b'x'; 100]).unwrap();
    }
    wait(|| log.store.figures().bytes <= 3 * 300 + 2 * 10_000 + 10_000);
    let figures = log.store.figures();
    assert!(figures.written_bytes < 2000 * 124 * 3 / 2, "{figures:?}");
    assert!(figures.copied_bytes > 0 && figures.cleaned_count > 10, "{figures:?}");
    log.store.close();
    drop(log);

    let (log, found) = try_open(directory.path(), small()).unwrap();
    let sequences: BTreeSet<u64> = found.iter().map(|record| record.1).collect();
    assert!(sequences.is_superset(&needed), "{sequences:?}");
    assert!(found.len() < 400, "{}", found.len());
    assert_eq!(log.damage, []);
    assert_eq!(log.last_sequences[&Lane(2)], 2000);
}

#[test]
fn the_highest_sequence_survives_the_cleaning_of_its_record() {
    let directory = tempdir().unwrap();
    let (log, _) = try_open(directory.path(), small()).unwrap();
    log.store.start_cleaning(|page| page.keep(Vec::new())).unwrap();
    append(&log.store, 1, 12_345, b"the only one").unwrap();
    for sequence in 1..=1000 {
        append(&log.store, 2, sequence, &[b'x'; 100]).unwrap();
    }
    wait(|| log.store.figures().cleaned_count > 1);
    drop(log);
    let (log, found) = try_open(directory.path(), small()).unwrap();
    assert!(found.iter().all(|record| record.0 == Lane(2)));
    assert_eq!(log.last_sequences[&Lane(1)], 12_345);
}

#[test]
fn a_segment_whose_page_is_dropped_stays_and_is_offered_again() {
    let directory = tempdir().unwrap();
    let (log, _) = try_open(directory.path(), small()).unwrap();
    let offers = Arc::new(Mutex::new(Vec::new()));
    let seen = offers.clone();
    log.store
        .start_cleaning(move |page| {
            let mut seen = seen.lock();
            seen.push((page.entries[0].sequence, page.is_repeated()));
            if seen.len() > 1 {
                page.keep(Vec::new());
            }
        })
        .unwrap();
    for sequence in 1..=400 {
        append(&log.store, 2, sequence, &[b'x'; 100]).unwrap();
    }
    wait(|| log.store.figures().cleaned_count > 0);
    assert_eq!(offers.lock()[..2], [(1, false), (1, true)]);
}
