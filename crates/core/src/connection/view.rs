//! The encoding of events for one stream: shared bytes for a stream of one partition, own `id:`
//! lines for a stream of several, or a JSON batch.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    cursor::{CursorText, Epoch, Positions, ReplayMarks},
    event::SequencedEvent,
    sse::encode,
    subscription::Format,
};

/// The properties of a stream deciding the bytes of its events, except the positions.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    pub epoch: Epoch,
    /// Partitions still in an older epoch. Their positions in the cursor stay unchanged.
    pub behind: &'a [u16],
    /// The partitions within a replay.
    pub marks: &'a ReplayMarks,
    pub format: Format,
    /// Whether the stream has one partition only.
    pub is_single: bool,
}

/// An owned copy of a view, to compare with later views.
#[derive(Debug)]
pub struct ViewKey {
    epoch: Epoch,
    behind: Box<[u16]>,
    marks: ReplayMarks,
    format: Format,
    is_single: bool,
}

impl ViewKey {
    pub fn of(view: &View<'_>) -> Self {
        let View { epoch, behind, marks, format, is_single } = *view;
        Self { epoch, behind: behind.into(), marks: marks.clone(), format, is_single }
    }

    pub fn is_of(&self, view: &View<'_>) -> bool {
        let View { epoch, behind, marks, format, is_single } = *view;
        (self.epoch, &*self.behind, &self.marks, self.format, self.is_single)
            == (epoch, behind, marks, format, is_single)
    }
}

impl View<'_> {
    /// Encodes events in one piece. `positions` are the stream's positions before it.
    pub fn encode(&self, events: &[Arc<SequencedEvent>], mut positions: Positions) -> Bytes {
        match self.format {
            Format::Events if self.has_shared_ids(events) => {
                encode::events(events.iter().map(|event| &**event))
            }
            Format::Events => self.with_own_ids(events, &positions).into(),
            Format::JsonBatch | Format::Poll => self.batch(events, &mut positions).into(),
        }
    }

    /// Whether the events' own ids are the stream's ids. History may have events of an earlier
    /// epoch of the same sequences.
    fn has_shared_ids(&self, events: &[Arc<SequencedEvent>]) -> bool {
        self.is_single
            && self.marks.is_empty()
            && events.iter().all(|event| event.epoch == self.epoch)
    }

    fn with_own_ids(&self, events: &[Arc<SequencedEvent>], positions: &Positions) -> Vec<u8> {
        let mut id = CursorText::new(self.epoch, Some(0), positions, self.marks);
        // Room for a sequence getting more digits.
        let id_bytes = id.as_bytes().len() + 8;
        let size = events.iter().map(|event| event.body.lines.len() + id_bytes).sum();
        let mut bytes = Vec::with_capacity(size);
        for event in events {
            id.set_time(event.unix_ms);
            if !self.behind.contains(&event.partition) {
                id.set(event.partition, event.sequence);
            }
            encode::push_lines(&mut bytes, event);
            encode::push_id_line(&mut bytes, id.as_bytes());
        }
        bytes
    }

    fn advance(&self, positions: &mut Positions, event: &SequencedEvent) {
        if !self.behind.contains(&event.partition) {
            positions.set(event.partition, event.sequence);
        }
    }

    fn batch(&self, events: &[Arc<SequencedEvent>], positions: &mut Positions) -> Vec<u8> {
        let mut text = String::from("event: batch\ndata: [");
        for (index, event) in events.iter().enumerate() {
            self.advance(positions, event);
            if index > 0 {
                text.push(',');
            }
            let id = encode::cursor_text(self.epoch, event.unix_ms, positions, self.marks);
            encode::push_batch_item(&mut text, &id, event);
        }
        text.push_str("]\n");
        let mut bytes = text.into_bytes();
        let unix_ms = events.last().map_or(0, |event| event.unix_ms);
        let id = encode::cursor_text(self.epoch, unix_ms, positions, self.marks);
        encode::push_id_line(&mut bytes, id.as_bytes());
        bytes
    }
}
