//! Reads a user's feed from the follow graph and the preferences.

use std::{sync::Arc, time::Duration};

use fanfare_core::{error::SubscribeError, topic::Topic};

use super::{FollowGraph, Preferences, User};

/// Followed authors in one page of a read.
const PAGE: usize = 1000;

/// Pause before the retry of a failed read.
const REREAD_PAUSE: Duration = Duration::from_millis(500);

/// The stores behind feeds.
pub(crate) struct FeedReader {
    pub graph: Arc<dyn FollowGraph>,
    pub preferences: Arc<dyn Preferences>,
    /// Limit for the topics of one stream.
    pub max_topics: usize,
}

impl FeedReader {
    /// Reads the topics of a user's feed, and the user's muted kinds.
    ///
    /// # Errors
    /// A store is unavailable, or the feed has too many topics.
    pub async fn read(&self, user: &User) -> Result<(Vec<Topic>, Vec<String>), SubscribeError> {
        let authors = self.followed(user).await?;
        let mut muted = self.preferences.muted(user.clone()).await?;
        // An application's store may keep any order; streams search the list.
        muted.sort_unstable();
        let topics = [user.notifications()].into_iter().chain(authors.iter().map(User::posts));
        Ok((topics.collect(), muted))
    }

    /// Retries until the stores are available, without a time limit. `None` if the feed has become
    /// invalid.
    pub async fn reread(&self, user: &User) -> Option<(Vec<Topic>, Vec<String>)> {
        loop {
            match self.read(user).await {
                Ok(feed) => return Some(feed),
                Err(SubscribeError::BridgeDown | SubscribeError::GraphDown) => {
                    tokio::time::sleep(REREAD_PAUSE).await;
                }
                Err(_) => return None,
            }
        }
    }

    async fn followed(&self, user: &User) -> Result<Vec<User>, SubscribeError> {
        let max_count = self.max_topics;
        let mut authors = Vec::new();
        let mut after = None;
        loop {
            let page = self.graph.following(user.clone(), after, PAGE).await?;
            authors.extend(page.users);
            // Checked per page, so a user following millions costs one page above the limit. The
            // own notifications are a topic too, so the limit itself is already too many.
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
