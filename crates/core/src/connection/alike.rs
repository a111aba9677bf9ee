//! What many streams of a worker do alike: those on the same topics get the same events in a
//! turn, stand at the same place, and would put the events in order and encode them each for
//! itself. The first of them does it; the others find what came of it. One turn's order and
//! one piece are kept, until others take their place.

use std::{cell::RefCell, rc::Rc, sync::Arc};

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

struct Ordered {
    frames: Box<[Arc<Frame>]>,
    events: Rc<Events>,
}

struct Encoded {
    events: Box<Events>,
    key: ViewKey,
    before: Positions,
    bytes: Bytes,
}

thread_local! {
    static ORDERED: RefCell<Option<Ordered>> = const { RefCell::new(None) };
    static ENCODED: RefCell<Option<Encoded>> = const { RefCell::new(None) };
}

/// The frames' events, each partition's in sequence order.
pub(super) fn ordered(frames: &[Arc<Frame>]) -> Rc<Events> {
    ORDERED.with_borrow_mut(|last| {
        if let Some(last) = last.as_ref().filter(|last| is_same(&last.frames, frames)) {
            return last.events.clone();
        }
        let events = frames.iter().flat_map(|frame| &*frame.events).cloned().collect();
        let events: Rc<Events> = in_order(events).into();
        *last = Some(Ordered { frames: frames.into(), events: events.clone() });
        events
    })
}

/// The events as the view shows them to a stream that stands at `before`.
pub(super) fn encoded(events: Box<Events>, view: &View<'_>, before: &Positions) -> Bytes {
    ENCODED.with_borrow_mut(|last| {
        let found = last.as_ref().filter(|last| {
            is_same(&last.events, &events) && last.before == *before && last.key.is_of(view)
        });
        if let Some(found) = found {
            return found.bytes.clone();
        }
        let bytes = view.encode(&events, before.clone());
        let (key, before, bytes_again) = (ViewKey::of(view), before.clone(), bytes.clone());
        *last = Some(Encoded { events, key, before, bytes });
        bytes_again
    })
}

fn is_same<T>(some: &[Arc<T>], others: &[Arc<T>]) -> bool {
    some.len() == others.len()
        && some.iter().zip(others).all(|(one, other)| Arc::ptr_eq(one, other))
}
