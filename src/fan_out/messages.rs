//! The router's messages.

use actix::Message;
use fanfare_core::{error::FanOutError, event::Event, user::User};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{FanOutMode, FanOutReport};

/// Deliver an event to an author's followers.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct FanOutToFollowers {
    pub author: User,
    pub event: Event,
    pub mode: FanOutMode,
    /// One of the `fanout.max_pending` permits, returned at the end of the fan-out.
    pub permit: OwnedSemaphorePermit,
    pub answer: oneshot::Sender<Result<FanOutReport, FanOutError>>,
}
