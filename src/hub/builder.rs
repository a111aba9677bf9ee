//! Starting a hub: what it is given, and what it starts for the rest.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize},
    },
    time::Instant,
};

use actix::Addr;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Hub, MAX_ASKS, PartitionHandle, Running, Shared,
    instances::Executor,
    threads::{Partitions, start_bridge, start_memory, start_redis_follows, start_router},
};
use crate::{
    actors::partition::{LogPlace, Partition, PartitionSpec},
    bridge::{LocalBridge, redis::RedisLink},
    config::Config,
    domain::{
        budget::HistoryBudget, cursor::Epoch, policy::Policies, remembered::RememberedBudget,
    },
    error::StartError,
    follow::{FollowGraph, Preferences},
    metrics::Metrics,
};

/// Managers that may have a message with a partition at once: one a worker thread.
const MAX_MANAGERS: usize = 4096;

/// A hub that is to be started. Comes from [`Hub::builder`].
#[must_use = "nothing runs until `start`"]
pub struct HubBuilder {
    config: Config,
    graph: Option<Arc<dyn FollowGraph>>,
    preferences: Option<Arc<dyn Preferences>>,
}

impl HubBuilder {
    pub(super) fn new(config: Config) -> Self {
        Self { config, graph: None, preferences: None }
    }

    /// Who follows whom is the application's own.
    pub fn follow_graph(self, graph: impl FollowGraph) -> Self {
        Self { graph: Some(Arc::new(graph)), ..self }
    }

    /// What users have muted is the application's own.
    pub fn preferences(self, preferences: impl Preferences) -> Self {
        Self { preferences: Some(Arc::new(preferences)), ..self }
    }

    /// Starts the hub, as [`Hub::start`] does.
    ///
    /// # Errors
    /// A configuration that does not hold, or no threads to be had.
    pub fn start(self) -> Result<Hub, StartError> {
        self.config.validate()?;
        let stop = CancellationToken::new();
        // Should not all of it start, what did ends.
        let unless_started = stop.clone().drop_guard();
        let config = self.config;
        let (graph, preferences) = follows(self.graph, self.preferences, &config, &stop)?;
        let started_at = Instant::now();
        let budget =
            HistoryBudget::new(config.history.max_bytes, config.hub.partitions, started_at);
        let budget = Arc::new(budget);
        let metrics = Arc::new(Metrics::new(config.hub.partitions));
        let log = Log::start(&config, &budget, &metrics, &stop)?;
        unless_started.disarm();
        let places = || Arc::new(Semaphore::new(config.publish.max_pending));
        let router = start_router(&config, &stop)?;
        let handle =
            |addr: &Addr<Partition>| PartitionHandle { addr: addr.clone(), places: places() };
        let redis = log.redis.clone();
        let shared = Shared {
            partitions: log.partitions.iter().map(handle).collect(),
            bridge: match log.redis {
                Some(redis) => Box::new(redis),
                None => Box::new(LocalBridge::new(log.partitions, log.epoch)),
            },
            graph,
            preferences,
            budget,
            metrics,
            stop,
            started_at,
            bodies: TaskTracker::new(),
            is_draining: AtomicBool::new(false),
            open_streams: AtomicUsize::new(0),
            next_id: AtomicU64::new(1),
            client_key: rand::random(),
            router,
            fan_outs: Arc::new(Semaphore::new(config.fanout.max_pending)),
            follow_turns: std::array::from_fn(|_| tokio::sync::Mutex::new(())),
            asks: Semaphore::new(MAX_ASKS),
            managers: Mutex::default(),
            config,
        };
        let shared = Arc::new(shared);
        if let Some(redis) = redis {
            redis.serve(Box::new(Executor(Arc::downgrade(&shared))));
        }
        Ok(Hub { running: Arc::new(Running { shared }) })
    }
}

/// The partitions, and the bridge to Redis if there is to be one.
struct Log {
    partitions: Vec<Addr<Partition>>,
    redis: Option<RedisLink>,
    /// Of a log in memory.
    epoch: Epoch,
}

impl Log {
    fn start(
        config: &Config,
        budget: &Arc<HistoryBudget>,
        metrics: &Arc<Metrics>,
        stop: &CancellationToken,
    ) -> Result<Self, StartError> {
        let policies = Policies::new(config).expect("validate() checks every pattern");
        let policies = Arc::new(policies);
        let epoch = Epoch::new(rand::random());
        let template = PartitionSpec {
            partition: 0,
            epoch,
            policies: policies.clone(),
            budget: budget.clone(),
            max_idle_topics: config.hub.max_idle_topics / usize::from(config.hub.partitions),
            idempotency_window: config.publish.idempotency_window,
            remembered: Arc::new(RememberedBudget::new(config.publish.max_remembered_ids)),
            remembered_fan_outs: Arc::new(RememberedBudget::new(config.fanout.max_remembered)),
        };
        let mailbox_capacity = config.publish.max_pending + 2 * MAX_MANAGERS + 1;
        let redis = start_bridge(config, policies, metrics, stop)?;
        let place = match &redis {
            Some(redis) => LogPlace::Redis {
                interest_grace: config.redis.interest_grace,
                relay: Arc::new(redis.clone()),
            },
            None => LogPlace::Here,
        };
        let partitions = Partitions { template, place, mailbox_capacity, metrics: metrics.clone() };
        let partitions = partitions.start(config, stop)?;
        if let Some(redis) = &redis {
            redis.begin(partitions.clone(), stop.clone());
        }
        Ok(Self { partitions, redis, epoch })
    }
}

type Follows = (Arc<dyn FollowGraph>, Arc<dyn Preferences>);

/// The stores that the application brought, and the hub's own for what it did not.
fn follows(
    graph: Option<Arc<dyn FollowGraph>>,
    preferences: Option<Arc<dyn Preferences>>,
    config: &Config,
    stop: &CancellationToken,
) -> Result<Follows, StartError> {
    if let (Some(graph), Some(preferences)) = (&graph, &preferences) {
        return Ok((graph.clone(), preferences.clone()));
    }
    let own: Follows = if config.redis.url.is_empty() {
        let memory = Arc::new(start_memory(stop)?);
        (memory.clone(), memory)
    } else {
        let redis = Arc::new(start_redis_follows(config, stop)?);
        (redis.clone(), redis)
    };
    Ok((graph.unwrap_or(own.0), preferences.unwrap_or(own.1)))
}
