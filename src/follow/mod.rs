//! The follow graph and the muted kinds of each user: the store in memory, and the contract suite
//! for every store. The seams themselves are in `fanfare_core::follow`.

pub mod contract;
mod feed_reader;
pub(crate) mod memory;

pub use fanfare_core::follow::{
    Counts, Follow, FollowGraph, GraphError, GraphFuture, MAX_USER_BYTES, Page, Preferences, User,
    UserError,
};
pub(crate) use feed_reader::FeedReader;
