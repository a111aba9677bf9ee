//! The threads that a hub owns: those of its partitions, the bridge's, and that of the
//! follower graph.

use std::{
    io,
    sync::{Arc, OnceLock, mpsc},
};

use actix::{Actor, Addr};
use tokio::runtime::LocalOptions;
use tokio_util::sync::CancellationToken;

use crate::{
    actors::{
        fanout::FanoutRouter,
        partition::{LogPlace, Partition, PartitionSpec},
    },
    bridge::redis::{RedisLink, Target},
    config::{Config, ConfigProblems, Problem},
    domain::policy::Policies,
    error::StartError,
    follow::{memory::MemoryFollows, redis::RedisFollows},
    metrics::Metrics,
};

/// What the partitions are started with.
pub(super) struct Partitions {
    pub template: PartitionSpec,
    pub place: LogPlace,
    pub mailbox_capacity: usize,
    pub metrics: Arc<Metrics>,
}

impl Partitions {
    /// Starts them, spread over the hub's own threads.
    pub fn start(
        &self,
        config: &Config,
        stop: &CancellationToken,
    ) -> io::Result<Vec<Addr<Partition>>> {
        let others = Arc::new(OnceLock::new());
        let mut started = Vec::new();
        for thread in 0..config.hub.threads {
            let numbers = (0..config.hub.partitions)
                .filter(|number| usize::from(*number) % config.hub.threads == thread);
            let partitions: Vec<Partition> = numbers
                .map(|partition| {
                    let spec = PartitionSpec { partition, ..self.template.clone() };
                    let (place, metrics) = (self.place.clone(), self.metrics.clone());
                    Partition::new(spec, place, others.clone(), metrics)
                })
                .collect();
            let capacity = self.mailbox_capacity;
            started.extend(start_thread(thread, partitions, capacity, stop.clone())?);
        }
        started.sort_unstable_by_key(|(number, _)| *number);
        let addrs: Vec<_> = started.into_iter().map(|(_, addr)| addr).collect();
        let _ = others.set(addrs.clone());
        Ok(addrs)
    }
}

/// Starts the bridge to Redis on a thread of its own, if there is to be one.
pub(super) fn start_bridge(
    config: &Config,
    policies: Arc<Policies>,
    metrics: &Arc<Metrics>,
    stop: &CancellationToken,
) -> Result<Option<RedisLink>, StartError> {
    if config.redis.url.is_empty() {
        return Ok(None);
    }
    let target = target(config)?;
    let (tell, told) = mpsc::channel();
    let (config, metrics, stop) = (config.clone(), metrics.clone(), stop.clone());
    std::thread::Builder::new().name("fanfare-redis".to_owned()).spawn(move || {
        run_actors(async {
            let _ = tell.send(RedisLink::start(&config, target, policies, metrics));
            stop.cancelled().await;
        });
    })?;
    Ok(Some(told.recv().map_err(io::Error::other)?))
}

fn target(config: &Config) -> Result<Target, ConfigProblems> {
    Target::parse(&config.redis.url, &config.redis.tls_ca).map_err(|error| {
        let (place, key) = (String::new(), "redis.url".to_owned());
        ConfigProblems(vec![Problem { place, key, message: error.to_string() }])
    })
}

/// Starts what keeps connections for the graph in Redis, on a thread of its own.
pub(super) fn start_redis_follows(
    config: &Config,
    stop: &CancellationToken,
) -> Result<RedisFollows, StartError> {
    let (target, redis) = (target(config)?, config.redis.clone());
    Ok(start_alone("fanfare-follow", stop, move || RedisFollows::start(target, &redis))?)
}

/// Starts the graph in memory on a thread of its own: an import delays no publish.
pub(super) fn start_memory(stop: &CancellationToken) -> io::Result<MemoryFollows> {
    start_alone("fanfare-follow", stop, MemoryFollows::start)
}

/// Starts the fan-out router on a thread of its own.
pub(super) fn start_router(
    config: &Config,
    stop: &CancellationToken,
) -> io::Result<Addr<FanoutRouter>> {
    let (max_running, capacity) = (config.fanout.max_running, config.fanout.max_pending + 1);
    start_alone("fanfare-fanout", stop, move || {
        FanoutRouter::create(|ctx| {
            ctx.set_mailbox_capacity(capacity);
            FanoutRouter::new(max_running)
        })
    })
}

/// Has something start on a thread of its own.
fn start_alone<T: Send + 'static>(
    name: &str,
    stop: &CancellationToken,
    start: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (tell, told) = mpsc::channel();
    let stop = stop.clone();
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        run_actors(async {
            let _ = tell.send(start());
            stop.cancelled().await;
        });
    })?;
    told.recv().map_err(io::Error::other)
}

fn start_thread(
    thread: usize,
    partitions: Vec<Partition>,
    mailbox_capacity: usize,
    stop: CancellationToken,
) -> io::Result<Vec<(u16, Addr<Partition>)>> {
    let (tell, told) = mpsc::channel();
    std::thread::Builder::new().name(format!("fanfare-{thread}")).spawn(move || {
        run_actors(async {
            let start = |partition: Partition| {
                let number = partition.number();
                let addr = Partition::create(|ctx| {
                    // Before anybody has its address: a full mailbox would wake no sender.
                    ctx.set_mailbox_capacity(mailbox_capacity);
                    partition
                });
                (number, addr)
            };
            let _ = tell.send(partitions.into_iter().map(start).collect());
            stop.cancelled().await;
        });
    })?;
    told.recv().map_err(io::Error::other)
}

/// Runs actors on this thread for as long as the future does. An actix system would do so
/// too, by a set of local tasks within its runtime: through that each wake takes a detour.
///
/// Should there be no runtime to be had, whoever waits for what the future tells is told so by
/// its being dropped.
fn run_actors(future: impl Future<Output = ()>) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    match builder.enable_all().build_local(LocalOptions::default()) {
        Ok(runtime) => runtime.block_on(future),
        Err(error) => tracing::error!(%error, "no runtime"),
    }
}
