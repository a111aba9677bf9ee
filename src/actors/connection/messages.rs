//! What a connection is told.

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

/// All that the stream gets in one turn.
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
    /// What is still to be sent before.
    pub frames: Frames,
}

/// The client is gone.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct CloseTransport;

/// Panics, as a bug would, to show that only this stream ends.
#[cfg(test)]
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Panic;
