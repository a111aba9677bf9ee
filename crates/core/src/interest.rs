//! The interest of a stream: topics, patterns, event types, and its start.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use smallvec::SmallVec;

use crate::{
    cursor::{Cursor, Epoch},
    event::{DELETED, SequencedEvent},
    pattern_set::PatternSet,
    topic::{Pattern, Topic},
};

/// Topics of one stream. One or two topics, the usual case, need no heap memory.
pub type Topics = SmallVec<[Topic; 2]>;

/// The interest of one stream in one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interest {
    /// Topics of this partition not covered by a pattern of the same stream.
    pub topics: Topics,
    /// Patterns of the stream; each may match topics of any partition.
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

    /// This interest without these topics, and an interest in the removed topics alone; `None` if
    /// it has none of them.
    pub fn without(&self, gone: &HashSet<&Topic>) -> Option<(Self, Self)> {
        let (only, left): (Topics, Topics) =
            self.topics.iter().cloned().partition(|topic| gone.contains(topic));
        if only.is_empty() {
            return None;
        }
        let (patterns, types) = (PatternSet::none(), self.types.clone());
        let only = Self { topics: only, patterns, types };
        Some((Self { topics: left, ..self.clone() }, only))
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
        if event_type == DELETED {
            return true;
        }
        types.binary_search_by(|wanted| wanted.as_str().cmp(event_type)).is_ok()
    }

    /// Whether the condition holds for one of the wanted types; false for all types.
    pub fn any(&self, is_it: impl Fn(&str) -> bool) -> bool {
        let Some(types) = &self.0 else { return false };
        types.iter().any(|wanted| is_it(wanted)) || is_it(DELETED)
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
    ///
    /// `since` leaves out events before this time, in milliseconds since 1970.
    After { epoch: Epoch, sequence: u64, since: u64 },
    /// With events published after the attach. Wanted events after a sequence of an epoch are missed:
    /// a gap. For topics added in a partition with a higher position in the stream's cursor.
    LiveAfter { epoch: Epoch, sequence: u64 },
    /// With the events published at or after this time, in milliseconds since 1970. A time in the
    /// future: live. If the partition's history does not reach back: a gap first.
    ///
    /// `epoch` is the one of the client's cursor: in another epoch, events since then may be lost.
    Since { unix_ms: u64, epoch: Option<Epoch> },
    /// With the next page of a replay.
    Continue(Rest),
}

/// The kind of a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begun {
    After,
    Snapshot,
    Earliest,
}

/// The rest of a replay: the events after a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rest {
    pub begun: Begun,
    pub epoch: Epoch,
    pub sequence: u64,
    /// The partition's last sequence at the begin of the replay: a snapshot ends there.
    pub head: u64,
    /// Events before this time, in milliseconds since 1970, are left out.
    pub since: u64,
    pub told: Told,
}

/// The losses known to the client of a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// All up to this mark of the partition: earlier pages have told them.
    Through(u64),
    /// All before the partition reached the replay's head. The client has returned with a cursor
    /// within the replay.
    AtHead,
}

/// The start of a stream, as requested by its client.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Start {
    #[default]
    Live,
    Snapshot,
    Earliest,
    /// At a time, in milliseconds since 1970.
    Since(u64),
    Resume(Box<Cursor>),
    /// After a live change of a resumed stream: for topics added later.
    Resumed(Box<Resumed>),
}

/// The start of topics added to a resumed stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resumed {
    pub cursor: Cursor,
    /// The partitions attached at some time, ascending.
    pub attached: Vec<u16>,
    /// Names removed from the open stream, some of them. Added again, they begin live.
    pub removed: BTreeSet<Pattern>,
}

impl Resumed {
    /// Past this bound, the latest removed names are not kept: added again, they get a gap.
    const MAX_REMOVED: usize = 100;

    /// Notes one more change.
    pub fn note(&mut self, attached: &[u16], removed: impl Iterator<Item = Pattern>) {
        self.attached.extend(attached);
        self.attached.sort_unstable();
        self.attached.dedup();
        let room = Self::MAX_REMOVED.saturating_sub(self.removed.len());
        self.removed.extend(removed.take(room));
    }

    /// Whether the stream itself removed the topic, so a client misses none of its events.
    pub fn has_removed(&self, topic: &Topic) -> bool {
        self.removed.iter().any(|name| name.matches(topic.as_str()))
    }
}
