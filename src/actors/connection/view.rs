//! How one stream sees events: shared bytes where it touches one partition, its own `id:`
//! lines where it touches several, or a JSON batch.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    domain::{
        cursor::{Epoch, Positions},
        event::SequencedEvent,
    },
    subscription::Format,
    wire::encode,
};

/// What the look of an event in a stream depends on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'a> {
    pub epoch: Epoch,
    /// Partitions that have not reached that epoch: their positions stay as they are.
    pub behind: &'a [u16],
    pub format: Format,
    /// Whether the stream touches one partition only.
    pub is_single: bool,
}

impl View<'_> {
    /// Encodes events in one piece; `positions` is where the stream stands before it.
    pub fn encode(&self, events: &[Arc<SequencedEvent>], mut positions: Positions) -> Bytes {
        match self.format {
            Format::Events if self.is_single => {
                encode::join(events.iter().map(|event| &event.encoded.bytes[..]))
            }
            Format::Events => self.with_own_ids(events, &mut positions).into(),
            Format::JsonBatch => self.batch(events, &mut positions).into(),
        }
    }

    fn with_own_ids(&self, events: &[Arc<SequencedEvent>], positions: &mut Positions) -> Vec<u8> {
        // About what an id takes: its epoch, and a few digits for each partition.
        let id_bytes = 16 + 8 * positions.len();
        let size = events.iter().map(|event| event.encoded.id_at + id_bytes).sum();
        let mut bytes = Vec::with_capacity(size);
        let mut id_line = String::with_capacity(id_bytes);
        for event in events {
            self.advance(positions, event);
            bytes.extend_from_slice(&event.encoded.bytes[..event.encoded.id_at]);
            id_line.clear();
            encode::push_id_line(&mut id_line, self.epoch, positions);
            bytes.extend_from_slice(id_line.as_bytes());
        }
        bytes
    }

    fn advance(&self, positions: &mut Positions, event: &SequencedEvent) {
        if !self.behind.contains(&event.partition) {
            positions.set(event.partition, event.sequence);
        }
    }

    fn batch(&self, events: &[Arc<SequencedEvent>], positions: &mut Positions) -> String {
        let mut text = String::from("event: batch\ndata: [");
        for (index, event) in events.iter().enumerate() {
            self.advance(positions, event);
            if index > 0 {
                text.push(',');
            }
            let id = encode::cursor_text(self.epoch, positions);
            encode::push_batch_item(&mut text, &id, event);
        }
        text.push_str("]\n");
        encode::push_id_line(&mut text, self.epoch, positions);
        text
    }
}
