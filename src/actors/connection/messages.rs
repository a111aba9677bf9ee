//! The messages of a connection.

use std::{sync::Arc, time::Duration};

use actix::Message;
use fanfare_core::{
    cluster::StreamInfo,
    sse::ShutdownReason,
    subscription::ResolvedSubscription,
    topic_manager::{ChangeStep, Frames, Opening, Page},
};
use tokio::sync::oneshot;

/// A message in a mailbox. The usual ones are stored in place.
pub(crate) enum Mail {
    Opened(Box<OpenedStream>),
    Page(Box<ReplayPage>),
    Frames(DeliverFrames),
    Change(Box<ChangeTopics>),
    Renewal(TellRenewal),
    /// Describe the stream.
    Describe(oneshot::Sender<StreamInfo>),
    Heartbeat(BeatHeart),
    End(Box<EndStream>),
    #[cfg(test)]
    Panic(Panic),
}

/// All partitions have attached the stream: begin with their replays.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct OpenedStream(pub Opening);

/// Send the next page of the replay of one partition.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ReplayPage(pub Page);

/// Send these frames: all of one turn, in order.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct DeliverFrames(pub Frames);

/// Take a step of a live change: use this subscription for all later frames.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ChangeTopics {
    pub subscription: Arc<ResolvedSubscription>,
    pub step: ChangeStep,
}

/// Tell the client the remaining time of its token.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct TellRenewal(pub Duration);

/// Send a heartbeat: nothing was delivered for `stream.heartbeat`.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct BeatHeart;

/// End the stream, with `shutdown`.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct EndStream {
    pub reason: ShutdownReason,
    /// The client's waiting time before its reconnect; `None` means the stream's own retry time.
    pub reconnect: Option<Duration>,
    /// Frames to send before the end.
    pub frames: Frames,
}

/// Panics like a bug, to show that only this stream ends.
#[cfg(test)]
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Panic;
