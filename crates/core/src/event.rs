//! Events: the publisher's input with its checks, and the hub's sequenced form.
//!
//! `sse::encode` encodes; a sequenced event only stores the bytes.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use serde::Serialize;

use crate::{
    cursor::Epoch,
    ids::PublisherId,
    policy::{Conflate, Policies, Policy},
    topic::Topic,
};

/// Longest event type, key, collapse key or publish id, in bytes.
pub const MAX_FIELD_BYTES: usize = 256;

/// Types reserved for the hub's own events.
const CONTROL_TYPES: [&str; 6] = ["connected", "gap", "shutdown", "renew", "live", "end"];

/// The type of the event for a removed key, unless its publisher names another. Every type filter
/// lets it through: a client without it would keep the key forever.
pub const DELETED: &str = "deleted";

/// The longest time to live of a key.
const MAX_TTL: Duration = Duration::from_secs(365 * 24 * 3600);

/// One event to publish: its data and, optionally, type, key and id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub data: EventData,
    pub event_type: Option<String>,
    pub key: Option<String>,
    pub collapse: Option<String>,
    pub id: Option<String>,
    /// Whether the event removes its key. It has no data of its own: every topic fills in its name
    /// and the key.
    pub delete: bool,
    /// Removes the key after this time, unless it is published again before.
    pub ttl: Option<Duration>,
    /// Whose share of the remembered ids the id takes.
    pub publisher: PublisherId,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventData {
    /// Sent unchanged; each line becomes a `data:` line.
    Text(String),
    /// Compact JSON, always one line.
    Json(String),
}

impl EventData {
    pub fn as_str(&self) -> &str {
        match self {
            Self::Text(text) | Self::Json(text) => text,
        }
    }
}

impl Event {
    /// An event with this text, sent unchanged.
    pub fn text(data: impl Into<String>) -> Self {
        Self::new(EventData::Text(data.into()))
    }

    /// An event with the compact JSON of `value` as data.
    ///
    /// # Errors
    /// As [`serde_json::to_string`]: a map with keys other than strings, or a failing `Serialize`
    /// implementation.
    pub fn json(value: &impl Serialize) -> Result<Self, serde_json::Error> {
        Ok(Self::new(EventData::Json(serde_json::to_string(value)?)))
    }

    pub fn new(data: EventData) -> Self {
        let publisher = PublisherId::Application;
        Self {
            data,
            event_type: None,
            key: None,
            collapse: None,
            id: None,
            delete: false,
            ttl: None,
            publisher,
        }
    }

    /// Removes a key from its topics, conflated by key. Streams get an event of type `deleted`, unless
    /// a type is named, with `{"topic":…,"key":…}` as data.
    pub fn delete(key: impl Into<String>) -> Self {
        Self { delete: true, ..Self::new(EventData::Json(String::new())).key(key) }
    }

    /// Removes the event's key after this time, from 1 ms to 365 days, with one event as of
    /// [`Self::delete`]. A later publish of the key cancels the removal.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// The type of the sent event.
    pub fn sent_type(&self) -> Option<&str> {
        self.event_type.as_deref().or(self.delete.then_some(DELETED))
    }

    /// The event removing the key of this one from a topic.
    #[must_use]
    pub fn deletion(topic: &Topic, key: &str, event_type: Option<&str>) -> Self {
        #[derive(Serialize)]
        struct Deleted<'a> {
            topic: &'a str,
            key: &'a str,
        }
        let data = Deleted { topic: topic.as_str(), key };
        let data = serde_json::to_string(&data).expect("plain strings serialize");
        let event_type = Some(event_type.unwrap_or(DELETED).to_owned());
        Self { event_type, data: EventData::Json(data), ..Self::delete(key) }
    }

    /// Names the event's type (`event:` in the stream, `types=` in a subscription): 1 to 256
    /// bytes without control characters or outer white space, not a control event's.
    #[must_use]
    pub fn event_type(mut self, event_type: impl Into<String>) -> Self {
        self.event_type = Some(event_type.into());
        self
    }

    /// Names the item updated by this event, for conflation by key: 1 to 256 bytes.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Merges the event with unsent events of the same collapse key, type and topic. The stream
    /// gets the newest of them, with `"collapsed":n` at the end of its data: n events in one. The
    /// data must be a JSON object. 1 to 256 bytes.
    #[must_use]
    pub fn collapse(mut self, key: impl Into<String>) -> Self {
        self.collapse = Some(key.into());
        self
    }

    /// Makes the publish idempotent: within the idempotency window (5 minutes by default) a
    /// further publish with the same id on the same topic delivers nothing. 1 to 256 bytes.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Names the publisher, for its share of the remembered ids; by default the application.
    #[must_use]
    pub fn publisher(mut self, publisher: PublisherId) -> Self {
        self.publisher = publisher;
        self
    }

    /// Checks every field against its rule and the data against `max_payload_bytes`.
    pub fn validate(&self, max_payload_bytes: usize) -> Result<(), EventError> {
        if let Some(event_type) = &self.event_type {
            check_field("type", event_type)?;
            if event_type.trim() != event_type {
                return Err(EventError::TypeWhiteSpace);
            }
            if CONTROL_TYPES.contains(&event_type.as_str()) {
                return Err(EventError::ControlType);
            }
        }
        for (field, text) in
            [("key", &self.key), ("collapse key", &self.collapse), ("id", &self.id)]
        {
            if let Some(text) = text {
                check_field(field, text)?;
            }
        }
        self.check_keyed()?;
        let is_object = matches!(&self.data, EventData::Json(json) if json.starts_with('{'));
        if self.collapse.is_some() && !is_object {
            return Err(EventError::CollapsedData);
        }
        let payload = self.data.as_str();
        if payload.len() > max_payload_bytes {
            return Err(EventError::PayloadTooLarge { max_bytes: max_payload_bytes });
        }
        if payload.contains('\0') {
            return Err(EventError::NulInData);
        }
        Ok(())
    }
}

