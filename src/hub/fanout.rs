//! Follower fan-out, as applications and the router ask for it.

use serde::{Deserialize, Serialize};
use tokio::{sync::oneshot, time::timeout};

use super::{Hub, Shared};
use crate::{
    actors::{fanout::FanOutToFollowers, partition::Place},
    domain::{event::Event, topic::Topic},
    error::{FanOutError, PublishError},
    follow::User,
};

/// How an event reaches an author's followers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FanOutMode {
    /// It is published to each follower's topic `notifications:<user>`.
    Push,
    /// It is published once to `posts:<author>`, which the followers' feeds listen to.
    Pull,
    /// Push for up to `fanout.pull_above` followers, pull for more.
    #[default]
    Auto,
}

/// Whom a fan-out has reached: `followers` are those online, those who have muted the kind,
/// and the rest, who find it when they come back. What could not be counted of a pull is
/// left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct FanOutReport {
    /// Push or pull.
    pub mode: FanOutMode,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub followers: Option<u64>,
    /// Followers with an open stream of their own notifications, or if they pull of their
    /// feed, on any instance; those aside who have muted the kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub online: Option<u64>,
    /// Followers who have muted the kind; if they pull, of those with an open feed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub muted: Option<u64>,
}

impl Hub {
    /// Brings an event to an author's followers. It goes on if the caller stops waiting.
    ///
    /// With an id on the event it may be repeated within the idempotency window: nobody gets
    /// it twice, and whoever has not got it does.
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
        let shared = self.shared().clone();
        event.validate(shared.config.publish.max_payload).map_err(PublishError::from)?;
        let place = shared.fan_outs.clone().try_acquire_owned();
        let place = place.map_err(|_| PublishError::AtCapacity)?;
        let (answer, answered) = oneshot::channel();
        let router = shared.router.clone();
        // Bounded by the places.
        router.do_send(FanOutToFollowers { shared, author, event, mode, place, answer });
        let stopped = |_| Err(FanOutError::Partly(Box::new(PublishError::Draining.into())));
        answered.await.unwrap_or_else(stopped)
    }
}

impl Shared {
    /// Which mode it is. A fan-out that is repeated by its id keeps the mode that it had.
    pub async fn settle_mode(
        &self,
        author: &User,
        event: &Event,
        mode: FanOutMode,
    ) -> Result<FanOutMode, FanOutError> {
        let mode = match mode {
            FanOutMode::Auto => {
                let counts = self.graph.counts(author.clone()).await?;
                let is_many = counts.followers > self.config.fanout.pull_above as u64;
                if is_many { FanOutMode::Pull } else { FanOutMode::Push }
            }
            mode => mode,
        };
        let Some(id) = &event.id else { return Ok(mode) };
        let is_pull = mode == FanOutMode::Pull;
        let was_pull = self.bridge.settle(author.posts(), format!("{author} {id}"), is_pull).await;
        Ok(if was_pull? { FanOutMode::Pull } else { FanOutMode::Push })
    }

    /// Publishes as a hub does.
    pub async fn publish(&self, topic: &Topic, event: Event) -> Result<(), PublishError> {
        let publish = self.check(topic.as_str(), event)?;
        let answers = self.enqueue(vec![vec![publish]]).await.await;
        answers.into_iter().flatten().try_for_each(|answer| answer.map(drop))
    }

    /// Waits for places in a partition, for the events of a chunk; only what may be refused
    /// waits no longer than a publish.
    pub async fn fan_out_places(
        &self,
        partition: u16,
        count: usize,
        may_refuse: bool,
    ) -> Result<Place, PublishError> {
        let places = self.partitions[usize::from(partition)].places.clone();
        let count = count.min(self.config.publish.max_pending) as u32;
        let place = places.acquire_many_owned(count);
        let place = match may_refuse {
            true => {
                let place = timeout(self.config.publish.max_wait, place).await;
                place.map_err(|_| PublishError::AtCapacity)?
            }
            false => place.await,
        };
        Ok(Place::new(place.map_err(|_| PublishError::Draining)?))
    }
}
