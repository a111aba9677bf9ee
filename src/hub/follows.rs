//! The hub's methods for following and muting. A change is stored first, and then applied to the
//! open feeds of all instances.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use fanfare_core::{
    access::MayOperate, cluster::StreamChange, error::ChangeError as ChangeRefused,
    event::check_field,
};
use futures_util::future::join_all;
use tokio::sync::MutexGuard;

use super::Hub;
use crate::{
    error::{ChangeError, FollowError},
    follow::{Counts, FeedReader, Follow, Page, User},
    instances::Instances,
};

/// Kinds muted by one user. Each costs time at every event of its kind.
pub(crate) const MAX_MUTED_KINDS: usize = 64;

/// Edges stored and announced together.
const MAX_EDGES: usize = 1024;

impl Hub {
    /// Adds an edge: `follower` follows `author`. Returns whether the edge is new. Resolves once
    /// the edge is stored and in force in the follower's open feeds on every instance. The change
    /// completes also if the caller drops the future.
    ///
    /// # Errors
    /// See [`FollowError`]. Repeating it is safe.
    pub async fn follow(
        &self,
        follower: impl AsRef<str>,
        author: impl AsRef<str>,
    ) -> Result<bool, FollowError> {
        let edge = Follow::parse(follower.as_ref(), author.as_ref())?;
        Ok(self.follow_all(vec![edge]).await? > 0)
    }

    /// Removes an edge. Returns whether it existed. Resolves as [`Self::follow`].
    ///
    /// # Errors
    /// See [`FollowError`]. Repeating it is safe.
    pub async fn unfollow(
        &self,
        follower: impl AsRef<str>,
        author: impl AsRef<str>,
    ) -> Result<bool, FollowError> {
        let edge = Follow::parse(follower.as_ref(), author.as_ref())?;
        let follows = self.parts().follows.clone();
        let unfollowed = to_the_end(async move {
            let edges = vec![edge];
            let _turns = follows.turns(edges.iter().map(|edge| &edge.follower)).await;
            let count = follows.feeds.graph.unfollow(edges.clone()).await?;
            follows.change_feeds(&edges, FeedChange::Unfollow).await?;
            Ok(count > 0)
        });
        unfollowed.await
    }

    /// Adds edges of any number and order. Returns the number of new edges. Resolves as
    /// [`Self::follow`]. Some thousands per call are fastest.
    ///
    /// # Errors
    /// See [`FollowError`]. After an error, some of the edges may be stored. Repeating it is safe.
    pub async fn follow_all(&self, edges: Vec<Follow>) -> Result<u64, FollowError> {
        let follows = self.parts().follows.clone();
        let followed = to_the_end(async move {
            let mut count = 0;
            for edges in edges.chunks(MAX_EDGES) {
                let _turns = follows.turns(edges.iter().map(|edge| &edge.follower)).await;
                count += follows.feeds.graph.follow(edges.to_vec()).await?;
                follows.change_feeds(edges, FeedChange::Follow).await?;
            }
            Ok(count)
        });
        followed.await
    }

    /// A page of an author's followers: at most `limit` users, at least 1. `after` is the `next` of
    /// the previous page, or `None` for the first page. The order is the graph's own.
    ///
    /// # Errors
    /// See [`FollowError`].
    pub async fn followers(
        &self,
        author: impl AsRef<str>,
        after: Option<String>,
        limit: usize,
    ) -> Result<Page, FollowError> {
        let operator = MayOperate::of_application();
        self.parts().follows.followers(author.as_ref(), after, limit, operator).await
    }

    /// A page of the authors followed by a user. Arguments as in [`Self::followers`].
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
        Ok(self.parts().follows.feeds.graph.following(user, after, limit.max(1)).await?)
    }

    /// The number of a user's followers, and the number of authors followed by the user.
    ///
    /// # Errors
    /// See [`FollowError`].
    pub async fn follow_counts(&self, user: impl AsRef<str>) -> Result<Counts, FollowError> {
        Ok(self.parts().follows.feeds.graph.counts(User::parse(user.as_ref())?).await?)
    }

    /// Replaces a user's muted kinds. A kind is an event type; `message` stands for events without
    /// one. At most 64 kinds, in any order; duplicates are ignored. Resolves once the kinds are
    /// stored and in force in the user's open feeds on every instance.
    ///
    /// # Errors
    /// See [`FollowError`]. Repeating it is safe.
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
        let (mut kinds, follows) = (kinds, self.parts().follows.clone());
        kinds.sort_unstable();
        kinds.dedup();
        let muted = to_the_end(async move {
            let _turns = follows.turns([&user].into_iter()).await;
            follows.feeds.preferences.set_muted(user.clone(), kinds.clone()).await?;
            let partition = user.notifications().partition(follows.partition_count);
            let user = Some(user.as_str().to_owned());
            let change = StreamChange { user, muted: Some(kinds), ..StreamChange::default() };
            follows.instances.change_everywhere(partition, vec![change]).await?;
            Ok(())
        });
        muted.await
    }

    /// The kinds muted by a user, sorted.
    ///
    /// # Errors
    /// See [`FollowError`].
    pub async fn muted(&self, user: impl AsRef<str>) -> Result<Vec<String>, FollowError> {
        Ok(self.parts().follows.feeds.preferences.muted(User::parse(user.as_ref())?).await?)
    }
}

