//! Who follows whom, and what each user does not want to hear: the seams to wherever an
//! application keeps that. What follows from it is the business of `actors::fanout`.

pub mod contract;
pub(crate) mod memory;
pub(crate) mod redis;

use std::{error::Error, fmt, sync::Arc};

use futures_util::future::BoxFuture;
use serde::Serialize;

use crate::domain::topic::{MAX_TOPIC_BYTES, Topic, TopicError};

/// The topic of a user's own notifications, without the user.
const NOTIFICATIONS: &str = "notifications:";

/// The topic of an author's posts that followers pull, without the author.
const POSTS: &str = "posts:";

/// Longest name of a user, in bytes of UTF-8: both topics have room for it.
pub const MAX_USER_BYTES: usize = MAX_TOPIC_BYTES - NOTIFICATIONS.len();

/// A user's name: 1 to [`MAX_USER_BYTES`] bytes, otherwise by the rules of a topic's
/// segments. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct User(Arc<str>);

impl User {
    /// Checks a name.
    ///
    /// # Errors
    /// It is empty, too long, or has what a topic cannot have (`bad_user`).
    pub fn parse(name: &str) -> Result<Self, UserError> {
        if name.len() > MAX_USER_BYTES {
            return Err(UserError::TooLong(name.len()));
        }
        Topic::parse(name).map_err(UserError::Name)?;
        Ok(Self(name.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A hash of the name, the same in every instance: FNV-1a of 64 bits.
    pub(crate) fn hash64(&self) -> u64 {
        let bytes = self.0.as_bytes().iter();
        bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        })
    }

    /// The topic of the user's own notifications, `notifications:<user>`.
    pub fn notifications(&self) -> Topic {
        self.topic(NOTIFICATIONS)
    }

    /// The topic that an author's posts are published to when followers pull them,
    /// `posts:<author>`.
    pub fn posts(&self) -> Topic {
        self.topic(POSTS)
    }

    fn topic(&self, prefix: &str) -> Topic {
        Topic::parse(&format!("{prefix}{}", self.0)).expect("a user's name fits behind a segment")
    }
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a name is none of a user (`bad_user`).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    #[error("a user's name has at most {MAX_USER_BYTES} bytes, this one has {0}")]
    TooLong(usize),
    #[error("a user's name follows the rules of topics: {0}")]
    Name(TopicError),
}

/// One user follows another.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Follow {
    pub follower: User,
    pub author: User,
}

impl Follow {
    /// Checks both names.
    ///
    /// # Errors
    /// Either is none (`bad_user`).
    pub fn parse(follower: &str, author: &str) -> Result<Self, UserError> {
        Ok(Self { follower: User::parse(follower)?, author: User::parse(author)? })
    }
}

/// A part of a walk over followers or followed authors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    pub users: Vec<User>,
    /// Where the next page begins; none if this is the last. To be passed on as it is.
    pub next: Option<String>,
}

/// How many follow a user, and how many the user follows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    pub followers: u64,
    pub following: u64,
}

/// Why a graph or the preferences could not be read or changed. Every change may be
/// repeated: it is there once.
#[derive(Debug, thiserror::Error)]
pub enum GraphError {
    /// Redis is away; nothing was changed (`bridge_down`).
    #[error("Redis is away")]
    BridgeDown,
    /// Redis went away before it answered; a change may have been made (`unconfirmed`).
    #[error("Redis did not answer: the change may have been made; make it again")]
    Unconfirmed,
    /// The application's own store failed; a change may have been made (`graph_down`).
    #[error("the follower graph cannot be had at the moment")]
    Unavailable(#[source] Box<dyn Error + Send + Sync>),
    /// A page was asked for that begins nowhere (`bad_page`).
    #[error("the page does not begin where one of this graph ended")]
    BadPage,
}

impl GraphError {
    /// The code in an HTTP answer. Its meaning never changes.
    pub fn code(&self) -> &'static str {
        match self {
            Self::BridgeDown => "bridge_down",
            Self::Unconfirmed => "unconfirmed",
            Self::Unavailable(_) => "graph_down",
            Self::BadPage => "bad_page",
        }
    }
}

/// Which of a user's two sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Followers,
    Following,
}

/// What a graph answers.
pub type GraphFuture<'a, T> = BoxFuture<'a, Result<T, GraphError>>;

/// Who follows whom. An application that keeps this in a database of its own implements
/// the trait over it, and calls [`crate::Hub::follow`] and [`crate::Hub::unfollow`] for
/// every change, so that open streams change too.
///
/// A walk (page after page, each beginning where the one before ended) yields everybody who
/// is there from its beginning to its end exactly once, and nobody twice, whatever changes
/// meanwhile.
pub trait FollowGraph: Send + Sync + 'static {
    /// Adds edges; those that are there already are no error. Returns how many are new.
    fn follow(&self, edges: Vec<Follow>) -> GraphFuture<'_, u64>;

    /// Removes edges; those that are not there are no error. Returns how many were there.
    fn unfollow(&self, edges: Vec<Follow>) -> GraphFuture<'_, u64>;

    /// A page of an author's followers, of at most `limit` (at least 1).
    fn followers(&self, author: User, after: Option<String>, limit: usize)
    -> GraphFuture<'_, Page>;

    /// A page of the authors that a user follows, of at most `limit` (at least 1).
    fn following(&self, user: User, after: Option<String>, limit: usize) -> GraphFuture<'_, Page>;

    /// How many follow a user, and how many the user follows.
    fn counts(&self, user: User) -> GraphFuture<'_, Counts>;
}

/// A handle to a graph is one too, so that an application can keep one of its own.
impl<G: FollowGraph + ?Sized> FollowGraph for Arc<G> {
    fn follow(&self, edges: Vec<Follow>) -> GraphFuture<'_, u64> {
        (**self).follow(edges)
    }

    fn unfollow(&self, edges: Vec<Follow>) -> GraphFuture<'_, u64> {
        (**self).unfollow(edges)
    }

    fn followers(
        &self,
        author: User,
        after: Option<String>,
        limit: usize,
    ) -> GraphFuture<'_, Page> {
        (**self).followers(author, after, limit)
    }

    fn following(&self, user: User, after: Option<String>, limit: usize) -> GraphFuture<'_, Page> {
        (**self).following(user, after, limit)
    }

    fn counts(&self, user: User) -> GraphFuture<'_, Counts> {
        (**self).counts(user)
    }
}

/// The kinds of events (their types) that each user does not want to hear.
pub trait Preferences: Send + Sync + 'static {
    /// The kinds that a user has muted, sorted; none for a user never heard of.
    fn muted(&self, user: User) -> GraphFuture<'_, Vec<String>>;

    /// Mutes these kinds and no others.
    fn set_muted(&self, user: User, kinds: Vec<String>) -> GraphFuture<'_, ()>;

    /// For each of these users, in their order, whether the kind is muted.
    fn who_mutes(&self, kind: String, users: Vec<User>) -> GraphFuture<'_, Vec<bool>>;
}
