//! The managers with streams listening to a topic, and the number of these streams.

use std::{collections::HashMap, sync::Arc};

use smallvec::SmallVec;

use crate::{
    ids::ManagerId,
    interest::{Interest, TypeFilter},
    pattern_set::{PatternSet, PatternSetId, sets_matching},
    topic::Topic,
};

/// Streams of one manager with the same type filter.
#[derive(Debug)]
struct Group {
    manager: ManagerId,
    types: TypeFilter,
    stream_count: usize,
}

/// The streams with one pattern set.
#[derive(Debug)]
struct PatternGroups {
    /// Keeps the set's id.
    _set: Arc<PatternSet>,
    groups: SmallVec<[Group; 1]>,
}

/// All listeners of a partition.
#[derive(Debug, Default)]
pub struct Listeners {
    topics: HashMap<Topic, SmallVec<[Group; 1]>>,
    /// By pattern set. The index of the patterns is shared with all partitions.
    patterns: HashMap<PatternSetId, PatternGroups>,
}

/// The receivers of an event.
#[derive(Debug, Default)]
pub struct Receivers {
    pub managers: SmallVec<[ManagerId; 4]>,
    pub stream_count: usize,
}

impl Receivers {
    fn add(&mut self, manager: ManagerId, stream_count: usize) {
        self.stream_count += stream_count;
        if !self.managers.contains(&manager) {
            self.managers.push(manager);
        }
    }
}

impl Listeners {
    /// Adds a stream.
    pub fn attach(&mut self, manager: ManagerId, interest: &Interest) {
        for topic in &interest.topics {
            add(self.topics.entry(topic.clone()).or_default(), manager, &interest.types);
        }
        if interest.patterns.is_empty() {
            return;
        }
        let set = &interest.patterns;
        let new = || PatternGroups { _set: set.clone(), groups: SmallVec::new() };
        let groups = &mut self.patterns.entry(set.id()).or_insert_with(new).groups;
        add(groups, manager, &interest.types);
    }

    /// Removes one stream attached with this interest.
    pub fn detach(&mut self, manager: ManagerId, interest: &Interest) {
        for topic in &interest.topics {
            let Some(groups) = self.topics.get_mut(topic) else { continue };
            remove(groups, manager, &interest.types);
            if groups.is_empty() {
                self.topics.remove(topic);
            }
        }
        let set = interest.patterns.id();
        if let Some(PatternGroups { groups, .. }) = self.patterns.get_mut(&set) {
            remove(groups, manager, &interest.types);
            if groups.is_empty() {
                self.patterns.remove(&set);
            }
        }
    }

    /// Removes all streams of a manager.
    pub fn remove_manager(&mut self, manager: ManagerId) {
        self.topics.retain(|_, groups| {
            groups.retain(|group| group.manager != manager);
            !groups.is_empty()
        });
        self.patterns.retain(|_, PatternGroups { groups, .. }| {
            groups.retain(|group| group.manager != manager);
            !groups.is_empty()
        });
    }

    /// Whether a stream names the topic. Patterns do not count.
    pub fn has_topic(&self, topic: &Topic) -> bool {
        self.topics.contains_key(topic)
    }

    /// Whether a stream has a pattern.
    pub fn has_patterns(&self) -> bool {
        !self.patterns.is_empty()
    }

    /// The number of streams listening to the topic, by name or pattern, with any type filter.
    pub fn subscriber_count(&self, topic: &Topic) -> usize {
        self.select(topic, |_| true).stream_count
    }

    /// The receivers of an event of this topic and type.
    pub fn receivers(&self, topic: &Topic, event_type: Option<&str>) -> Receivers {
        self.select(topic, |types| types.wants_type(event_type))
    }

    fn select(&self, topic: &Topic, wants: impl Fn(&TypeFilter) -> bool) -> Receivers {
        let mut receivers = Receivers::default();
        for group in self.topics.get(topic).into_iter().flatten() {
            if wants(&group.types) {
                receivers.add(group.manager, group.stream_count);
            }
        }
        if self.patterns.is_empty() {
            return receivers;
        }
        let sets = sets_matching(topic);
        let sets = sets.iter().filter_map(|set| self.patterns.get(set));
        for group in sets.flat_map(|set| &set.groups) {
            if wants(&group.types) {
                receivers.add(group.manager, group.stream_count);
            }
        }
        receivers
    }
}

fn add(groups: &mut SmallVec<[Group; 1]>, manager: ManagerId, types: &TypeFilter) {
    match groups.iter_mut().find(|group| group.is(manager, types)) {
        Some(group) => group.stream_count += 1,
        None => groups.push(Group { manager, types: types.clone(), stream_count: 1 }),
    }
}

fn remove(groups: &mut SmallVec<[Group; 1]>, manager: ManagerId, types: &TypeFilter) {
    let Some(place) = groups.iter().position(|group| group.is(manager, types)) else { return };
    groups[place].stream_count -= 1;
    if groups[place].stream_count == 0 {
        groups.remove(place);
    }
}

impl Group {
    fn is(&self, manager: ManagerId, types: &TypeFilter) -> bool {
        self.manager == manager && self.types == *types
    }
}