impl Event {
    fn check_keyed(&self) -> Result<(), EventError> {
        if (self.delete || self.ttl.is_some()) && self.key.is_none() {
            return Err(EventError::NeedsKey);
        }
        if self.delete && (self.ttl.is_some() || self.collapse.is_some()) {
            return Err(EventError::DeleteAlone);
        }
        let is_valid = |ttl: Duration| (Duration::from_millis(1)..=MAX_TTL).contains(&ttl);
        if self.ttl.is_some_and(|ttl| !is_valid(ttl)) {
            return Err(EventError::Ttl);
        }
        Ok(())
    }

    /// Checks the event against the policies of its topics.
    pub fn check_policies(&self, topics: &[Topic], policies: &Policies) -> Result<(), EventError> {
        let is_keyed =
            |topic: &Topic| policies.of(topic.as_str()).conflate == Conflate::LatestByKey;
        match (self.delete || self.ttl.is_some()) && !topics.iter().all(is_keyed) {
            true => Err(EventError::NotKeyed),
            false => Ok(()),
        }
    }
}

pub fn check_field(field: &'static str, text: &str) -> Result<(), EventError> {
    if text.is_empty() || text.len() > MAX_FIELD_BYTES {
        return Err(EventError::FieldLength(field));
    }
    if text.chars().any(char::is_control) {
        return Err(EventError::FieldControlCharacter(field));
    }
    Ok(())
}

/// Why an event is refused (`bad_event`, or `payload_too_large`).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    #[error("an event's {0} has 1 to {MAX_FIELD_BYTES} bytes")]
    FieldLength(&'static str),
    #[error("an event's {0} must not contain control characters")]
    FieldControlCharacter(&'static str),
    #[error("an event's type must not begin or end with white space")]
    TypeWhiteSpace,
    #[error("{} are the hub's own event types", CONTROL_TYPES.join(", "))]
    ControlType,
    #[error("`delete` and `ttl` need a `key`")]
    NeedsKey,
    #[error("an event with `delete` has no data, no `ttl` and no collapse key")]
    DeleteAlone,
    #[error("the `ttl` of a key is from 1 ms to 365 days")]
    Ttl,
    /// Only a topic conflated by key has current values.
    #[error("`delete` and `ttl` need a topic with `conflate = \"latest-by-key\"`")]
    NotKeyed,
    #[error("the data of an event with a collapse key is a JSON object")]
    CollapsedData,
    #[error("data sent as text must not contain NUL")]
    NulInData,
    #[error("an event's data has at most {max_bytes} bytes")]
    PayloadTooLarge { max_bytes: usize },
    #[error("the data has no JSON: {0}")]
    Json(String),
}

/// An event with its sequence in a partition.
#[derive(Debug, Clone)]
pub struct SequencedEvent {
    pub topic: Topic,
    pub partition: u16,
    pub epoch: Epoch,
    pub sequence: u64,
    pub published_at: Instant,
    /// The time of the publish, in milliseconds since 1970; never lower than of an earlier event of
    /// the partition.
    pub unix_ms: u64,
    pub policy: Arc<Policy>,
    pub body: Arc<EventBody>,
    /// The older events merged into this one.
    pub collapsed: Option<Box<Collapsed>>,
}

/// Older events merged into one event, by their sequences. Streams share the list: each stream only
/// counts its unsent part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collapsed {
    /// Ascending.
    sequences: Arc<[u64]>,
    /// The first entries, already sent to this stream.
    sent_count: usize,
}

impl Collapsed {
    /// A list of unsent events, ascending; `None` for an empty list.
    pub fn new(sequences: &[u64]) -> Option<Box<Self>> {
        let is_empty = sequences.is_empty();
        (!is_empty).then(|| Box::new(Self { sequences: sequences.into(), sent_count: 0 }))
    }

