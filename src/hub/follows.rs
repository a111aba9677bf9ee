//! Who follows whom, and what users have muted, as applications and endpoints ask for it.

use std::collections::BTreeMap;

use futures_util::future::join_all;

use super::Hub;
use crate::{
    bridge::StreamChange,
    domain::event::check_field,
    error::FollowError,
    follow::{Counts, Follow, Page, User},
};

/// Kinds that a user may mute: each costs something at every event of its kind.
pub(crate) const MAX_MUTED_KINDS: usize = 64;

impl Hub {
    /// Has a user follow an author; whether that is new.
    ///
    /// # Errors
    /// See [`FollowError`]. It may be called again: an edge is there once.
    pub async fn follow(
        &self,
        follower: impl AsRef<str>,
        author: impl AsRef<str>,
    ) -> Result<bool, FollowError> {
        let edge = Follow::parse(follower.as_ref(), author.as_ref())?;
        Ok(self.follow_all(vec![edge]).await? > 0)
    }

    /// Ends that a user follows an author; whether it did.
    ///
    /// # Errors
    /// See [`FollowError`]. It may be called again.
    pub async fn unfollow(
        &self,
        follower: impl AsRef<str>,
        author: impl AsRef<str>,
    ) -> Result<bool, FollowError> {
        let edge = Follow::parse(follower.as_ref(), author.as_ref())?;
        let count = self.shared().graph.unfollow(vec![edge.clone()]).await?;
        self.change_feeds(&[edge], FeedChange::Unfollow).await?;
        Ok(count > 0)
    }

    /// Adds many edges; how many of them are new. Some thousands at a time are fastest.
    ///
    /// # Errors
    /// See [`FollowError`]; some of the edges may be there then. It may be called again.
    pub async fn follow_all(&self, edges: Vec<Follow>) -> Result<u64, FollowError> {
        let count = self.shared().graph.follow(edges.clone()).await?;
        self.change_feeds(&edges, FeedChange::Follow).await?;
        Ok(count)
    }

    /// A page of an author's followers, of at most `limit` (at least 1). `after` is what the
    /// page before named as `next`.
    ///
    /// # Errors
    /// See [`FollowError`].
    pub async fn followers(
        &self,
        author: impl AsRef<str>,
        after: Option<String>,
        limit: usize,
    ) -> Result<Page, FollowError> {
        let author = User::parse(author.as_ref())?;
        Ok(self.shared().graph.followers(author, after, limit.max(1)).await?)
    }

    /// A page of the authors that a user follows, as [`Self::followers`].
    ///
    /// # Errors
    /// See [`FollowError`].
    pub async fn following(
        &self,
        user: impl AsRef<str>,
        after: Option<String>,
        limit: usize,
    ) -> Result<Page, FollowError> {
        let user = User::parse(user.as_ref())?;
        Ok(self.shared().graph.following(user, after, limit.max(1)).await?)
    }

    /// How many follow a user, and how many the user follows.
    ///
    /// # Errors
    /// See [`FollowError`].
    pub async fn follow_counts(&self, user: impl AsRef<str>) -> Result<Counts, FollowError> {
        Ok(self.shared().graph.counts(User::parse(user.as_ref())?).await?)
    }

    /// Mutes these kinds of events (their types; `message` is an event without one) for a
    /// user, and no others: at most 64, in any order.
    ///
    /// # Errors
    /// See [`FollowError`]. It may be called again.
    pub async fn set_muted(
        &self,
        user: impl AsRef<str>,
        kinds: Vec<String>,
    ) -> Result<(), FollowError> {
        let user = User::parse(user.as_ref())?;
        let is_kind = |kind: &String| check_field("type", kind).is_ok();
        if kinds.len() > MAX_MUTED_KINDS || !kinds.iter().all(is_kind) {
            return Err(FollowError::Preferences { max_count: MAX_MUTED_KINDS });
        }
        let (mut kinds, shared) = (kinds, self.shared());
        kinds.sort_unstable();
        kinds.dedup();
        shared.preferences.set_muted(user.clone(), kinds.clone()).await?;
        let partition = user.notifications().partition(shared.config.hub.partitions);
        let user = Some(user.as_str().to_owned());
        let change = StreamChange { user, muted: Some(kinds), ..StreamChange::default() };
        shared.change_everywhere(partition, vec![change]).await?;
        Ok(())
    }

    /// The kinds that a user has muted, sorted.
    ///
    /// # Errors
    /// See [`FollowError`].
    pub async fn muted(&self, user: impl AsRef<str>) -> Result<Vec<String>, FollowError> {
        Ok(self.shared().preferences.muted(User::parse(user.as_ref())?).await?)
    }

    /// Changes the open feeds of followers: when this returns, whatever an author that is
    /// followed publishes from now on reaches them.
    async fn change_feeds(&self, edges: &[Follow], change: FeedChange) -> Result<(), FollowError> {
        let shared = self.shared();
        let mut by_partition: BTreeMap<u16, Vec<StreamChange>> = BTreeMap::new();
        for edge in edges {
            let posts = edge.author.posts();
            let partition = posts.partition(shared.config.hub.partitions);
            let topics = vec![posts.as_str().to_owned()];
            let user = Some(edge.follower.as_str().to_owned());
            by_partition.entry(partition).or_default().push(match change {
                FeedChange::Follow => StreamChange { user, add: topics, ..StreamChange::default() },
                FeedChange::Unfollow => {
                    StreamChange { user, remove: topics, ..StreamChange::default() }
                }
            });
        }
        let all = by_partition.into_iter();
        let all = all.map(|(partition, changes)| shared.change_everywhere(partition, changes));
        for changed in join_all(all).await {
            // A feed that would have too many topics goes on with those that it has.
            changed?;
        }
        Ok(())
    }
}

/// What becomes of an edge.
#[derive(Clone, Copy)]
enum FeedChange {
    Follow,
    Unfollow,
}
