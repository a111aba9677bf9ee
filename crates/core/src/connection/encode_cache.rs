//! The encode cache: the last ordering and the last encoding for a stream of the worker. Streams
//! with the same topics get the same events in a turn, so the next stream reuses both.

use std::{rc::Rc, sync::Arc};

use bytes::Bytes;

use crate::{
    connection::{
        order::{in_order, same_key_before, unsent},
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
    /// See [`same_key_before`].
    same_key_before: Box<[u64]>,
    /// The unsent part of the events for streams at these positions.
    unsent: Option<(Positions, Rc<Events>)>,
}

impl Ordered {
    fn new(frames: &[Arc<Frame>]) -> Self {
        let events = frames.iter().flat_map(|frame| &*frame.events).cloned().collect();
        let events: Rc<Events> = in_order(events).into();
        let same_key_before = same_key_before(&events);
        Self { frames: frames.into(), events, same_key_before, unsent: None }
    }
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
    /// The events of these frames, each partition's in sequence order. A merged event counts only
    /// the events a stream at the positions `before` lacks.
    pub fn ordered(&mut self, frames: &[Arc<Frame>], before: &Positions) -> Rc<Events> {
        let last = self.ordered.take_if(|last| is_same(&last.frames, frames));
        let last = self.ordered.insert(last.unwrap_or_else(|| Ordered::new(frames)));
        if last.same_key_before.is_empty() {
            return last.events.clone();
        }
        let known = last.unsent.take_if(|(positions, _)| positions == before);
        let (_, events) = last.unsent.insert(known.unwrap_or_else(|| {
            (before.clone(), unsent(&last.events, &last.same_key_before, before).into())
        }));
        events.clone()
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
