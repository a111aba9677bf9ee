//! The order of the events of a turn or a replay, merging by collapse key, and the counts of merged
//! events.

use std::{collections::HashMap, sync::Arc, time::Instant};

use crate::{
    batch::{Batch, CollapseItem},
    cursor::Positions,
    event::SequencedEvent,
};

/// For each event of a turn, the sequence of the last event before it with the same collapse key; 0
/// without. Empty if no event of the turn is merged: nothing is to be counted then.
pub(super) fn same_key_before(events: &[Arc<SequencedEvent>]) -> Box<[u64]> {
    if events.iter().all(|event| event.collapsed.is_none()) {
        return Box::default();
    }
    let mut last: HashMap<CollapseItem, u64> = HashMap::new();
    let before = events.iter().map(|event| {
        let item = CollapseItem::of(event)?;
        last.insert(item, event.sequence)
    });
    before.map(Option::unwrap_or_default).collect()
}

/// The events of a turn for streams at the positions `before` it. A merged event may contain events
/// already sent: everything up to the last event of this turn with the same collapse key (from
/// [`same_key_before`]), and up to the position before the turn. The position within the turn is no
/// measure: a merged event may contain older events than the ones sent just before it.
pub(super) fn unsent(
    events: &[Arc<SequencedEvent>],
    same_key_before: &[u64],
    before: &Positions,
) -> Vec<Arc<SequencedEvent>> {
    let events = events.iter().zip(same_key_before);
    let unsent = events.map(|(event, same_key)| {
        let position = before.get(event.partition).unwrap_or(0);
        event.unsent_after(position.max(*same_key))
    });
    unsent.collect()
}

/// Sorts events: within a partition by sequence, across partitions roughly by publish time. Only
/// roughly, as several machines' clocks stamp the events of a log in Redis.
pub(super) fn in_order(mut events: Vec<Arc<SequencedEvent>>) -> Vec<Arc<SequencedEvent>> {
    events.sort_unstable_by_key(|event| (event.partition, event.sequence));
    // Raise each publish time to the latest before it in the partition. Sorting by bare publish
    // times could break the sequence order.
    let mut latest = None;
    let keys = events.iter().map(|event| {
        let at = match latest {
            Some((partition, at)) if partition == event.partition => event.published_at.max(at),
            _ => event.published_at,
        };
        latest = Some((event.partition, at));
        at
    });
    let keys: Vec<Instant> = keys.collect();
    let mut keyed: Vec<_> = keys.into_iter().zip(events).collect();
    // A stable sort: equal times keep the sequence order.
    keyed.sort_by_key(|(at, _)| *at);
    keyed.into_iter().map(|(_, event)| event).collect()
}

/// Merges events of the same collapse key into the newest.
pub(super) fn merged(events: Vec<Arc<SequencedEvent>>) -> Vec<Arc<SequencedEvent>> {
    if events.iter().all(|event| event.body.collapse.is_none()) {
        return events;
    }
    let mut batch = Batch::default();
    events.into_iter().for_each(|event| {
        batch.push(event);
    });
    batch.take()
}

/// The number of first events with together at most `max_bytes`; at least one.
pub(super) fn fitting(events: &[Arc<SequencedEvent>], max_bytes: usize) -> usize {
    let mut bytes = 0;
    let fits = |event: &&Arc<SequencedEvent>| {
        bytes += event.stream_bytes();
        bytes <= max_bytes
    };
    events.iter().take_while(fits).count().max(1)
}
