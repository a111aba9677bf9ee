//! A batch: waiting events of a topic or of a stream, conflated by the policy. The caller decides
//! when the batch leaves.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use crate::{event::SequencedEvent, policy::Conflate, topic::Topic};

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
}

/// Whether a batch merges the two by their collapse key.
pub fn is_merged(one: &SequencedEvent, other: &SequencedEvent) -> bool {
    BatchItem::of(one).is_some_and(|item| {
        matches!(item.name, ItemName::Collapse { .. }) && BatchItem::of(other) == Some(item)
    })
}

/// Events in arrival order, without superseded ones.
#[derive(Debug, Default)]
pub struct Batch {
    /// Superseded places are empty until they reach the front.
    places: VecDeque<Option<Arc<SequencedEvent>>>,
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
    pub fn push(&mut self, mut event: Arc<SequencedEvent>) -> Added {
        let mut added = Added::Appended;
        if let Some(item) = BatchItem::of(&event) {
            let older = self.items.remove(&item);
            if let Some(older) = older.and_then(|older| self.remove(older)) {
                added = Added::Superseded;
                if matches!(item.name, ItemName::Collapse { .. }) {
                    added = Added::Merged;
                    event = Arc::new(event.merged_with(&older));
                }
            }
            self.items.insert(item, self.front + self.places.len() as u64);
        }
        self.len += 1;
        self.bytes += event.stream_bytes();
        self.places.push_back(Some(event));
        added
    }

    /// Takes the oldest event.
    pub fn pop(&mut self) -> Option<Arc<SequencedEvent>> {
        while let Some(place) = self.places.pop_front() {
            self.front += 1;
            let Some(event) = place else { continue };
            self.len -= 1;
            self.bytes -= event.stream_bytes();
            if self.len == 0 {
                self.items.clear();
            } else if let Some(item) = BatchItem::of(&event) {
                self.items.remove(&item);
            }
            self.bound_holes();
            return Some(event);
        }
        None
    }

    /// The oldest event, without taking it.
    pub fn front(&self) -> Option<&Arc<SequencedEvent>> {
        self.iter().next()
    }

    /// All events, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<SequencedEvent>> {
        self.places.iter().flatten()
    }

    /// Takes all events, oldest first.
    pub fn take(&mut self) -> Vec<Arc<SequencedEvent>> {
        let events = self.places.drain(..).flatten().collect();
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
    fn remove(&mut self, number: u64) -> Option<Arc<SequencedEvent>> {
        let index = number.checked_sub(self.front)?;
        let event = self.places.get_mut(index as usize).and_then(Option::take)?;
        self.len -= 1;
        self.bytes -= event.stream_bytes();
        while let Some(None) = self.places.front() {
            self.places.pop_front();
            self.front += 1;
        }
        self.bound_holes();
        Some(event)
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
        self.items =
            numbered.filter_map(|(event, place)| Some((BatchItem::of(event)?, place))).collect();
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
                let sequences: Vec<u64> = batch.iter().map(|event| event.sequence).collect();
                let wanted: Vec<u64> = expected.iter().map(|(sequence, _)| *sequence).collect();
                prop_assert_eq!(&sequences, &wanted);
                prop_assert_eq!(batch.len(), wanted.len());
                let bytes: usize = batch.iter().map(|event| event.stream_bytes()).sum();
                prop_assert_eq!(batch.bytes(), bytes);
                // A hot item leaves no trail of empty places.
                prop_assert!(batch.places.len() <= 2 * batch.len() + 17);
            }
        }
    }
}
