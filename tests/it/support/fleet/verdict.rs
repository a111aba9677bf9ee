//! The expected events of every stream of a fleet, event by event.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use parking_lot::Mutex;

use super::{
    Ledger, Log,
    log::{Place, Record},
    wish::topic,
};

/// Reported faults per stream.
const SHOWN: usize = 5;

/// The faults, a line per stream. Each acknowledged event must be present once and in order, and
/// gaps are not allowed.
pub(super) fn losses(log: &Log, ledgers: &[Arc<Mutex<Ledger>>]) -> Vec<String> {
    judge(log, ledgers, |ledger, records, flaws| {
        let told: Vec<String> = ledger.gaps.iter().map(|gap| gap.told.to_string()).collect();
        flaws.extend(told.iter().map(|told| format!("a gap: {told}")));
        if ledger.resumed + 1 != ledger.connected {
            flaws.push(format!("resumed {} of {} times", ledger.resumed, ledger.connected));
        }
        missing(ledger, records, |_, _| false, flaws);
    })
}

/// The same, except for events begun before a gap of reason `epoch`: in the gap's partitions they
/// may be missing, or be present on both sides of the gap.
pub(super) fn untold_losses(log: &Log, ledgers: &[Arc<Mutex<Ledger>>]) -> Vec<String> {
    judge(log, ledgers, |ledger, records, flaws| {
        let other = ledger.gaps.iter().filter(|gap| !gap.is_of_epoch());
        flaws.extend(other.map(|gap| format!("another gap: {}", gap.told)));
        let is_told = |record: &Record, place: &Place| {
            let mut gaps = ledger.gaps.iter().filter(|gap| gap.is_of_epoch());
            gaps.any(|gap| gap.names(place.partition) && record.began < gap.at)
        };
        missing(ledger, records, is_told, flaws);
    })
}

/// Checks each stream by the general rules, and by the rules of the caller.
fn judge(
    log: &Log,
    ledgers: &[Arc<Mutex<Ledger>>],
    further: impl Fn(&Ledger, &[Record], &mut Vec<String>),
) -> Vec<String> {
    let records = log.records();
    let mut report = same_places(&records);
    for (index, ledger) in ledgers.iter().enumerate() {
        let ledger = ledger.lock();
        let mut flaws = Vec::new();
        further(&ledger, &records, &mut flaws);
        flaws.extend(ledger.strange.iter().map(|event| format!("nobody published {event:?}")));
        // Each run of events between two gaps is checked separately.
        let cuts = ledger.gaps.iter().map(|gap| gap.after);
        let mut start = 0;
        for end in cuts.chain([ledger.receipts.len()]) {
            order(&ledger, &ledger.receipts[start..end], &records, &mut flaws);
            start = end;
        }
        if !flaws.is_empty() {
            let count = flaws.len();
            flaws.truncate(SHOWN);
            let query = &ledger.wish.query;
            report.push(format!("stream {index}, {query}: {count} flaws: {}", flaws.join("; ")));
        }
    }
    report
}

/// Events with equal sequences, and events without an answer: both are faults.
fn same_places(records: &[Record]) -> Vec<String> {
    let mut seen = BTreeMap::new();
    let mut flaws = Vec::new();
    for (number, record) in records.iter().enumerate() {
        let Some(place) = &record.place else {
            flaws.push(format!("{} was not answered", name(number, record)));
            continue;
        };
        if let Some(other) = seen.insert((&place.epoch, place.partition, place.sequence), number) {
            flaws.push(format!("event {other} has the place of {}", name(number, record)));
        }
    }
    flaws
}

/// Acknowledged events in the stream's wish but not received, unless excused.
fn missing(
    ledger: &Ledger,
    records: &[Record],
    is_excused: impl Fn(&Record, &Place) -> bool,
    flaws: &mut Vec<String>,
) {
    for (number, record) in records.iter().enumerate() {
        let Some(place) = &record.place else { continue };
        let is_there = !ledger.wish.wants(record.topic) || ledger.received.contains(&number);
        if !is_there && !is_excused(record, place) {
            flaws.push(format!("{} is missing", name(number, record)));
        }
    }
}

/// Within a run, each event is in the wish and present once, and sequences only rise.
fn order(ledger: &Ledger, receipts: &[usize], records: &[Record], flaws: &mut Vec<String>) {
    let mut received = BTreeSet::new();
    let mut newest: BTreeMap<(&str, u64), (u64, usize)> = BTreeMap::new();
    for number in receipts {
        let Some(record) = records.get(*number) else {
            flaws.push(format!("nobody published event {number}"));
            continue;
        };
        if !ledger.wish.wants(record.topic) {
            flaws.push(format!("{} was not wanted", name(*number, record)));
        }
        if !received.insert(number) {
            flaws.push(format!("{} is there twice", name(*number, record)));
            continue;
        }
        let Some(place) = &record.place else { continue };
        let key = (place.epoch.as_str(), place.partition);
        let before = newest.insert(key, (place.sequence, *number));
        if let Some((_, other)) = before.filter(|(sequence, _)| *sequence > place.sequence) {
            let other = name(other, &records[other]);
            flaws.push(format!("{} came after {other}", name(*number, record)));
        }
    }
}

fn name(number: usize, record: &Record) -> String {
    format!("event {number} of {} at {:?}", topic(record.topic), record.place)
}
