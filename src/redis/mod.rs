//! Starts the log, the cluster and the follow store over Redis, from the configuration.
//!
//! Not here: their logic (`fanfare_redis`).

#[cfg(test)]
mod follow_tests;
#[cfg(test)]
mod tests;

use std::{io, sync::Arc};

use fanfare_core::{policy::Policies, wall_clock::WallClock};
use fanfare_redis::{CountPublished, RedisLog, RedisSpec, Target, follow::RedisFollows};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Config, ConfigProblems, Problem},
    error::StartError,
    metrics::Metrics,
    threads::start_alone,
};

/// Starts log and cluster on their own thread. They connect after [`RedisLog::begin`].
pub(crate) fn start_log(
    config: &Config,
    policies: Arc<Policies>,
    clock: Arc<WallClock>,
    metrics: &Arc<Metrics>,
    stop: &CancellationToken,
) -> Result<RedisLog, StartError> {
    let spec = RedisSpec {
        target: target(config)?,
        prefix: config.redis.prefix.clone(),
        timeout: config.redis.timeout,
        probe: config.redis.probe,
        partition_count: config.hub.partitions,
        max_idle_topics: config.hub.max_idle_topics,
        idempotency_window: config.publish.idempotency_window,
        max_history_bytes: config.history.max_bytes,
        max_stored_bytes: config.redis.max_history_bytes,
        policies,
        clock,
    };
    let metrics: Arc<dyn CountPublished> = metrics.clone();
    Ok(start_alone("fanfare-redis", stop, move || RedisLog::start(spec, metrics))?)
}

/// Starts the follow store's connections on their own thread.
pub(crate) fn start_follows(
    config: &Config,
    stop: &CancellationToken,
) -> Result<RedisFollows, StartError> {
    let (target, redis) = (target(config)?, config.redis.clone());
    let start = move || RedisFollows::start(target, redis.prefix, redis.timeout, redis.probe);
    let started: io::Result<_> = start_alone("fanfare-follow", stop, start);
    Ok(started?)
}

fn target(config: &Config) -> Result<Target, ConfigProblems> {
    Target::parse(&config.redis.url, &config.redis.tls_ca).map_err(|error| {
        let (place, key) = (String::new(), "redis.url".to_owned());
        ConfigProblems(vec![Problem { place, key, message: error.to_string() }])
    })
}

impl CountPublished for Metrics {
    fn count_published(&self, count: u64) {
        self.published.fetch_add(count, std::sync::atomic::Ordering::Relaxed);
    }
}
