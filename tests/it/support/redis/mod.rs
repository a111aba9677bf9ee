//! Real Redis servers: one alone, one watched by Sentinels, a cluster.

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

/// How long Redis may take for what takes a second, on a busy machine.
pub const REDIS_DEADLINE: Duration = Duration::from_secs(30);
