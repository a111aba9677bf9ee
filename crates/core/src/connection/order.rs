//! The order of the events of a turn or a replay, merging by collapse key, and the counts of merged
//! events.

use std::{sync::Arc, time::Instant};

use crate::{
    batch::{Batch, is_merged},
    cursor::Positions,
    event::SequencedEvent,
};

/// The unsent part of merged events, for their `"collapsed":n`. A merged event may contain events
/// already sent to this stream.
#[derive(Default)]
pub(super) struct Unsent {
    /// The stream's positions before the turn.
    before: Positions,
    /// The turn's earlier events with a collapse key.
    passed: Vec<Arc<SequencedEvent>>,
}

impl Unsent {
    /// For the events of a turn. `seen` are the stream's positions before it. Without merged
    /// events, nothing is copied.
    pub fn after(seen: &Positions, events: &[Arc<SequencedEvent>]) -> Self {
        match events.iter().any(|event| event.collapsed.is_some()) {
            true => Self { before: seen.clone(), passed: Vec::new() },
            false => Self::default(),
        }
    }

    /// The next event of the turn, counting only its unsent part.
    pub fn of(&mut self, event: Arc<SequencedEvent>) -> Arc<SequencedEvent> {
        if self.before.is_empty() || event.body.collapse.is_none() {
            return event;
        }
        // Already sent: everything up to the last event of this turn with the same collapse key, or
        // else up to the stream's position before the turn. The position within the turn is no
        // measure: a merged event may contain older events than the ones sent just before it.
        let earlier = self.passed.iter().rev().find(|earlier| is_merged(earlier, &event));
        let told = earlier.map(|earlier| earlier.sequence);
        let told = told.or_else(|| self.before.get(event.partition)).unwrap_or(0);
        self.passed.push(event.clone());
        event.unsent_after(told)
    }
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
