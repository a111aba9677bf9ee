//! Clean and unclean stops, the lock, and directories unfit for a log.

use std::{collections::BTreeMap, fs};

use tempfile::tempdir;

use super::{append, begin, entry, kept, opened, options, try_open};
use crate::{Lane, LastStop, OpenError, Options, State, SyncMode, WriteError};

#[test]
fn records_of_all_lanes_are_there_after_a_clean_stop() {
    let directory = tempdir().unwrap();
    let (log, found) = opened(directory.path());
    assert_eq!((log.last_stop, log.epoch, found.len()), (LastStop::New, 77, 0));
    append(&log.store, 0, 1, b"one").unwrap();
    append(&log.store, Lane::TABLES.0, 9, b"").unwrap();
    append(&log.store, 0, 2, b"two").unwrap();
    log.store.close();
    assert!(matches!(append(&log.store, 0, 3, b"late"), Err(WriteError::Failed(_))));
    drop(log);

    let other_epoch = Options { new_epoch: 78, ..options() };
    let (log, found) = try_open(directory.path(), other_epoch).unwrap();
    assert_eq!((log.last_stop, log.epoch), (LastStop::Clean, 77));
    assert_eq!(found, [kept(0, 1, b"one"), kept(u16::MAX, 9, b""), kept(0, 2, b"two")]);
    assert_eq!(log.last_sequences, BTreeMap::from([(Lane(0), 2), (Lane::TABLES, 9)]));
    assert_eq!(log.damage, []);
}

#[test]
fn a_dropped_store_is_an_unclean_stop_and_loses_nothing() {
    let directory = tempdir().unwrap();
    append(&opened(directory.path()).0.store, 3, 1, b"kept").unwrap();
    let (log, found) = opened(directory.path());
    assert_eq!((log.last_stop, found), (LastStop::Unclean, vec![kept(3, 1, b"kept")]));
    assert_eq!(log.torn_bytes, 0);
}

#[test]
fn appends_waiting_together_share_a_sync_and_are_answered_in_order() {
    let directory = tempdir().unwrap();
    let (log, _) = opened(directory.path());
    let payload = vec![7; 1000];
    let answers: Vec<_> =
        (1..=500).map(|sequence| begin(&log.store, 1, vec![entry(sequence, &payload)])).collect();
    for answer in &answers {
        answer.recv().unwrap().unwrap();
    }
    let figures = log.store.figures();
    assert_eq!(figures.record_count, 500);
    assert!(figures.sync_count < 250, "{figures:?}");
    drop(log);
    let (_, found) = opened(directory.path());
    assert!(found.iter().map(|record| record.1).eq(1..=500));
}

#[test]
fn an_interval_syncs_without_further_appends() {
    let directory = tempdir().unwrap();
    let interval = SyncMode::Interval(std::time::Duration::from_millis(5));
    let (log, _) = try_open(directory.path(), Options { sync: interval, ..options() }).unwrap();
    append(&log.store, 0, 1, b"x").unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while log.store.figures().sync_count == 0 {
        assert!(std::time::Instant::now() < deadline, "no sync");
        std::thread::yield_now();
    }
}

#[test]
fn a_synced_append_is_synced_in_every_mode_also_at_the_end() {
    let directory = tempdir().unwrap();
    let (log, _) =
        try_open(directory.path(), Options { sync: SyncMode::Never, ..options() }).unwrap();
    append(&log.store, 0, 1, b"x").unwrap();
    let syncs_before = log.store.figures().sync_count;
    let (sender, receiver) = std::sync::mpsc::channel();
    let done = move |result| sender.send(result).expect("waits");
    log.store.append_synced(Lane(0), vec![entry(2, b"y")], Box::new(done));
    log.store.close();
    receiver.recv().unwrap().unwrap();
    assert!(log.store.figures().sync_count > syncs_before);
}

#[test]
fn a_full_queue_has_no_room_but_takes_the_append() {
    let directory = tempdir().unwrap();
    let small = Options { max_queue_bytes: 0, ..options() };
    let (log, _) = try_open(directory.path(), small).unwrap();
    assert!(!log.store.has_room());
    append(&log.store, 0, 1, b"x").unwrap();
    assert_eq!(log.store.state(), State::Writing);
}

#[test]
fn a_log_has_one_process_at_a_time() {
    let directory = tempdir().unwrap();
    let (log, _) = opened(directory.path());
    let error = try_open(directory.path(), options()).unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    drop(log);
    opened(directory.path());
}

#[test]
fn another_number_of_partitions_and_a_foreign_directory_are_refused() {
    let directory = tempdir().unwrap();
    opened(directory.path());
    let other = Options { partition_count: 8, ..options() };
    let error = try_open(directory.path(), other).unwrap_err();
    assert!(matches!(error, OpenError::OtherPartitions { found: 4, asked: 8, .. }), "{error}");

    let foreign = tempdir().unwrap();
    fs::write(foreign.path().join("photo.jpg"), "x").unwrap();
    let error = try_open(foreign.path(), options()).unwrap_err();
    assert!(matches!(error, OpenError::NotALog { .. }), "{error}");
    assert!(!foreign.path().join("LOCK").exists());
    // Segments without `HEADER` are never taken for a new log.
    fs::remove_file(directory.path().join("HEADER")).unwrap();
    fs::write(directory.path().join("00000001.log"), "x").unwrap();
    let error = try_open(directory.path(), options()).unwrap_err();
    assert!(matches!(error, OpenError::NotALog { .. }), "{error}");
}

#[test]
fn after_a_panic_of_a_callback_everything_is_refused() {
    let directory = tempdir().unwrap();
    let (log, _) = opened(directory.path());
    append(&log.store, 0, 1, b"kept").unwrap();
    log.store.append(Lane(0), vec![entry(2, b"kept too")], Box::new(|_| panic!("a bug")));
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while log.store.state() == State::Writing {
        assert!(std::time::Instant::now() < deadline, "the panic is not in the state");
        std::thread::yield_now();
    }
    assert!(matches!(append(&log.store, 0, 3, b"refused"), Err(WriteError::Failed(_))));
    log.store.close();
    drop(log);
    let (log, found) = opened(directory.path());
    assert_eq!((found.len(), log.last_stop), (2, LastStop::Unclean));
}

#[test]
fn a_creation_interrupted_at_any_step_is_repeated() {
    let directory = tempdir().unwrap();
    fs::write(directory.path().join("LOCK"), "").unwrap();
    fs::write(directory.path().join("HEADER.new"), "fanfare-l").unwrap();
    let (log, _) = opened(directory.path());
    append(&log.store, 0, 1, b"first").unwrap();
    drop(log);
    // A segment created without its head, or with a part of it.
    for head in [&b""[..], b"fanfseg\x01\x02"] {
        fs::write(directory.path().join("00000002.log"), head).unwrap();
        let (log, found) = opened(directory.path());
        assert_eq!((found, log.damage), (vec![kept(0, 1, b"first")], vec![]));
    }
}
