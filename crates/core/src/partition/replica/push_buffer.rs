//! A bounded buffer for pushes.

use crate::{cursor::Epoch, log::LogEvent};

/// Approximate bound on buffered bytes. Beyond it the replica drops pushes and reads their events
/// later.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// Approximate memory of an event, without its data and its topic's name.
const BOOKKEEPING_BYTES: usize = 300;

/// Pushes in the order of arrival.
#[derive(Debug, Default)]
pub(super) struct PushBuffer {
    events: Vec<LogEvent>,
    bytes: usize,
}

impl PushBuffer {
    pub fn push(&mut self, event: LogEvent) {
        let text_bytes = event.body.lines.len() + event.topic.as_str().len();
        self.bytes += text_bytes + BOOKKEEPING_BYTES;
        self.events.push(event);
    }

    /// Changes the epochs of the events.
    pub fn rename(&mut self, name: impl Fn(Epoch) -> Epoch) {
        self.events.iter_mut().for_each(|event| event.epoch = name(event.epoch));
    }

    /// Takes all events and empties the buffer.
    pub fn take(&mut self) -> Vec<LogEvent> {
        self.bytes = 0;
        std::mem::take(&mut self.events)
    }

    /// Whether the buffered bytes exceed the bound. `push` itself never refuses.
    pub fn is_over_full(&self) -> bool {
        self.bytes > MAX_BYTES
    }
}

impl Extend<LogEvent> for PushBuffer {
    fn extend<I: IntoIterator<Item = LogEvent>>(&mut self, events: I) {
        events.into_iter().for_each(|event| self.push(event));
    }
}
