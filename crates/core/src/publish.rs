//! The answer to a publish.

use serde::Serialize;

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
