//! Tests of the whole store, on a real directory. Shared: opening, appending, reading again.

mod cleaning;
mod crashes;
mod damage;
mod inspection;
mod stops;

use std::{
    path::Path,
    sync::mpsc::{self, Receiver},
};

use bytes::Bytes;

use crate::{Entry, Lane, OpenError, Opened, Options, Store, SyncMode, WriteError, open};

/// A record as read.
type Kept = (Lane, u64, u8, Vec<u8>);

fn options() -> Options {
    Options {
        partition_count: 4,
        new_epoch: 77,
        new_salt: 0x5EED,
        sync: SyncMode::Always,
        segment_bytes: 1 << 20,
        max_queue_bytes: 1 << 20,
        observer: None,
    }
}

fn try_open(directory: &Path, options: Options) -> Result<(Opened, Vec<Kept>), OpenError> {
    let mut kept = Vec::new();
    let opened = open(directory, options, |record| {
        kept.push((record.lane, record.sequence, record.kind, record.payload.to_vec()));
    })?;
    Ok((opened, kept))
}

fn opened(directory: &Path) -> (Opened, Vec<Kept>) {
    try_open(directory, options()).expect("the log opens")
}

fn entry(sequence: u64, payload: &[u8]) -> Entry {
    Entry { sequence, kind: 1, payload: Bytes::copy_from_slice(payload) }
}

/// Begins to append; the answer comes by the channel.
fn begin(store: &Store, lane: u16, entries: Vec<Entry>) -> Receiver<Result<(), WriteError>> {
    let (sender, receiver) = mpsc::channel();
    store.append(Lane(lane), entries, Box::new(move |result| sender.send(result).expect("waits")));
    receiver
}

fn append(store: &Store, lane: u16, sequence: u64, payload: &[u8]) -> Result<(), WriteError> {
    begin(store, lane, vec![entry(sequence, payload)]).recv().expect("an answer")
}

fn kept(lane: u16, sequence: u64, payload: &[u8]) -> Kept {
    (Lane(lane), sequence, 1, payload.to_vec())
}
