//! Grouping and order of the events of a turn or a replay, and the counts of merged events.

use std::{sync::Arc, time::Instant};

use crate::{
    batch::{Batch, is_merged},
    cursor::Positions,
    event::SequencedEvent,
};

/// The unsent part of merged events. Merged events may be older than other events sent before them
/// in the same turn.
#[derive(Default)]
pub(super) struct Unsent {
    /// The stream's positions before the turn.
    before: Positions,
    /// The turn's events with a collapse key so far.
    passed: Vec<Arc<SequencedEvent>>,
}

impl Unsent {
    /// For the events of a turn, received after `seen`.
    pub fn after(seen: &Positions, events: &[Arc<SequencedEvent>]) -> Self {
        match events.iter().any(|event| event.collapsed.is_some()) {
            true => Self { before: seen.clone(), passed: Vec::new() },
            false => Self::default(),
        }
    }

    /// The next event, as it is then sent.
    pub fn of(&mut self, event: Arc<SequencedEvent>) -> Arc<SequencedEvent> {
        if self.before.is_empty() || event.body.collapse.is_none() {
            return event;
        }
        let earlier = self.passed.iter().rev().find(|earlier| is_merged(earlier, &event));
        let told = earlier.map(|earlier| earlier.sequence);
        let told = told.or_else(|| self.before.get(event.partition)).unwrap_or(0);
        self.passed.push(event.clone());
        event.unsent_after(told)
    }
}

/// Each partition's events in sequence order, events of several partitions roughly in publish
/// order. With the log in Redis, clocks of several machines stamped them.
pub(super) fn in_order(mut events: Vec<Arc<SequencedEvent>>) -> Vec<Arc<SequencedEvent>> {
    events.sort_unstable_by_key(|event| (event.partition, event.sequence));
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
    keyed.sort_by_key(|(at, _)| *at);
    keyed.into_iter().map(|(_, event)| event).collect()
}

/// Events of the same collapse key are merged into the newest.
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

/// How many of these events, at least one, have together at most `max_bytes`.
pub(super) fn fitting(events: &[Arc<SequencedEvent>], max_bytes: usize) -> usize {
    let mut bytes = 0;
    let fits = |event: &&Arc<SequencedEvent>| {
        bytes += event.stream_bytes();
        bytes <= max_bytes
    };
    events.iter().take_while(fits).count().max(1)
}
