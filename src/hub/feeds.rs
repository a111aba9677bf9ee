//! Feeds: streams whose topics follow from whom their user follows.

use std::time::Duration;

use actix::Addr;
use actix_web::{HttpRequest, HttpResponse};

use super::{Hub, Shared};
use crate::{
    actors::{
        connection::{NewStream, PipeReader},
        topic_manager::{ExpectFeed, ForgetFeed, TopicManager},
    },
    domain::topic::Topic,
    error::SubscribeError,
    follow::{GraphError, User},
    http,
    subscription::{FeedOf, Subscription},
};

/// Followed authors that are read at once.
const PAGE: usize = 1000;

/// Before a feed that could not be read again is tried once more.
const REREAD_PAUSE: Duration = Duration::from_millis(500);

impl Hub {
    /// Opens a user's feed as the answer to a request: the user's own notifications, and the
    /// posts of the authors that the user follows. It changes when they do. Options come
    /// from the request, as with [`Self::stream`].
    pub async fn feed(&self, request: &HttpRequest, user: &str) -> HttpResponse {
        http::feed::of(self, request, user).await
    }

    /// Opens a feed on this worker.
    pub(crate) async fn open_feed(
        &self,
        user: User,
        subscription: Subscription,
    ) -> Result<PipeReader, SubscribeError> {
        self.begin_feed(user, subscription).await.map(NewStream::spawn)
    }

    /// Opens a feed on this worker, whose connection the transport is to run.
    pub(crate) async fn begin_feed(
        &self,
        user: User,
        subscription: Subscription,
    ) -> Result<NewStream, SubscribeError> {
        let shared = self.shared();
        shared.check_open()?;
        let manager = shared.worker().manager.clone();
        // From here on what changes is kept for the stream: so it does not matter when what
        // follows is read.
        let expected = Expected::of(shared, manager, user.clone()).await?;
        let (topics, muted) = shared.read_feed(&user).await?;
        let topics = topics.iter().map(|topic| topic.as_str().to_owned());
        let mut subscription = subscription.topics(topics);
        subscription.muted = Some(muted.into());
        subscription.feed = Some(expected.feed());
        let stream = self.begin(subscription)?;
        expected.has_come();
        Ok(stream)
    }
}

impl Shared {
    /// What a user's feed has: its topics, and the kinds that are muted.
    pub async fn read_feed(
        &self,
        user: &User,
    ) -> Result<(Vec<Topic>, Vec<String>), SubscribeError> {
        let authors = self.followed(user).await?;
        let muted = self.preferences.muted(user.clone()).await?;
        let topics = [user.notifications()].into_iter().chain(authors.iter().map(User::posts));
        Ok((topics.collect(), muted))
    }

    /// The same, tried until it can be had; none if the feed has become one that cannot be.
    pub async fn reread_feed(&self, user: &User) -> Option<(Vec<Topic>, Vec<String>)> {
        loop {
            match self.read_feed(user).await {
                Ok(feed) => return Some(feed),
                Err(SubscribeError::BridgeDown | SubscribeError::GraphDown) => {
                    tokio::time::sleep(REREAD_PAUSE).await;
                }
                Err(_) => return None,
            }
        }
    }

    /// Whom a user follows: as many as a stream may have topics.
    async fn followed(&self, user: &User) -> Result<Vec<User>, SubscribeError> {
        let max_count = self.config.hub.max_topics_per_stream;
        let mut authors = Vec::new();
        let mut after = None;
        loop {
            let page = self.graph.following(user.clone(), after, PAGE).await?;
            authors.extend(page.users);
            if authors.len() >= max_count {
                return Err(SubscribeError::TooManyTopics { max_count });
            }
            after = page.next;
            if after.is_none() {
                return Ok(authors);
            }
        }
    }
}

impl From<GraphError> for SubscribeError {
    fn from(error: GraphError) -> Self {
        match error {
            GraphError::BridgeDown | GraphError::Unconfirmed => Self::BridgeDown,
            GraphError::Unavailable(_) | GraphError::BadPage => Self::GraphDown,
        }
    }
}

/// A stream that its manager expects; if it does not come, the manager is told.
struct Expected {
    manager: Addr<TopicManager>,
    feed: Option<FeedOf>,
}

impl Expected {
    async fn of(
        shared: &Shared,
        manager: Addr<TopicManager>,
        user: User,
    ) -> Result<Self, SubscribeError> {
        let _place = shared.asks.acquire().await;
        let feed = manager.send(ExpectFeed(user)).await;
        let feed = feed.map_err(|_| SubscribeError::Draining)?;
        Ok(Self { manager, feed: Some(feed) })
    }

    fn feed(&self) -> FeedOf {
        self.feed.clone().expect("it is taken at the end only")
    }

    fn has_come(mut self) {
        self.feed = None;
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        if let Some(feed) = self.feed.take() {
            // One for each that was expected.
            self.manager.do_send(ForgetFeed(feed));
        }
    }
}
