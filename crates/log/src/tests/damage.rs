//! Torn ends and changed bytes.

use std::{fs, path::Path};

use tempfile::{TempDir, tempdir};

use super::{append, kept, opened};
use crate::{Lane, SegmentId};

/// A log of three records in the first segment, and the segment's bytes.
fn three_records() -> (TempDir, Vec<u8>) {
    let directory = tempdir().unwrap();
    let (log, _) = opened(directory.path());
    for (sequence, payload) in [(1, b"first"), (2, b"other"), (3, b"third")] {
        append(&log.store, 1, sequence, payload).unwrap();
    }
    drop(log);
    let bytes = fs::read(segment(directory.path())).unwrap();
    (directory, bytes)
}

fn segment(directory: &Path) -> std::path::PathBuf {
    directory.join(SegmentId(1).file_name())
}

const RECORD_BYTES: usize = 24 + 5;

#[test]
fn an_end_torn_at_any_byte_is_cut_off_and_the_log_goes_on() {
    let (directory, bytes) = three_records();
    let last = bytes.len() - RECORD_BYTES;
    for length in last..bytes.len() {
        let _ = fs::remove_file(directory.path().join("00000002.log"));
        fs::write(segment(directory.path()), &bytes[..length]).unwrap();
        let (log, found) = opened(directory.path());
        assert_eq!(found, [kept(1, 1, b"first"), kept(1, 2, b"other")], "length {length}");
        assert_eq!((log.damage, log.torn_bytes), (vec![], (length - last) as u64));
        append(&log.store, 1, 1000, b"after").unwrap();
        drop(log.store);
        let (log, found) = opened(directory.path());
        assert_eq!((found.len(), log.damage), (3, vec![]));
    }
}

#[test]
fn a_last_record_garbled_at_any_byte_is_cut_off() {
    let (directory, bytes) = three_records();
    for index in bytes.len() - RECORD_BYTES..bytes.len() {
        let mut garbled = bytes.clone();
        garbled[index] ^= 0x41;
        fs::write(segment(directory.path()), &garbled).unwrap();
        let (log, found) = opened(directory.path());
        assert_eq!(found, [kept(1, 1, b"first"), kept(1, 2, b"other")], "byte {index}");
        assert_eq!((log.damage, log.torn_bytes), (vec![], RECORD_BYTES as u64));
    }
}

#[test]
fn a_record_in_the_middle_changed_at_any_byte_is_reported_and_the_rest_is_read() {
    let (directory, bytes) = three_records();
    let second = bytes.len() - 2 * RECORD_BYTES;
    for index in second..second + RECORD_BYTES {
        let mut changed = bytes.clone();
        changed[index] ^= 0x80;
        fs::write(segment(directory.path()), &changed).unwrap();
        let (log, found) = opened(directory.path());
        assert_eq!(found, [kept(1, 1, b"first"), kept(1, 3, b"third")], "byte {index}");
        let [damage] = &log.damage[..] else { panic!("{:?}", log.damage) };
        assert_eq!((damage.offset, damage.bytes), (second as u64, RECORD_BYTES as u64));
        let is_in_payload = index >= second + 24;
        let known = is_in_payload.then_some((Lane(1), 2));
        assert_eq!(damage.lane.zip(damage.sequence), known, "byte {index}");
    }
}

#[test]
fn zeros_at_the_end_are_cut_off() {
    let (directory, mut bytes) = three_records();
    bytes.resize(bytes.len() + 3_000_000, 0);
    fs::write(segment(directory.path()), &bytes).unwrap();
    let (log, found) = opened(directory.path());
    assert_eq!((found.len(), log.torn_bytes), (3, 3_000_000));
}

#[test]
fn a_head_changed_at_any_byte_loses_no_record() {
    let (directory, bytes) = three_records();
    for index in 0..bytes.len() - 3 * RECORD_BYTES {
        let mut changed = bytes.clone();
        changed[index] ^= 1;
        fs::write(segment(directory.path()), &changed).unwrap();
        let (log, found) = opened(directory.path());
        assert_eq!((found.len(), log.damage.len()), (3, 1), "byte {index}");
    }
}

#[test]
fn after_a_clean_stop_a_garbled_end_is_damage() {
    let (directory, mut bytes) = three_records();
    opened(directory.path()).0.store.close();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(segment(directory.path()), &bytes).unwrap();
    let (log, found) = opened(directory.path());
    assert_eq!((found.len(), log.torn_bytes), (2, 0));
    assert_eq!(log.damage[0].sequence, Some(3));
}

#[test]
fn a_missing_segment_is_reported() {
    let (directory, bytes) = three_records();
    append(&opened(directory.path()).0.store, 1, 4, b"more!").unwrap();
    append(&opened(directory.path()).0.store, 1, 5, b"last!").unwrap();
    fs::write(segment(directory.path()), &bytes).unwrap();
    fs::remove_file(directory.path().join("00000002.log")).unwrap();
    let (log, found) = opened(directory.path());
    assert_eq!(found.len(), 4);
    assert_eq!(log.damage[0].segment, SegmentId(2));
}

#[test]
fn a_record_inside_of_a_payload_is_never_taken_for_a_record() {
    let (directory, bytes) = three_records();
    let record = bytes[bytes.len() - RECORD_BYTES..].to_vec();
    let log = opened(directory.path()).0;
    append(&log.store, 1, 9, &record).unwrap();
    drop(log);
    // The same payload in a log with another salt; its own header is damaged.
    let other = tempdir().unwrap();
    let options = crate::Options { new_salt: 1, ..super::options() };
    let log = super::try_open(other.path(), options.clone()).unwrap().0;
    append(&log.store, 1, 9, &record).unwrap();
    append(&log.store, 1, 10, b"good").unwrap();
    drop(log);
    let mut bytes = fs::read(segment(other.path())).unwrap();
    let header = bytes.len() - (24 + 4) - (24 + record.len());
    bytes[header + 8] ^= 1;
    fs::write(segment(other.path()), bytes).unwrap();
    let (_, found) = super::try_open(other.path(), options).unwrap();
    assert_eq!(found, [kept(1, 10, b"good")]);
}
