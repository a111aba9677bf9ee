//! Checking and copying, beside a store in use.

use std::fs;

use tempfile::tempdir;

use super::{append, kept, opened, options, try_open};
use crate::{CopyError, Lane, LastStop, OpenError, Options, check, copy};

#[test]
fn a_check_counts_the_records_of_a_log_in_use_and_changes_nothing() {
    let directory = tempdir().unwrap();
    let (log, _) = opened(directory.path());
    append(&log.store, 1, 5, b"one").unwrap();
    append(&log.store, 1, 6, b"two").unwrap();
    append(&log.store, Lane::TABLES.0, 1, b"").unwrap();
    let checked = check(directory.path()).unwrap();
    assert_eq!((checked.epoch, checked.partition_count, checked.record_count()), (77, 4, 3));
    assert_eq!((checked.lanes[&Lane(1)].last_sequence, checked.lanes[&Lane(1)].bytes), (6, 54));
    assert!(!checked.was_stopped_cleanly);
    log.store.close();
    let checked = check(directory.path()).unwrap();
    assert!(checked.was_stopped_cleanly);
    assert_eq!(opened(directory.path()).0.last_stop, LastStop::Clean);
}

#[test]
fn a_check_tells_damage_from_a_torn_end() {
    let directory = tempdir().unwrap();
    let (log, _) = opened(directory.path());
    for sequence in 1..=3 {
        append(&log.store, 1, sequence, b"payload").unwrap();
    }
    drop(log);
    let path = directory.path().join("00000001.log");
    let mut bytes = fs::read(&path).unwrap();
    let end = bytes.len();
    bytes[end - 40] ^= 1;
    bytes.truncate(end - 1);
    fs::write(&path, &bytes).unwrap();
    let checked = check(directory.path()).unwrap();
    assert_eq!((checked.damage.len(), checked.torn_bytes), (0, 61), "nothing valid behind");
    bytes[end - 40] ^= 1;
    bytes[end - 70] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let checked = check(directory.path()).unwrap();
    assert_eq!((checked.damage.len(), checked.torn_bytes), (1, 30));
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn a_directory_without_log_is_no_log() {
    let directory = tempdir().unwrap();
    let error = check(directory.path()).unwrap_err();
    assert!(matches!(error, OpenError::NotALog { .. }), "{error}");
}

#[test]
fn a_copy_of_a_log_in_use_opens_with_everything_acknowledged() {
    let (directory, target) = (tempdir().unwrap(), tempdir().unwrap());
    let small = Options { segment_bytes: 10_000, ..options() };
    let (log, _) = try_open(directory.path(), small.clone()).unwrap();
    log.store.start_cleaning(|page| page.keep(Vec::new())).unwrap();
    let (copying, copies) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let store = log.store.clone();
        scope.spawn(move || {
            let mut sequences = 1..;
            // A fixed number beside each copy. The writer ends with the copies, also after a panic.
            while copies.recv().is_ok() {
                for sequence in sequences.by_ref().take(200) {
                    append(&store, 1, sequence, &[b'x'; 500]).unwrap();
                }
            }
        });
        // Dropped at the end of the copies.
        let copying = copying;
        for number in 0..20 {
            let target = target.path().join(number.to_string());
            copying.send(()).unwrap();
            let before = log.store.figures().record_count;
            copy(directory.path(), &target).unwrap();
            let (copied, found) = try_open(&target, small.clone()).unwrap();
            assert_eq!((copied.epoch, copied.last_stop), (77, LastStop::Unclean));
            assert_eq!(copied.damage, []);
            assert!(found.windows(2).all(|pair| pair[0].1 + 1 == pair[1].1), "a hole");
            assert!(copied.last_sequences.get(&Lane(1)).is_none_or(|last| *last >= before));
        }
    });
}

#[test]
fn a_copy_never_overwrites() {
    let (directory, target) = (tempdir().unwrap(), tempdir().unwrap());
    let (log, _) = opened(directory.path());
    append(&log.store, 1, 1, b"one").unwrap();
    copy(directory.path(), target.path()).unwrap();
    let error = copy(directory.path(), target.path()).unwrap_err();
    assert!(matches!(error, CopyError::TargetNotEmpty { .. }), "{error}");
    assert_eq!(opened(target.path()).1, [kept(1, 1, b"one")]);
}