/// The follow graph and the preferences. Applies every change to the open feeds too.
pub(crate) struct Follows {
    pub feeds: Arc<FeedReader>,
    instances: Arc<Instances>,
    partition_count: u16,
    /// Locks for changes, by a hash of the user's name: one change per user at a time.
    turns: [tokio::sync::Mutex<()>; 64],
}

impl Follows {
    pub fn new(feeds: Arc<FeedReader>, instances: Arc<Instances>, partition_count: u16) -> Self {
        let turns = std::array::from_fn(|_| tokio::sync::Mutex::new(()));
        Self { feeds, instances, partition_count, turns }
    }

    /// A page of an author's followers.
    pub async fn followers(
        &self,
        author: &str,
        after: Option<String>,
        limit: usize,
        _: MayOperate,
    ) -> Result<Page, FollowError> {
        let author = User::parse(author)?;
        Ok(self.feeds.graph.followers(author, after, limit.max(1)).await?)
    }

    /// The number of an author's followers.
    pub async fn follower_count(&self, author: &str, _: MayOperate) -> Result<u64, FollowError> {
        Ok(self.feeds.graph.counts(User::parse(author)?).await?.followers)
    }

    /// Changes the open feeds of followers on all instances. Afterwards every event of a followed
    /// author reaches them.
    async fn change_feeds(
        &self,
        edges: &[Follow],
        change: FeedChange,
    ) -> Result<(), ChangeRefused> {
        // A change takes the link of its topic's partition, so it fails together with the events.
        let mut by_partition: BTreeMap<u16, BTreeMap<&User, Vec<String>>> = BTreeMap::new();
        for Follow { follower, author } in edges {
            let posts = author.posts();
            let users = by_partition.entry(posts.partition(self.partition_count)).or_default();
            users.entry(follower).or_default().push(posts.as_str().to_owned());
        }
        let all = by_partition.into_iter().map(|(partition, users)| {
            let changes = users.into_iter().map(|(user, topics)| change.of(user, topics));
            self.instances.change_everywhere(partition, changes.collect())
        });
        for changed in join_all(all).await {
            // A feed with too many topics keeps its present ones.
            changed?;
        }
        Ok(())
    }

    /// Locks the users of a change. Without this, two changes of one user could reach the store in
    /// one order and the open feeds in the other.
    async fn turns<'a>(&self, users: impl Iterator<Item = &'a User>) -> Vec<MutexGuard<'_, ()>> {
        let indexes = users.map(|user| user.hash64() as usize % self.turns.len());
        // In ascending order and without duplicates: no two changes wait for each other.
        let indexes: BTreeSet<usize> = indexes.collect();
        let mut turns = Vec::with_capacity(indexes.len());
        for index in indexes {
            turns.push(self.turns[index].lock().await);
        }
        turns
    }
}

/// Runs a change to its end also if the caller stops waiting: a stored change must reach the feeds.
async fn to_the_end<T: Send + 'static>(
    change: impl Future<Output = Result<T, FollowError>> + Send + 'static,
) -> Result<T, FollowError> {
    let done = tokio::spawn(change).await;
    // A panic, for example in the application's store: the change may be stored.
    done.unwrap_or(Err(FollowError::Feeds(ChangeError::Unconfirmed)))
}

/// A change of edges.
#[derive(Clone, Copy)]
enum FeedChange {
    Follow,
    Unfollow,
}

impl FeedChange {
    fn of(self, user: &User, topics: Vec<String>) -> StreamChange {
        let user = Some(user.as_str().to_owned());
        match self {
            Self::Follow => StreamChange { user, add: topics, ..StreamChange::default() },
            Self::Unfollow => StreamChange { user, remove: topics, ..StreamChange::default() },
        }
    }
}
