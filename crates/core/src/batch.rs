//! A batch: waiting events of a topic or of a stream, conflated by the policy. The caller decides
//! when the batch leaves.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use crate::{
    event::{Collapsed, SequencedEvent},
    policy::Conflate,
    topic::Topic,
};

/// Identifies an item: a later event supersedes or merges with the earlier event of its item.
#[derive(Debug, PartialEq, Eq, Hash)]
struct BatchItem {
    topic: Topic,
    name: ItemName,
}

#[derive(Debug, PartialEq, Eq, Hash)]
enum ItemName {
    Topic,
    Key(Box<str>),
    /// Includes the event type: a type filter passes or drops a whole merged event, so merging
    /// several types would lose wanted events.
    Collapse {
        key: Box<str>,
        event_type: Option<Box<str>>,
    },
}

impl BatchItem {
    /// `None` for an event without an item: the policy keeps all events, or the event lacks a key,
    /// and it has no collapse key.
    fn of(event: &SequencedEvent) -> Option<Self> {
        let collapse = || {
            let key = event.body.collapse.clone()?;
            Some(ItemName::Collapse { key, event_type: event.body.event_type.clone() })
        };
        let name = match event.policy.conflate {
            Conflate::None => collapse()?,
            Conflate::Latest => ItemName::Topic,
            Conflate::LatestByKey => event.body.key.clone().map(ItemName::Key).or_else(collapse)?,
        };
        Some(Self { topic: event.topic.clone(), name })
    }

    fn is_merged(&self) -> bool {
        matches!(self.name, ItemName::Collapse { .. })
    }
}

/// The item of an event merged by its collapse key.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct CollapseItem(BatchItem);

impl CollapseItem {
    /// `None` for an event a batch does not merge.
    pub fn of(event: &SequencedEvent) -> Option<Self> {
        let item = BatchItem::of(event).filter(BatchItem::is_merged)?;
        Some(Self(item))
    }
}

/// An event waiting in a batch, with the events merged into it.
#[derive(Debug)]
pub struct WaitingEvent {
    event: Arc<SequencedEvent>,
    /// Sequences of all events merged into it, ascending; empty while there are none but the
    /// event's own. A growing list: copying it for each merged event would take quadratic time.
    merged: Vec<u64>,
}

impl WaitingEvent {
    pub fn sequence(&self) -> u64 {
        self.event.sequence
    }

    /// The lowest sequence of this event and of the events merged into it.
    pub fn oldest_sequence(&self) -> u64 {
        self.merged.first().copied().unwrap_or_else(|| self.event.oldest_sequence())
    }

    /// The event as a stream gets it.
    pub fn to_event(&self) -> Arc<SequencedEvent> {
        if self.merged.is_empty() {
            return self.event.clone();
        }
        let collapsed = Collapsed::new(&self.merged);
        Arc::new(SequencedEvent { collapsed, ..SequencedEvent::clone(&self.event) })
    }

    fn bytes(&self) -> usize {
        match self.merged.is_empty() {
            true => self.event.stream_bytes(),
            false => self.event.line_bytes() + size_of_val(&*self.merged),
        }
    }

    /// Merges this event into a newer one.
    fn merge_into(self, newer: Arc<SequencedEvent>) -> Self {
        let mut merged = self.merged;
        if merged.is_empty() {
            merged.extend_from_slice(self.event.merged());
        }
        merged.push(self.event.sequence);
        merged.extend_from_slice(newer.merged());
        Self { event: newer, merged }
    }
}

/// Events in arrival order, without superseded ones.
#[derive(Debug, Default)]
pub struct Batch {
    /// Superseded places are empty until they reach the front.
    places: VecDeque<Option<WaitingEvent>>,
    /// Number of the place at the front, counted since the batch began.
    front: u64,
    /// The place number of each item's event.
    items: HashMap<BatchItem, u64>,
    len: usize,
    bytes: usize,
}

/// The effect of adding an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// No older event was replaced.
    Appended,
    /// It replaced an older event. The older event never leaves.
    Superseded,
    /// An older event is merged into it.
    Merged,
}

impl Batch {
    /// Adds an event at the end.
    pub fn push(&mut self, event: Arc<SequencedEvent>) -> Added {
        let mut added = Added::Appended;
        let item = BatchItem::of(&event);
        let mut waiting = WaitingEvent { event, merged: Vec::new() };
        if let Some(item) = item {
            let older = self.items.remove(&item);
            if let Some(older) = older.and_then(|older| self.remove(older)) {
                added = Added::Superseded;
                if item.is_merged() {
                    added = Added::Merged;
                    waiting = older.merge_into(waiting.event);
                }
            }
            self.items.insert(item, self.front + self.places.len() as u64);
        }
        self.len += 1;
        self.bytes += waiting.bytes();
        self.places.push_back(Some(waiting));
        added
    }

