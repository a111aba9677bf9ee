//! How publishes use a link, and why a link ends.

use std::sync::Arc;

use redis::{RedisError, aio::MultiplexedConnection};

/// A working link, as publishes use it.
#[derive(Clone)]
pub(crate) struct PublishPath {
    pub connection: MultiplexedConnection,
    pub sha: Arc<str>,
    pub server: Arc<str>,
    /// The generation of the link.
    pub generation: u64,
}

/// Why a link ended, or did not begin.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error(transparent)]
    Redis(#[from] RedisError),
    #[error("no connection within the time allowed")]
    ConnectTimeout,
    #[error("the server is a replica")]
    Replica,
    #[error("the connection was lost")]
    Disconnected,
    #[error("the server has taken a channel away")]
    ChannelMoved,
    #[error("more was pushed than the partitions could take")]
    Overflow,
    #[error("the probe did not come back")]
    Stalled,
    #[error("the bridge has ended")]
    Stopped,
}
