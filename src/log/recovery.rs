//! Reading a log on disk into its partitions. The caller's thread reads, threads for the partitions
//! build their histories.

use std::{
    path::Path,
    sync::mpsc::{self, Receiver, SyncSender},
    thread,
};

use fanfare_core::partition::{JournaledPartition, PartitionSpec, Recovery, StoreEnd};
use fanfare_log::{Lane, LastStop, Opened, Options, Record};
use parking_lot::Mutex;

use crate::{actors::partition::PublishPermit, clock::now, error::StartError};

/// The threads building histories. Reading keeps one core busy beside them.
const BUILDERS: usize = 2;

/// Bytes handed over together.
const BATCH_BYTES: usize = 1 << 20;

/// Batches waiting for a builder.
const MAX_WAITING: usize = 4;

type Partitions = Vec<JournaledPartition<PublishPermit>>;

/// Records for one builder, their payloads one after the other.
#[derive(Default)]
struct Batch {
    records: Vec<Head>,
    payloads: Vec<u8>,
}

struct Head {
    partition: u16,
    sequence: u64,
    kind: u8,
    length: usize,
}

impl Batch {
    fn push(&mut self, record: &Record<'_>) {
        let Record { lane, sequence, kind, payload } = *record;
        self.records.push(Head { partition: lane.0, sequence, kind, length: payload.len() });
        self.payloads.extend_from_slice(payload);
    }
}

type Recoveries = [Mutex<Recovery<PublishPermit>>];

/// Opens the log in `directory`, and recovers its partitions. `template` has the log's epoch.
pub(super) fn open(
    directory: &Path,
    options: Options,
    template: &PartitionSpec,
    partition_count: u16,
    mut on_table: impl FnMut(u8, &[u8]),
) -> Result<(Opened, Partitions), StartError> {
    let now = now();
    let recovery = |number| {
        let spec = PartitionSpec { partition: number, ..template.clone() };
        Mutex::new(Recovery::new(spec, now))
    };
    let recoveries: Vec<_> = (0..partition_count).map(recovery).collect();
    let opened = thread::scope(|scope| {
        let builders: Vec<SyncSender<Batch>> = (0..BUILDERS)
            .map(|_| {
                let (sender, batches) = mpsc::sync_channel(MAX_WAITING);
                let recoveries = &recoveries[..];
                scope.spawn(move || build(recoveries, &batches));
                sender
            })
            .collect();
        let mut gathered: [Batch; BUILDERS] = Default::default();
        let opened = fanfare_log::open(directory, options, |record| match record.lane {
            Lane::TABLES => on_table(record.kind, record.payload),
            lane if lane.0 < partition_count => {
                let builder = usize::from(lane.0) % BUILDERS;
                gathered[builder].push(&record);
                if gathered[builder].payloads.len() >= BATCH_BYTES {
                    // A builder ends by a panic only, and the scope passes it on.
                    let _ = builders[builder].send(std::mem::take(&mut gathered[builder]));
                }
            }
            _ => {}
        });
        for (builder, batch) in builders.iter().zip(gathered) {
            let _ = builder.send(batch);
        }
        opened
    });
    let opened = opened.map_err(|error| StartError::Log(error.to_string()))?;
    let partitions = recoveries.into_iter().zip(0..);
    let partitions =
        partitions.map(|(recovery, number)| finish(recovery.into_inner(), number, &opened));
    let mut partitions: Partitions = partitions.collect();
    trim(&mut partitions);
    Ok((opened, partitions))
}

fn build(recoveries: &Recoveries, batches: &Receiver<Batch>) {
    for Batch { records, payloads } in batches {
        let mut rest = &payloads[..];
        for Head { partition, sequence, kind, length } in records {
            let (payload, after) = rest.split_at(length);
            rest = after;
            let due = recoveries[usize::from(partition)].lock().read(sequence, kind, payload);
            if let Some(other) = due {
                recoveries[usize::from(other)].lock().trim();
            }
        }
    }
}

fn finish(
    recovery: Recovery<PublishPermit>,
    number: u16,
    opened: &Opened,
) -> JournaledPartition<PublishPermit> {
    let lane = Lane(number);
    let concerns = |damaged: Option<Lane>| damaged.is_none_or(|damaged| damaged == lane);
    let damaged = opened.damage.iter().filter(|damage| concerns(damage.lane));
    let damaged: Vec<Option<u64>> =
        damaged.map(|damage| damage.sequence.filter(|_| damage.lane.is_some())).collect();
    let unreadable = recovery.unreadable_count();
    if unreadable > 0 {
        tracing::error!(partition = number, unreadable, "the log has records of another version");
    }
    recovery.finish(StoreEnd {
        is_clean: opened.last_stop != LastStop::Unclean,
        last_sequence: opened.last_sequences.get(&lane).copied().unwrap_or_default(),
        damaged: &damaged,
    })
}

/// Evicts the oldest events of all partitions past the budget of the history.
fn trim(partitions: &mut Partitions) {
    // A round evicts the events of one partition older than those of all others.
    for _ in 0..partitions.len() {
        partitions.iter_mut().for_each(JournaledPartition::trim);
    }
}
