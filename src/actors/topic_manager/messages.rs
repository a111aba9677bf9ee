//! What a topic manager is told. What it tells connections is theirs (`connection`).

use std::sync::Arc;

use actix::{Addr, Message};

use crate::{
    actors::{StreamId, connection::Connection},
    subscription::Wanted,
};

/// A stream has opened and waits to be attached.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct OpenStream {
    pub stream: StreamId,
    pub connection: Addr<Connection>,
    pub wanted: Arc<Wanted>,
}

/// A stream is gone.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct CloseStream {
    pub stream: StreamId,
}

/// Send what is pending, then end every stream, each to return at a moment of its own
/// within the window.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Drain {
    pub window: std::time::Duration,
}

/// Panics, as a bug would, to show that the manager is rebuilt.
#[cfg(test)]
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Panic;
