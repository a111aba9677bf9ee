//! The follow graph and the preferences: the store in memory, the reader of feeds, and the contract
//! suite for every store.
//!
//! Not here: the traits (`fanfare_core::follow`), and the store in Redis (`fanfare_redis::follow`).

pub mod contract;
mod feed_reader;
pub(crate) mod memory;

pub use fanfare_core::follow::{
    Counts, Follow, FollowGraph, GraphError, GraphFuture, MAX_USER_BYTES, Page, Preferences, User,
    UserError,
};
pub(crate) use feed_reader::FeedReader;
