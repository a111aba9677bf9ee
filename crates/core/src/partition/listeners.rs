//! The managers with streams listening to a topic, and the number of these streams.

use std::{collections::HashMap, sync::Arc};

use slab::Slab;
use smallvec::SmallVec;

use crate::{
    ids::ManagerId,
    interest::{Interest, PatternSet, TypeFilter},
    pattern_index::PatternIndex,
    topic::Topic,
};

/// Streams of one manager with the same type filter.
#[derive(Debug)]
struct Group {
    manager: ManagerId,
    types: TypeFilter,
    stream_count: usize,
}

/// The key of a group of streams with patterns: the whole pattern set. So a stream counts once,
/// even if two of its patterns match an event.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct PatternGroup {
    manager: ManagerId,
    patterns: Arc<PatternSet>,
    types: TypeFilter,
}

/// All listeners of a partition.
#[derive(Debug, Default)]
pub struct Listeners {
    topics: HashMap<Topic, SmallVec<[Group; 1]>>,
    groups: Slab<(PatternGroup, usize)>,
    group_keys: HashMap<PatternGroup, usize>,
    patterns: PatternIndex<usize>,
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
            let groups = self.topics.entry(topic.clone()).or_default();
            match groups.iter_mut().find(|group| group.is(manager, &interest.types)) {
                Some(group) => group.stream_count += 1,
                None => {
                    groups.push(Group { manager, types: interest.types.clone(), stream_count: 1 });
                }
            }
        }
        if interest.patterns.is_empty() {
            return;
        }
        let key = PatternGroup::of(manager, interest);
        if let Some(group) = self.group_keys.get(&key) {
            self.groups[*group].1 += 1;
            return;
        }
        let group = self.groups.insert((key.clone(), 1));
        for pattern in interest.patterns.iter() {
            self.patterns.insert(pattern, group);
        }
        self.group_keys.insert(key, group);
    }

    /// Removes one stream attached with this interest.
    pub fn detach(&mut self, manager: ManagerId, interest: &Interest) {
        for topic in &interest.topics {
            let Some(groups) = self.topics.get_mut(topic) else { continue };
            if let Some(group) = groups.iter_mut().find(|group| group.is(manager, &interest.types))
            {
                group.stream_count -= 1;
            }
            groups.retain(|group| group.stream_count > 0);
            if groups.is_empty() {
                self.topics.remove(topic);
            }
        }
        if interest.patterns.is_empty() {
            return;
        }
        let Some(group) = self.group_keys.get(&PatternGroup::of(manager, interest)).copied() else {
            return;
        };
        self.groups[group].1 -= 1;
        if self.groups[group].1 == 0 {
            self.remove_group(group);
        }
    }

    /// Removes all streams of a manager.
    pub fn remove_manager(&mut self, manager: ManagerId) {
        self.topics.retain(|_, groups| {
            groups.retain(|group| group.manager != manager);
            !groups.is_empty()
        });
        let its = self.groups.iter().filter(|(_, (key, _))| key.manager == manager);
        for group in its.map(|(group, _)| group).collect::<Vec<_>>() {
            self.remove_group(group);
        }
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
        let mut matching: SmallVec<[usize; 8]> = SmallVec::new();
        self.patterns.for_each_match(topic, |group| matching.push(group));
        matching.sort_unstable();
        matching.dedup();
        for (key, stream_count) in matching.into_iter().map(|group| &self.groups[group]) {
            if wants(&key.types) {
                receivers.add(key.manager, *stream_count);
            }
        }
        receivers
    }

    fn remove_group(&mut self, group: usize) {
        let (key, _) = self.groups.remove(group);
        for pattern in key.patterns.iter() {
            self.patterns.remove(pattern, group);
        }
        self.group_keys.remove(&key);
    }
}

impl Group {
    fn is(&self, manager: ManagerId, types: &TypeFilter) -> bool {
        self.manager == manager && self.types == *types
    }
}

impl PatternGroup {
    fn of(manager: ManagerId, interest: &Interest) -> Self {
        Self { manager, patterns: interest.patterns.clone(), types: interest.types.clone() }
    }
}
