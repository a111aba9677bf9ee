//! Follower fan-out, as applications ask for it.

use fanfare_core::{
    error::{FanOutError, PublishError},
    event::Event,
    user::User,
};
use tokio::sync::oneshot;

use super::Hub;
use crate::fan_out::{FanOutMode, FanOutReport, FanOutToFollowers};

impl Hub {
    /// Brings an event to an author's followers. The fan-out goes on if the caller stops
    /// waiting.
    ///
    /// A fan-out of an event with an id may be repeated within the idempotency window: no
    /// follower gets the event twice, and the followers without it get it.
    ///
    /// # Errors
    /// See [`FanOutError`].
    pub async fn fan_out(
        &self,
        author: impl AsRef<str>,
        event: Event,
        mode: FanOutMode,
    ) -> Result<FanOutReport, FanOutError> {
        let author = User::parse(author.as_ref())?;
        let parts = self.parts();
        parts.publisher.validate(&event)?;
        let permit = parts.fan_outs.clone().try_acquire_owned();
        let permit = permit.map_err(|_| PublishError::AtCapacity)?;
        let (answer, answered) = oneshot::channel();
        // Bounded by the permits.
        parts.router.do_send(FanOutToFollowers { author, event, mode, permit, answer });
        let stopped = |_| Err(FanOutError::Partly(Box::new(PublishError::Draining.into())));
        answered.await.unwrap_or_else(stopped)
    }
}
