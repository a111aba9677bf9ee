//! A link's path for publishes, and the reasons for its end.

use std::sync::Arc;

use fanfare_core::cluster::SettingConflict;
use redis::{RedisError, aio::MultiplexedConnection};

/// The access of publishes to a link.
#[derive(Clone)]
pub(crate) struct PublishPath {
    pub connection: MultiplexedConnection,
    pub sha: Arc<str>,
    pub server: Arc<str>,
    /// The generation of the link.
    pub generation: u64,
}

/// The reason for the end of a link, or for its failure to open.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error(transparent)]
    Redis(#[from] RedisError),
    #[error(transparent)]
    Refused(#[from] SettingConflict),
    #[error("connecting timed out")]
    ConnectTimeout,
    #[error("the server is a replica")]
    Replica,
    #[error("connection lost")]
    Disconnected,
    #[error("the server ended the subscription to a channel")]
    ChannelMoved,
    #[error("push limit reached: Redis pushes faster than the partitions apply")]
    Overflow,
    #[error("the probe timed out")]
    Stalled,
    #[error("the bridge stopped")]
    Stopped,
}