    /// The sequences not sent yet.
    pub fn unsent(&self) -> &[u64] {
        &self.sequences[self.sent_count..]
    }

    /// The same list for a stream already sent everything up to `sequence`.
    fn unsent_after(&self, sequence: u64) -> Option<Box<Self>> {
        let sent_count = self.sequences.partition_point(|older| *older <= sequence);
        let sent_count = sent_count.max(self.sent_count);
        let is_left = sent_count < self.sequences.len();
        is_left.then(|| Box::new(Self { sequences: self.sequences.clone(), sent_count }))
    }
}

/// The part of an event common to all streams, encoded once; for a fan-out, common to all
/// followers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventBody {
    pub event_type: Option<Box<str>>,
    pub key: Option<Box<str>>,
    pub collapse: Option<Box<str>>,
    /// The data as published, if the `data:` lines lose its line ends: they end in LF only.
    pub text: Option<Box<str>>,
    /// The `event:` line, if there is a type, and the `data:` lines.
    pub lines: Bytes,
    /// The offset of the first `data:` line.
    pub data_at: usize,
    /// Whether the data is JSON (on one line) or text.
    pub is_json: bool,
    /// Whether the event removes its key.
    pub is_deletion: bool,
    /// At least this many topics share the body.
    pub topic_count: usize,
}

impl EventBody {
    /// Whether the event is a value of its key: not without a key, and no removal.
    pub fn is_value(&self) -> bool {
        self.key.is_some() && !self.is_deletion
    }

    fn text_bytes(&self) -> usize {
        let names = [&self.event_type, &self.key, &self.collapse];
        let names = names.into_iter().flatten().map(|name| name.len());
        let text = self.text.as_ref().map_or(0, |text| text.len());
        self.lines.len() + text + names.sum::<usize>()
    }
}

/// Approximate bytes of an `id:` line with one partition.
const ID_LINE_BYTES: usize = 24;

impl SequencedEvent {
    pub fn event_type(&self) -> Option<&str> {
        self.body.event_type.as_deref()
    }

    pub fn key(&self) -> Option<&str> {
        self.body.key.as_deref()
    }

    /// Whether the event is the current value of its key, as long as history has it. Neither number
    /// nor age of the events of its topic removes it.
    pub fn is_current_value(&self) -> bool {
        self.policy.conflate == Conflate::LatestByKey && self.body.is_value()
    }

    /// Sequences of the older events merged into this one and not sent yet, ascending.
    pub fn merged(&self) -> &[u64] {
        self.collapsed.as_ref().map_or(&[], |collapsed| collapsed.unsent())
    }

    /// Approximate bytes in a stream. Includes the memory of the merged sequences, as the event
    /// keeps them while it waits.
    pub fn stream_bytes(&self) -> usize {
        self.line_bytes() + size_of_val(self.merged())
    }

    /// The same without the merged sequences.
    pub fn line_bytes(&self) -> usize {
        self.body.lines.len() + ID_LINE_BYTES
    }

    /// Approximate memory of the event in history: its share of the body, itself, and its places in
    /// the rings and lists around it. The topic is counted by itself.
    pub fn size_bytes(&self) -> usize {
        // An `Arc` has two counters. A list has up to twice the places it uses.
        const COUNTERS: usize = 2 * size_of::<usize>();
        const OWN: usize = size_of::<SequencedEvent>() + COUNTERS;
        const PLACES: usize = 2 * (size_of::<Arc<SequencedEvent>>() + size_of::<(u64, Topic)>());
        // The history of a topic conflated by key has a map of keys.
        const KEY: usize = 2 * (size_of::<(Box<str>, u64)>() + 1);
        let body = size_of::<EventBody>() + COUNTERS + self.body.text_bytes();
        let key = match (self.policy.conflate, self.key()) {
            (Conflate::LatestByKey, Some(key)) => KEY + key.len(),
            _ => 0,
        };
        OWN + PLACES + body.div_ceil(self.body.topic_count) + key
    }

    /// The lowest sequence of this event and of the events merged into it.
    pub fn oldest_sequence(&self) -> u64 {
        self.merged().first().copied().unwrap_or(self.sequence)
    }

    /// The number of merged events, this one included.
    pub fn count(&self) -> usize {
        1 + self.merged().len()
    }

    /// The event for a stream already sent everything up to `sequence`.
    pub fn unsent_after(self: &Arc<Self>, sequence: u64) -> Arc<Self> {
        match &self.collapsed {
            // The stream has got some of the merged events: counting them again would make
            // `"collapsed"` too high.
            Some(older) if self.oldest_sequence() <= sequence => {
                Arc::new(Self { collapsed: older.unsent_after(sequence), ..Self::clone(self) })
            }
            _ => self.clone(),
        }
    }
}
