//! Feeds: streams with topics from the follow graph.

use std::sync::Arc;

use actix::Addr;
use fanfare_core::{
    access::Grant,
    error::SubscribeError,
    subscription::{FeedOf, ResolvedSubscription, StreamOptions},
    user::User,
};

use super::{Hub, HubParts};
use crate::{
    actors::{
        connection::{NewStream, PipeReader},
        topic_manager::{ExpectFeed, ForgetFeed, TopicManager},
    },
    addresses::{OfStream, Share},
};

impl Hub {
    /// Creates a feed on this worker and spawns its connection.
    pub(crate) async fn spawn_feed(
        &self,
        user: User,
        options: StreamOptions,
        share: Option<Share<OfStream>>,
        grant: &Arc<Grant>,
    ) -> Result<PipeReader, SubscribeError> {
        self.create_feed(user, options, share, grant).await.map(NewStream::start)
    }

    /// Creates a feed on this worker. The transport runs its connection.
    pub(crate) async fn create_feed(
        &self,
        user: User,
        options: StreamOptions,
        share: Option<Share<OfStream>>,
        grant: &Arc<Grant>,
    ) -> Result<NewStream, SubscribeError> {
        // Before the graph is read for nothing.
        grant.require(grant.is_of(&user))?;
        let parts = self.parts();
        parts.check_open()?;
        let manager = parts.worker().manager.clone();
        // Announce the feed before reading the graph: the manager then keeps changes for it. In the
        // other order, a change between the read and the opening would be lost.
        let expected = ExpectedStream::of(parts, manager, user.clone()).await?;
        let (topics, muted) = parts.follows.feeds.read(&user).await?;
        let limits = parts.config.hub.stream_limits();
        let (feed, secret) = (expected.feed(), rand::random());
        let mut resolved =
            ResolvedSubscription::feed(feed, topics, muted, options, limits, secret, grant)?;
        resolved.allow_clock_margin(parts.time_margin());
        let stream = parts.create(resolved, share, Some(&user))?;
        // From here the stream's own messages reach the manager; a drop must not cancel it.
        expected.has_come();
        Ok(stream)
    }
}

/// A stream expected by its manager. Dropping this before the stream comes cancels it there, also
/// after an error or a client's disconnect.
struct ExpectedStream {
    manager: Addr<TopicManager>,
    feed: Option<FeedOf>,
}

impl ExpectedStream {
    async fn of(
        parts: &HubParts,
        manager: Addr<TopicManager>,
        user: User,
    ) -> Result<Self, SubscribeError> {
        let _permit = parts.instances.asks.acquire().await;
        let feed = manager.send(ExpectFeed(user)).await;
        let feed = feed.map_err(|_| SubscribeError::Draining)?;
        Ok(Self { manager, feed: Some(feed) })
    }

    fn feed(&self) -> FeedOf {
        self.feed.clone().expect("only `has_come` and `drop` take it")
    }

    fn has_come(mut self) {
        self.feed = None;
    }
}

impl Drop for ExpectedStream {
    fn drop(&mut self) {
        if let Some(feed) = self.feed.take() {
            // At most one per expected stream, so it may pass the mailbox's bound.
            self.manager.do_send(ForgetFeed(feed));
        }
    }
}
