//! The data from a topic manager to connections.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use smallvec::SmallVec;

use crate::{
    event::SequencedEvent, ids::StreamId, partition::Interruption, partition_log::Replay,
    sse::encode,
};

/// The events of one topic sent together, or an interruption. All receiving streams share it.
#[derive(Debug)]
pub struct Frame {
    pub partition: u16,
    /// Set for an interruption: the frame then has no events.
    pub interruption: Option<Arc<Interruption>>,
    /// In sequence order, at least one unless this is an interruption.
    pub events: Box<[Arc<SequencedEvent>]>,
    /// The lowest sequence of these events and of all events merged into them; 0 for an
    /// interruption.
    pub oldest: u64,
    /// The time of the last event, in milliseconds since 1970; 0 for an interruption.
    pub unix_ms: u64,
    /// The encoded events, with the `id:` lines for streams of this partition only.
    pub bytes: Bytes,
}

impl Frame {
    /// A frame of these events, one topic's in sequence order; `None` for an empty list.
    pub fn new(events: Vec<Arc<SequencedEvent>>) -> Option<Arc<Self>> {
        let first = events.first()?;
        let partition = first.partition;
        let bytes = encode::events(events.iter().map(|event| &**event));
        let oldest = events.iter().map(|event| event.oldest_sequence()).min()?;
        let unix_ms = events.last()?.unix_ms;
        let events = events.into();
        Some(Arc::new(Self { partition, interruption: None, oldest, events, unix_ms, bytes }))
    }

    /// A frame without events: streams receiving it get a gap.
    pub fn interruption(interruption: Arc<Interruption>) -> Arc<Self> {
        Arc::new(Self {
            partition: interruption.partition,
            interruption: Some(interruption),
            oldest: 0,
            unix_ms: 0,
            events: Box::default(),
            bytes: Bytes::new(),
        })
    }

    /// The last sequence; 0 for an interruption.
    pub fn last_sequence(&self) -> u64 {
        self.events.last().map_or(0, |event| event.sequence)
    }

    /// The publish time of the first event. The frame must not be an interruption.
    pub fn published_at(&self) -> Instant {
        self.events[0].published_at
    }
}

/// All frames for one stream in one turn.
pub type Frames = SmallVec<[Arc<Frame>; 1]>;

/// A step of a live change, for the stream's connection.
#[derive(Debug)]
pub enum ChangeStep {
    /// The new subscription is in force for the events to come.
    Began,
    /// A partition has attached added topics, or this is the first page before it does.
    Joined(Page),
    /// All partitions have answered, at this moment. The stream gets its new id.
    Finished { at: Instant },
}

/// The next page of a stream's replay of one partition.
#[derive(Debug)]
pub struct Page {
    pub stream: StreamId,
    pub partition: u16,
    pub replay: Replay,
}

/// The start of a stream: the replays of all its partitions, or their first pages.
#[derive(Debug)]
pub struct Opening {
    pub stream: StreamId,
    /// Ascending by partition.
    pub replays: Vec<(u16, Replay)>,
    /// When the last partition answered. Later changes of the stream are not part of it.
    pub at: Instant,
}