    /// Takes the oldest event.
    pub fn pop(&mut self) -> Option<Arc<SequencedEvent>> {
        while let Some(place) = self.places.pop_front() {
            self.front += 1;
            let Some(waiting) = place else { continue };
            self.len -= 1;
            self.bytes -= waiting.bytes();
            if self.len == 0 {
                self.items.clear();
            } else if let Some(item) = BatchItem::of(&waiting.event) {
                self.items.remove(&item);
            }
            self.bound_holes();
            return Some(waiting.to_event());
        }
        None
    }

    /// The oldest event, without the events merged into it.
    pub fn front(&self) -> Option<&Arc<SequencedEvent>> {
        self.iter().next().map(|waiting| &waiting.event)
    }

    /// All events, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &WaitingEvent> {
        self.places.iter().flatten()
    }

    /// The events with others merged into them, oldest first.
    pub fn merged(&self) -> impl Iterator<Item = &WaitingEvent> {
        self.iter().filter(|waiting| waiting.oldest_sequence() < waiting.sequence())
    }

    /// Takes all events, oldest first.
    pub fn take(&mut self) -> Vec<Arc<SequencedEvent>> {
        let events = self.places.drain(..).flatten();
        let events = events.map(|waiting| waiting.to_event()).collect();
        *self = Self::default();
        events
    }

    /// The number of waiting events; superseded events do not count.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Encoded bytes of all waiting events.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Empties a place, and drops empty places from the front: a hot item leaves no trail.
    fn remove(&mut self, number: u64) -> Option<WaitingEvent> {
        let index = number.checked_sub(self.front)?;
        let waiting = self.places.get_mut(index as usize).and_then(Option::take)?;
        self.len -= 1;
        self.bytes -= waiting.bytes();
        while let Some(None) = self.places.front() {
            self.places.pop_front();
            self.front += 1;
        }
        self.bound_holes();
        Some(waiting)
    }

    /// Keeps memory proportional to the waiting events, at amortized constant cost per removal.
    fn bound_holes(&mut self) {
        if self.places.len() > 2 * self.len + 16 {
            self.close_holes();
        }
    }

    fn close_holes(&mut self) {
        self.places.retain(Option::is_some);
        let numbered = self.places.iter().flatten().zip(self.front..);
        let items = numbered.filter_map(|(one, place)| Some((BatchItem::of(&one.event)?, place)));
        self.items = items.collect();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{self, sequenced};

    #[derive(Debug, Clone)]
    enum Step {
        Push(Option<&'static str>),
        Pop,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let key = prop::sample::select(vec![None, Some("a"), Some("b"), Some("c")]);
        let step = prop_oneof![4 => key.prop_map(Step::Push), 1 => Just(Step::Pop)];
        prop::collection::vec(step, 0..200)
    }

    proptest! {
        #[test]
        fn the_last_of_each_item_is_left_in_order(
            conflate in prop::sample::select(vec![
                Conflate::None,
                Conflate::Latest,
                Conflate::LatestByKey,
            ]),
            steps in steps(),
        ) {
            let policy = testing::policy(conflate);
            let mut batch = Batch::default();
            let mut expected: Vec<(u64, Option<&str>)> = Vec::new();
            for (sequence, step) in (1..).zip(steps) {
                match step {
                    Step::Push(key) => {
                        expected.retain(|(_, other)| match conflate {
                            Conflate::None => true,
                            Conflate::Latest => false,
                            Conflate::LatestByKey => key.is_none() || *other != key,
                        });
                        expected.push((sequence, key));
                        batch.push(sequenced("topic", sequence, key, &policy));
                    }
                    Step::Pop => {
                        let popped = batch.pop().map(|event| event.sequence);
                        let first = (!expected.is_empty()).then(|| expected.remove(0).0);
                        prop_assert_eq!(popped, first);
                    }
                }
                let sequences: Vec<u64> = batch.iter().map(WaitingEvent::sequence).collect();
                let wanted: Vec<u64> = expected.iter().map(|(sequence, _)| *sequence).collect();
                prop_assert_eq!(&sequences, &wanted);
                prop_assert_eq!(batch.len(), wanted.len());
                let bytes: usize = batch.iter().map(|one| one.to_event().stream_bytes()).sum();
                prop_assert_eq!(batch.bytes(), bytes);
                // A hot item leaves no trail of empty places.
                prop_assert!(batch.places.len() <= 2 * batch.len() + 17);
            }
        }
    }
}
