//! The hub's method for follower fan-out.

use fanfare_core::{
    error::{FanOutError as Failed, PublishError as Refused},
    event::Event,
    user::User,
};
use tokio::sync::oneshot;

use super::Hub;
use crate::{
    error::{FanOutError, PublishError},
    fan_out::{FanOutMode, FanOutReport, FanOutToFollowers},
};

impl Hub {
    /// Delivers an event to all followers of an author. Resolves once every follower's event is in
    /// history. The fan-out continues if the caller drops the future.
    ///
    /// A fan-out of an event with an id may be repeated within `publish.idempotency_window`: each
    /// follower gets the event once, followers missed by the first try included. The mode of the
    /// first try applies.
    ///
    /// # Errors
    /// See [`FanOutError`]. With `fanout.max_pending` fan-outs running or waiting, it fails at once
    /// with [`PublishError::AtCapacity`].
    pub async fn fan_out(
        &self,
        author: impl AsRef<str>,
        event: Event,
        mode: FanOutMode,
    ) -> Result<FanOutReport, FanOutError> {
        let author = User::parse(author.as_ref())?;
        let parts = self.parts();
        parts.publisher.validate(&event).map_err(PublishError::from)?;
        let permit = parts.fan_outs.clone().try_acquire_owned();
        let permit = permit.map_err(|_| PublishError::AtCapacity)?;
        let (answer, answered) = oneshot::channel();
        // `fanout.max_pending` permits bound the router's mailbox.
        parts.router.do_send(FanOutToFollowers { author, event, mode, permit, answer });
        let stopped = |_| Err(Failed::Partly(Box::new(Refused::Draining.into())));
        Ok(answered.await.unwrap_or_else(stopped)?)
    }
}
