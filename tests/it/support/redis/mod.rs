//! Real Redis servers: a single one, one watched by Sentinels, a Redis Cluster.

mod certificates;
mod cluster;
mod options;
mod sentinel;
mod server;

pub use certificates::Certificates;
pub use cluster::Cluster;
pub use options::Options;
pub use sentinel::Sentinels;
pub use server::RedisServer;

use std::time::Duration;

/// Deadline for a Redis operation of a second, on a busy machine.
pub const REDIS_DEADLINE: Duration = Duration::from_secs(30);
