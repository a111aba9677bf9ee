//! An event on its way to one or several topics, and the answer to a publish.

use std::sync::{Arc, OnceLock};

use serde::Serialize;

use crate::{
    event::{Event, EventBody},
    sse::encode,
    topic::Topic,
};

/// An event for several topics: one copy of its data, encoded at most once.
#[derive(Debug)]
pub struct SharedEvent {
    event: Event,
    body: OnceLock<Arc<EventBody>>,
    topic_count: usize,
}

impl SharedEvent {
    /// An event for at least `topic_count` topics. Each topic's history counts its share of the
    /// body.
    pub fn new(event: Event, topic_count: usize) -> Self {
        Self { event, body: OnceLock::new(), topic_count }
    }

    pub fn event(&self) -> &Event {
        &self.event
    }

    /// The part of the event common to all streams of a topic. The first call encodes it for all
    /// topics, but the removal of a key names its topic.
    pub fn body_for(&self, topic: &Topic) -> Arc<EventBody> {
        match self.deletion(topic) {
            Some(deletion) => Arc::new(encode::body(&deletion, 1)),
            None => self.body(),
        }
    }

    /// The event for a topic, if it removes a key.
    pub fn deletion(&self, topic: &Topic) -> Option<Event> {
        let Event { delete, key, event_type, .. } = &self.event;
        let key = key.as_ref().filter(|_| *delete)?;
        Some(Event::deletion(topic, key, event_type.as_deref()))
    }

    /// The part of the event common to all streams and topics. The first call encodes it.
    pub fn body(&self) -> Arc<EventBody> {
        let encode = || Arc::new(encode::body(&self.event, self.topic_count));
        self.body.get_or_init(encode).clone()
    }
}

impl From<Event> for SharedEvent {
    fn from(event: Event) -> Self {
        Self::new(event, 1)
    }
}

/// An accepted event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Published {
    /// The event's cursor: a stream resuming from it gets all later events.
    pub event_id: String,
    pub topic: String,
    pub partition: u16,
    /// The event's number in its partition, from 1.
    pub sequence: u64,
    /// Streams of this instance with the event in their queue.
    pub receivers: usize,
}
