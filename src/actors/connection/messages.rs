//! The messages of a connection.

use std::{sync::Arc, time::Duration};

use actix::Message;
use fanfare_core::{
    sse::ShutdownReason,
    subscription::ResolvedSubscription,
    topic_manager::{Begin, Frames, Opening},
};

/// All partitions have attached the stream: it begins.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct OpenedStream(pub Opening);

/// All frames for the stream in one turn.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct DeliverFrames(pub Frames);

/// The stream wants something else from now on, and may stand in one more partition.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ChangeTopics {
    pub subscription: Arc<ResolvedSubscription>,
    pub begin: Option<Begin>,
}

/// Nothing was delivered for the heartbeat's time.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct BeatHeart;

/// End the stream, with `shutdown`.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct EndStream {
    pub reason: ShutdownReason,
    /// When the client should come back; the stream's own retry time if none is given.
    pub reconnect: Option<Duration>,
    /// Frames to send before the end.
    pub frames: Frames,
}

/// The client is gone.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct CloseTransport;

/// Panics like a bug, to show that only this stream ends.
#[cfg(test)]
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Panic;
