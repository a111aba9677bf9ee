//! What a stream asks for: the builder for embedders, and what the hub makes of it.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    domain::{
        event::MAX_FIELD_BYTES,
        interest::{Interest, PatternSet, Start, StartFrom, TypeFilter},
        topic::{Pattern, Topic},
    },
    error::SubscribeError,
};

/// The topics of a stream and how it wants them. Whatever is left open, the request that
/// opens the stream decides: `types`, `batch`, `snapshot`, and where to resume.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subscription {
    pub(crate) topics: Vec<String>,
    pub(crate) types: Option<Vec<String>>,
    pub(crate) last_event_id: Option<String>,
    pub(crate) format: Option<Format>,
    pub(crate) snapshot: Option<bool>,
}

impl Subscription {
    /// A subscription to nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a topic or a pattern: `*` is one whole segment, a last `**` one or more. What is
    /// not valid is answered with 400 when the stream is opened.
    #[must_use]
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.topics.push(topic.into());
        self
    }

    /// Adds several topics or patterns.
    #[must_use]
    pub fn topics<T: Into<String>>(mut self, topics: impl IntoIterator<Item = T>) -> Self {
        self.topics.extend(topics.into_iter().map(Into::into));
        self
    }

    /// Keeps only events of these types; `message` stands for events without one.
    #[must_use]
    pub fn types<T: Into<String>>(mut self, types: impl IntoIterator<Item = T>) -> Self {
        self.types = Some(types.into_iter().map(Into::into).collect());
        self
    }

    /// Begins after the event of this id, or with `earliest` at the beginning of history,
    /// whatever the request says.
    #[must_use]
    pub fn last_event_id(mut self, id: impl Into<String>) -> Self {
        self.last_event_id = Some(id.into());
        self
    }

    /// Begins with the newest event of each key of the conflated topics.
    #[must_use]
    pub fn snapshot(mut self) -> Self {
        self.snapshot = Some(true);
        self
    }

    /// Checks the subscription and resolves it.
    pub(crate) fn resolve(self, max_topics: usize) -> Result<Wanted, SubscribeError> {
        if self.topics.is_empty() {
            return Err(SubscribeError::NoTopic);
        }
        if self.topics.len() > max_topics {
            return Err(SubscribeError::TooManyTopics { max_count: max_topics });
        }
        let mut topics = Vec::new();
        let mut patterns = Vec::new();
        for name in &self.topics {
            let pattern = Pattern::parse(name)?;
            match pattern.has_wildcard() {
                true => patterns.push(pattern),
                false => topics.push(Topic::parse(name)?),
            }
        }
        let patterns = PatternSet::new(patterns);
        topics.retain(|topic| !patterns.matches(topic));
        topics.sort_unstable();
        topics.dedup();
        let start = match self.last_event_id.as_deref() {
            None | Some("") if self.snapshot == Some(true) => Start::Snapshot,
            None | Some("") => Start::Live,
            Some("earliest") => Start::Earliest,
            Some(id) => Start::Resume(id.parse()?),
        };
        let mut names = self.topics;
        names.sort_unstable();
        names.dedup();
        Ok(Wanted {
            names: names.into(),
            topics: topics.into(),
            patterns: Arc::new(patterns),
            types: TypeFilter(check_types(self.types)?),
            start,
            format: self.format.unwrap_or_default(),
        })
    }
}

fn check_types(types: Option<Vec<String>>) -> Result<Option<Arc<[String]>>, SubscribeError> {
    let Some(types) = types.filter(|types| !types.is_empty()) else { return Ok(None) };
    let valid = |name: &String| {
        (1..=MAX_FIELD_BYTES).contains(&name.len()) && !name.chars().any(char::is_control)
    };
    if types.iter().all(valid) { Ok(Some(types.into())) } else { Err(SubscribeError::BadTypes) }
}

/// How events are written into a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Format {
    /// Each as an event of its own.
    #[default]
    Events,
    /// Those of one tick as one `batch` whose data is a JSON array.
    JsonBatch,
}

/// A checked subscription.
#[derive(Debug)]
pub(crate) struct Wanted {
    /// Topics and patterns as the client spelt them, each once, sorted.
    pub names: Box<[String]>,
    /// Topics that no pattern of the stream covers.
    pub topics: Box<[Topic]>,
    pub patterns: Arc<PatternSet>,
    pub types: TypeFilter,
    pub start: Start,
    pub format: Format,
}

impl Wanted {
    /// What the stream wants of each partition that it touches, ascending.
    pub fn interests(&self, partition_count: u16) -> Vec<(u16, Arc<Interest>)> {
        let mut topics: BTreeMap<u16, Vec<Topic>> = BTreeMap::new();
        if !self.patterns.is_empty() {
            topics.extend((0..partition_count).map(|partition| (partition, Vec::new())));
        }
        for topic in &self.topics {
            topics.entry(topic.partition(partition_count)).or_default().push(topic.clone());
        }
        let interest = |topics: Vec<Topic>| Interest {
            topics: topics.into(),
            patterns: self.patterns.clone(),
            types: self.types.clone(),
        };
        topics.into_iter().map(|(number, topics)| (number, Arc::new(interest(topics)))).collect()
    }

    /// Where the stream begins in a partition.
    pub fn start_in(&self, partition: u16) -> StartFrom {
        match &self.start {
            Start::Live => StartFrom::Live,
            Start::Snapshot => StartFrom::Snapshot,
            Start::Earliest => StartFrom::Earliest,
            // A partition that the cursor does not name was not touched before.
            Start::Resume(cursor) => match cursor.positions.get(partition) {
                Some(sequence) => StartFrom::After { epoch: cursor.epoch, sequence },
                None => StartFrom::Live,
            },
        }
    }

    /// Whether the stream has named the topic or has a pattern that matches it.
    pub fn wants(&self, topic: &Topic) -> bool {
        self.topics.binary_search(topic).is_ok() || self.patterns.matches(topic)
    }

    /// The topic of a stream that has just one.
    pub fn only_topic(&self) -> Option<&str> {
        match &*self.topics {
            [topic] if self.patterns.is_empty() => Some(topic.as_str()),
            _ => None,
        }
    }

    /// The names, cut where a log line would grow without bound.
    pub fn names_for_log(&self) -> String {
        const MAX_NAMES: usize = 10;
        let mut text = self.names.iter().take(MAX_NAMES).cloned().collect::<Vec<_>>().join(",");
        if self.names.len() > MAX_NAMES {
            text += &format!(",… ({} in all)", self.names.len());
        }
        text
    }
}
