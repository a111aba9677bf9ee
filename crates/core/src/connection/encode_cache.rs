//! The encode cache: the last ordering and the last encoding for a stream of the worker. Streams
//! with the same topics get the same events in a turn, so the next stream reuses both.

use std::{rc::Rc, sync::Arc};

use bytes::Bytes;

use crate::{
    connection::{
        order::in_order,
        view::{View, ViewKey},
    },
    cursor::Positions,
    event::SequencedEvent,
    topic_manager::Frame,
};

type Events = [Arc<SequencedEvent>];

#[derive(Debug)]
struct Ordered {
    frames: Box<[Arc<Frame>]>,
    events: Rc<Events>,
}

#[derive(Debug)]
struct Encoded {
    events: Box<Events>,
    key: ViewKey,
    before: Positions,
    bytes: Bytes,
}

/// One ordering and one encoding, until the next ones replace them. Streams with the same
/// events usually run one after another, so one entry suffices.
#[derive(Debug, Default)]
pub(super) struct EncodeCache {
    ordered: Option<Ordered>,
    encoded: Option<Encoded>,
}

impl EncodeCache {
    /// The events of these frames, each partition's in sequence order.
    pub fn ordered(&mut self, frames: &[Arc<Frame>]) -> Rc<Events> {
        if let Some(last) = self.ordered.as_ref().filter(|last| is_same(&last.frames, frames)) {
            return last.events.clone();
        }
        let events = frames.iter().flat_map(|frame| &*frame.events).cloned().collect();
        let events: Rc<Events> = in_order(events).into();
        self.ordered = Some(Ordered { frames: frames.into(), events: events.clone() });
        events
    }

    /// The events encoded in a view, for a stream at the positions `before`. A hit needs all three
    /// equal: the ids in the bytes depend on the positions.
    pub fn encoded(&mut self, events: Box<Events>, view: &View<'_>, before: &Positions) -> Bytes {
        let found = self.encoded.as_ref().filter(|last| {
            is_same(&last.events, &events) && last.before == *before && last.key.is_of(view)
        });
        if let Some(found) = found {
            return found.bytes.clone();
        }
        let bytes = view.encode(&events, before.clone());
        let (key, before) = (ViewKey::of(view), before.clone());
        self.encoded = Some(Encoded { events, key, before, bytes: bytes.clone() });
        bytes
    }
}

fn is_same<T>(some: &[Arc<T>], others: &[Arc<T>]) -> bool {
    some.len() == others.len()
        && some.iter().zip(others).all(|(one, other)| Arc::ptr_eq(one, other))
}
