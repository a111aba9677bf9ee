//! Random histories of appends, stops and torn ends: no acknowledged record is lost, none is twice.

use std::{collections::BTreeMap, fs::OpenOptions, io::Write, path::Path};

use proptest::prelude::*;
use tempfile::tempdir;

use super::{entry, options, try_open};
use crate::{Lane, LastStop, Options, SyncMode, directory};

#[derive(Debug, Clone)]
enum Step {
    /// A batch of a lane, with payloads of these sizes.
    Append { lane: u16, sizes: Vec<usize> },
    /// An orderly stop and a start.
    Close,
    /// A crash. The last write left these bytes of a record behind.
    Crash { torn: Vec<u8> },
    /// A crash in the middle of a record: a valid one, cut after some bytes.
    CrashInRecord { cut_bytes: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let sizes = prop::collection::vec(0..600_usize, 1..8);
    prop_oneof![
        6 => (0..4_u16, sizes).prop_map(|(lane, sizes)| Step::Append { lane, sizes }),
        1 => Just(Step::Close),
        1 => prop::collection::vec(any::<u8>(), 0..60).prop_map(|torn| Step::Crash { torn }),
        1 => (1..100_usize).prop_map(|cut_bytes| Step::CrashInRecord { cut_bytes }),
    ]
}

fn small() -> Options {
    // A crash of the process loses nothing written, synced or not.
    Options { segment_bytes: 2000, sync: SyncMode::Never, ..options() }
}

/// Appends bytes to the last segment.
fn tear(directory: &Path, bytes: &[u8]) {
    let Some(last) = directory::segments(directory).unwrap().pop() else { return };
    let path = directory.join(last.file_name());
    OpenOptions::new().append(true).open(path).unwrap().write_all(bytes).unwrap();
}

/// The bytes of a valid record of this log.
fn whole_record(directory: &Path) -> Vec<u8> {
    let identity = crate::identity::Identity::read(directory).unwrap().unwrap();
    let mut bytes = Vec::new();
    let salt = identity.checksum_start();
    crate::record::write(&mut bytes, Lane(0), &entry(u64::MAX, &[7; 76]), salt);
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn acknowledged_records_survive_every_history(steps in prop::collection::vec(step(), 1..25)) {
        let directory = tempdir().unwrap();
        let path = directory.path();
        let mut acknowledged: BTreeMap<(Lane, u64), Vec<u8>> = BTreeMap::new();
        let (mut opened, _) = try_open(path, small()).unwrap();
        let mut expected_stop = LastStop::Unclean;
        for step in steps {
            match step {
                Step::Append { lane, sizes } => {
                    let last = opened.last_sequences.entry(Lane(lane)).or_default();
                    let mut entries = Vec::new();
                    for size in sizes {
                        *last += 1;
                        let payload = vec![lane as u8; size];
                        entries.push(entry(*last, &payload));
                        acknowledged.insert((Lane(lane), *last), payload);
                    }
                    super::begin(&opened.store, lane, entries).recv().unwrap().unwrap();
                    continue;
                }
                Step::Close => {
                    opened.store.close();
                    expected_stop = LastStop::Clean;
                }
                Step::Crash { torn } => {
                    drop(opened);
                    tear(path, &torn);
                }
                Step::CrashInRecord { cut_bytes } => {
                    drop(opened);
                    let record = whole_record(path);
                    tear(path, &record[..cut_bytes.min(record.len() - 1)]);
                }
            }
            let (again, kept) = try_open(path, small()).unwrap();
            prop_assert_eq!(again.last_stop, expected_stop);
            expected_stop = LastStop::Unclean;
            prop_assert_eq!(&again.damage, &[]);
            prop_assert_eq!(kept.len(), acknowledged.len());
            for (lane, sequence, _, payload) in kept {
                prop_assert_eq!(acknowledged.get(&(lane, sequence)), Some(&payload));
            }
            opened = again;
        }
    }
}
