//! The interest of a stream: topics, patterns, event types, and its start.

use std::{
    collections::BTreeMap,
    hash::{Hash, Hasher},
    sync::{Arc, LazyLock},
};

use smallvec::{SmallVec, smallvec};

use crate::{
    cursor::{Cursor, Epoch},
    event::SequencedEvent,
    pattern_index::PatternIndex,
    topic::{Pattern, Topic},
};

/// Topics of one stream. One or two topics, the usual case, need no heap memory.
pub type Topics = SmallVec<[Topic; 2]>;

/// The interest of one stream in one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interest {
    /// Topics of this partition not covered by a pattern of the same stream.
    pub topics: Topics,
    /// All patterns of the stream; each may match topics of any partition.
    pub patterns: Arc<PatternSet>,
    pub types: TypeFilter,
}

impl Interest {
    /// A stream's interest in each of its partitions, ascending: the partitions of its topics, or
    /// all partitions for patterns or if `is_everywhere`.
    pub fn by_partition(
        topics: &[Topic],
        patterns: &Arc<PatternSet>,
        types: &TypeFilter,
        partition_count: u16,
        is_everywhere: bool,
    ) -> Vec<(u16, Self)> {
        let mut by_partition: BTreeMap<u16, Vec<Topic>> = BTreeMap::new();
        if is_everywhere || !patterns.is_empty() {
            by_partition.extend((0..partition_count).map(|partition| (partition, Vec::new())));
        }
        for topic in topics {
            by_partition.entry(topic.partition(partition_count)).or_default().push(topic.clone());
        }
        let interest = |topics: Vec<Topic>| {
            let (patterns, types) = (patterns.clone(), types.clone());
            Self { topics: topics.into_iter().collect(), patterns, types }
        };
        by_partition.into_iter().map(|(number, topics)| (number, interest(topics))).collect()
    }

    /// This interest without one of its topics, and an interest in this topic alone.
    pub fn without(&self, topic: &Topic) -> (Self, Self) {
        let left = self.topics.iter().filter(|other| *other != topic).cloned().collect();
        let (patterns, types) = (self.patterns.clone(), self.types.clone());
        let only = Self {
            topics: smallvec![topic.clone()],
            patterns: PatternSet::none(),
            types: types.clone(),
        };
        (Self { topics: left, patterns, types }, only)
    }

    /// Whether the interest has neither topics nor patterns.
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty() && self.patterns.is_empty()
    }

    /// Whether one of the patterns matches.
    pub fn matches_pattern(&self, topic: &Topic) -> bool {
        self.patterns.matches(topic)
    }
}

/// The patterns of one stream, matched together.
#[derive(Debug, Default)]
pub struct PatternSet {
    patterns: Box<[Pattern]>,
    index: PatternIndex<()>,
}

impl PatternSet {
    /// The empty set, one for all streams.
    pub fn none() -> Arc<Self> {
        static NONE: LazyLock<Arc<PatternSet>> = LazyLock::new(Arc::default);
        NONE.clone()
    }

    /// The set of these patterns; without patterns, the shared empty set.
    pub fn of(patterns: Vec<Pattern>) -> Arc<Self> {
        if patterns.is_empty() { Self::none() } else { Arc::new(Self::new(patterns)) }
    }

    pub fn new(mut patterns: Vec<Pattern>) -> Self {
        patterns.sort_unstable();
        patterns.dedup();
        let mut index = PatternIndex::default();
        for pattern in &patterns {
            index.insert(pattern, ());
        }
        Self { patterns: patterns.into(), index }
    }

    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    pub fn len(&self) -> usize {
        self.patterns.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Pattern> {
        self.patterns.iter()
    }

    /// Whether one of the patterns matches.
    pub fn matches(&self, topic: &Topic) -> bool {
        let mut matched = false;
        self.index.for_each_match(topic, |()| matched = true);
        matched
    }
}

impl PartialEq for PatternSet {
    fn eq(&self, other: &Self) -> bool {
        self.patterns == other.patterns
    }
}

impl Eq for PatternSet {}

impl Hash for PatternSet {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.patterns.hash(state);
    }
}

/// The event types wanted by a stream; `None` for all of them. Sorted, each once.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct TypeFilter(Option<Arc<[String]>>);

impl TypeFilter {
    /// The filter for these types; without types, for all events.
    pub fn of(mut types: Vec<String>) -> Self {
        types.sort_unstable();
        types.dedup();
        Self(Some(types).filter(|types| !types.is_empty()).map(Arc::from))
    }

    /// Whether the stream wants the event. An event without a type has the type `message`
    /// (WHATWG HTML §9.2.6).
    #[inline]
    pub fn wants(&self, event: &SequencedEvent) -> bool {
        self.wants_type(event.event_type())
    }

    /// Whether the stream wants events of this type.
    #[inline]
    pub fn wants_type(&self, event_type: Option<&str>) -> bool {
        let Some(types) = &self.0 else { return true };
        let event_type = event_type.unwrap_or("message");
        types.binary_search_by(|wanted| wanted.as_str().cmp(event_type)).is_ok()
    }

    #[inline]
    pub fn is_all(&self) -> bool {
        self.0.is_none()
    }

    /// Whether other streams have the same list.
    pub(crate) fn is_shared(&self) -> bool {
        self.0.as_ref().is_some_and(|types| Arc::strong_count(types) > 1)
    }
}

/// The start of a stream in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartFrom {
    /// With events published after the attach.
    Live,
    /// With the history of conflated topics, then live.
    Snapshot,
    /// With all events in history, then live.
    Earliest,
    /// With the events after a sequence of an epoch. If the partition has another epoch: a gap,
    /// then everything in history.
    After { epoch: Epoch, sequence: u64 },
}

/// The start of a stream, as requested by its client.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Start {
    #[default]
    Live,
    Snapshot,
    Earliest,
    Resume(Box<Cursor>),
}
