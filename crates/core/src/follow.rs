//! The seams to the follow graph and to the preferences of users. An application can implement both
//! over its own store.

use std::sync::Arc;

use serde::Serialize;

pub use crate::{
    error::GraphError,
    user::{MAX_USER_BYTES, User, UserError},
};

use crate::future::BoxFuture;

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
    /// One of the names is invalid (`bad_user`).
    pub fn parse(follower: &str, author: &str) -> Result<Self, UserError> {
        Ok(Self { follower: User::parse(follower)?, author: User::parse(author)? })
    }
}

/// A part of a walk over followers or followed authors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    pub users: Vec<User>,
    /// The start of the next page; none after the last page. Pass it on unchanged.
    pub next: Option<String>,
}

/// The numbers of a user's followers and of the authors followed by the user.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    pub followers: u64,
    pub following: u64,
}

/// One of a user's two sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Followers,
    Following,
}

pub type GraphFuture<'a, T> = BoxFuture<'a, Result<T, GraphError>>;

/// The follow graph. An application with its own database implements the trait over it, and calls
/// `Hub::follow` and `Hub::unfollow` for every change: these also change open streams.
///
/// A walk goes page by page, each page starting at the end of the page before. It yields every user
/// present during the whole walk exactly once, and nobody twice, under any concurrent changes.
pub trait FollowGraph: Send + Sync + 'static {
    /// Adds edges and returns the number of new ones. Existing edges are no error.
    fn follow(&self, edges: Vec<Follow>) -> GraphFuture<'_, u64>;

    /// Removes edges and returns the number of removed ones. Missing edges are no error.
    fn unfollow(&self, edges: Vec<Follow>) -> GraphFuture<'_, u64>;

    /// A page of an author's followers, of at most `limit` (at least 1).
    fn followers(&self, author: User, after: Option<String>, limit: usize)
    -> GraphFuture<'_, Page>;

    /// A page of the authors followed by a user, of at most `limit` (at least 1).
    fn following(&self, user: User, after: Option<String>, limit: usize) -> GraphFuture<'_, Page>;

    /// The numbers of a user's followers and of the authors followed by the user.
    fn counts(&self, user: User) -> GraphFuture<'_, Counts>;
}

/// An application can keep a handle to its own graph.
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

/// The kinds of events (their types) muted by each user.
pub trait Preferences: Send + Sync + 'static {
    /// The kinds muted by a user, sorted; empty for an unknown user.
    fn muted(&self, user: User) -> GraphFuture<'_, Vec<String>>;

    /// Mutes these kinds and no others.
    fn set_muted(&self, user: User, kinds: Vec<String>) -> GraphFuture<'_, ()>;

    /// For each of these users, in their order, whether the kind is muted.
    fn who_mutes(&self, kind: String, users: Vec<User>) -> GraphFuture<'_, Vec<bool>>;
}
