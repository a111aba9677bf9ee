//! What the router is told.

use std::sync::Arc;

use actix::Message;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::{
    domain::event::Event,
    error::FanOutError,
    follow::User,
    hub::{FanOutMode, FanOutReport, Shared},
};

/// Bring an event to an author's followers.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct FanOutToFollowers {
    pub shared: Arc<Shared>,
    pub author: User,
    pub event: Event,
    pub mode: FanOutMode,
    /// One of `fanout.max_pending`, given back when it is done.
    pub place: OwnedSemaphorePermit,
    pub answer: oneshot::Sender<Result<FanOutReport, FanOutError>>,
}
