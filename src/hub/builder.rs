//! Starting a hub: the application's stores, and all the hub's own parts.

use std::{
    sync::{Arc, OnceLock, atomic::AtomicUsize},
    time::Duration,
};

use actix::{Actor, Addr};
use fanfare_core::{
    budget::HistoryBudget,
    cluster::Cluster,
    cursor::Epoch,
    id_budget::IdBudget,
    partition::{MAX_BATCHES_IN_FLIGHT, MemoryPartition, PartitionSpec, PartitionState},
    wall_clock::WallClock,
};
#[cfg(feature = "redis")]
use fanfare_core::{
    log::Log,
    partition::{Replica, ReplicaSpec},
};
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

#[cfg(feature = "log")]
use super::durable::Durable;
use super::{
    Hub, HubParts, LastHandle, RememberedIds,
    access_sources::{AccessSources, access_stores},
    follows::Follows,
    kept_revocations,
};
#[cfg(feature = "log")]
use crate::log::DiskLog;
use crate::{
    access::{Access, Authorizer, ByAuthorizer, Decide, Tickets},
    actors::{
        connection::ConnectionHost,
        partition::{Partition, PartitionQueues, PublishPermit},
        topic_manager::ManagerHost,
    },
    addresses::Addresses,
    clock::{MovableClock, now, since_1970},
    cluster::LocalCluster,
    config::Config,
    error::StartError,
    fan_out::{FanOutRouter, RouterHost},
    follow::{
        FeedReader, FollowGraph, Preferences,
        memory::{MemoryFollows, Tables},
    },
    ids::Ids,
    instances::{Executor, Instances},
    lifecycle::Lifecycle,
    log::LogSource,
    metrics::Metrics,
    publisher::Publisher,
    request_budget::RequestBudget,
    revocations::Revocations,
    stream_reports::{OnStream, StreamReport, StreamReports},
    threads::{start_alone, start_partitions},
    users::Users,
};

/// Topic managers counted in a partition's mailbox: one per worker thread, far above real numbers.
const MAX_MANAGERS: usize = 4096;

/// The eviction of older events follows no order among partitions.
const MAX_EVENT_AGE: Duration = Duration::from_secs(30 * 24 * 3600);

/// A hub before its start, from [`Hub::builder`]. It starts no thread until [`Self::start`].
#[must_use = "nothing runs until `start`"]
pub struct HubBuilder {
    config: Config,
    graph: Option<Arc<dyn FollowGraph>>,
    preferences: Option<Arc<dyn Preferences>>,
    authorizer: Option<Arc<dyn Decide>>,
    on_stream: Option<OnStream>,
}

impl HubBuilder {
    pub(super) fn new(config: Config) -> Self {
        Self { config, graph: None, preferences: None, authorizer: None, on_stream: None }
    }

    /// Uses the application's own follow graph, for all feeds, fan-outs and follow endpoints. All
    /// instances of a cluster must use the same graph.
    pub fn follow_graph(self, graph: impl FollowGraph) -> Self {
        Self { graph: Some(Arc::new(graph)), ..self }
    }

    /// Uses the application's own preferences (muted kinds). All instances of a cluster must use
    /// the same preferences.
    pub fn preferences(self, preferences: impl Preferences) -> Self {
        Self { preferences: Some(Arc::new(preferences)), ..self }
    }

    /// Asks the application about the callers of the hub's endpoints. Turns access control on
    /// (`access.enabled`), and takes the place of `access.webhook`.
    pub fn authorizer(mut self, authorizer: impl Authorizer) -> Self {
        self.config.access.enabled = true;
        Self { authorizer: Some(Arc::new(ByAuthorizer(authorizer))), ..self }
    }

    /// Calls a function for each opened and each closed stream of this instance, for the
    /// application's own records: who is online, and how long. Polls are no streams here.
    ///
    /// It runs on a thread of its own, with one report at a time, in the order of each stream. It
    /// may block, and panic: no stream waits for it or ends. Where it is slower than the streams
    /// for long, reports are dropped, and [`StreamReport::missed`] tells their number.
    ///
    /// ```
    /// # use fanfare::{Config, Hub, StartError, StreamChange};
    /// # fn start() -> Result<(), StartError> {
    /// let hub = Hub::builder(Config::default())
    ///     .on_stream(|report| match report.change {
    ///         StreamChange::Opened => println!("{:?} is online", report.stream.user),
    ///         StreamChange::Closed { reason, duration, .. } => {
    ///             println!("{:?} left after {duration:?}: {reason}", report.stream.user);
    ///         }
    ///         _ => {}
    ///     })
    ///     .start()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn on_stream(self, on_stream: impl FnMut(StreamReport) + Send + 'static) -> Self {
        Self { on_stream: Some(Box::new(on_stream)), ..self }
    }

    /// Starts the hub, as [`Hub::start`] does.
    ///
    /// # Errors
    /// [`StartError`]: the configuration is invalid, or a thread cannot be started. Parts already
    /// started end.
    pub fn start(self) -> Result<Hub, StartError> {
        self.config.validate()?;
        let stop = CancellationToken::new();
        // If a later step fails, dropping this guard ends the parts already started.
        let unless_started = stop.clone().drop_guard();
        let config = self.config;
        let started_at = now();
        // A log on disk brings events from before the start.
        let oldest_at = match config.log.is_on() {
            true => started_at.checked_sub(MAX_EVENT_AGE).unwrap_or(started_at),
            false => started_at,
        };
        let budget = HistoryBudget::new(config.history.max_bytes, config.hub.partitions, oldest_at);
        let budget = Arc::new(budget.with_max_idle_bytes(config.history.max_idle_bytes));
        let clock = Arc::new(WallClock::new(now(), since_1970()));
        let metrics = Arc::new(Metrics::new(config.hub.partitions));
        let remembered = RememberedIds {
            publishes: Arc::new(IdBudget::new(config.publish.max_remembered_bytes)),
            fan_outs: Arc::new(IdBudget::new(config.fanout.max_remembered_bytes)),
        };
        let template = partition_spec(&config, budget.clone(), clock.clone(), &remembered);
        let policies = template.policies.clone();
        let revocations = Arc::new(Revocations::new(
            config.access.revocations_kept,
            config.access.max_revocations,
        ));
        #[cfg(feature = "log")]
        let durable = Durable::open(&config, &template, &metrics, &revocations, &stop)?;
        #[cfg(feature = "log")]
        let kept = durable.as_ref().map(|durable| (durable.stores(), durable.revocations()));
        #[cfg(not(feature = "log"))]
        let kept: Option<(Stores, Arc<dyn fanfare_core::access::RevocationStore>)> = None;
        let (own_stores, own_revocations) = kept.unzip();
        let (graph, preferences) =
            stores(self.graph, self.preferences, own_stores, &config, &stop)?;
        let max_topics = config.hub.max_topics_per_stream;
        let feeds = Arc::new(FeedReader { graph, preferences, max_topics });
        #[cfg(feature = "log")]
        let backend = match durable {
            Some(durable) => durable.start(&config, &template, &metrics, &stop)?,
            None => Backend::start(&config, template, &metrics, &stop)?,
        };
        #[cfg(not(feature = "log"))]
        let backend = Backend::start(&config, template, &metrics, &stop)?;
        let Backend { partitions, queues, log, cluster } = backend;
        let lifecycle = Arc::new(Lifecycle::new(stop.clone()));
        let ids = Arc::new(Ids::new());
        let outlives_hub = log.outlives_hub();
        let publisher = Publisher::new(
            &partitions,
            queues.clone(),
            config.publish.clone(),
            policies,
            config.hub.max_topics_per_stream,
            lifecycle.clone(),
            outlives_hub,
        );
        let publisher = Arc::new(publisher);
        let instances =
            Instances::new(cluster.clone(), publisher.clone(), ids.clone(), revocations.clone());
        let instances = Arc::new(instances);
        // A weak reference: the cluster would otherwise keep the instances, and they the cluster.
        cluster.serve(Box::new(Executor(Arc::downgrade(&instances))));
        let router = RouterHost {
            config: config.fanout.clone(),
            feeds: feeds.clone(),
            instances: instances.clone(),
            publisher: publisher.clone(),
            lifecycle: lifecycle.clone(),
        };
        let capacity = config.fanout.max_pending + 1;
        let router = start_alone("fanfare-fanout", &stop, move || {
            FanOutRouter::create(|ctx| {
                ctx.set_mailbox_capacity(capacity);
                FanOutRouter::new(router)
            })
        })?;
        let AccessSources { verifier, decider } = AccessSources::start(&config, &stop)?;
        let access = Arc::new(Access::new(
            config.access.clone(),
            verifier,
            self.authorizer.or(decider),
            revocations.clone(),
        ));
        let mut stores = access_stores(&config, &stop)?;
        stores.revocations = stores.revocations.or(own_revocations);
        let tickets = Tickets::new(stores.tickets, config.access.ticket_window);
        if let Some(store) = &stores.revocations {
            kept_revocations::follow(store.clone(), &instances, &stop)?;
        }
        let reports = self.on_stream.map(StreamReports::start).transpose()?;
        unless_started.disarm();
        let parts = HubParts {
            connections: Arc::new(ConnectionHost {
                ids: ids.clone(),
                metrics: metrics.clone(),
                open_count: AtomicUsize::new(0),
                reports,
                retry_min: config.stream.retry_min,
                retry_max: config.stream.retry_max,
            }),
            managers: Arc::new(ManagerHost {
                spec: config.manager_spec(started_at),
                partitions,
                queues,
                feeds: feeds.clone(),
                ids,
                lifecycle: lifecycle.clone(),
                revocations: revocations.clone(),
                application: access.clone(),
                metrics: metrics.clone(),
            }),
            follows: Arc::new(Follows::new(feeds, instances.clone(), config.hub.partitions)),
            fan_outs: Arc::new(Semaphore::new(config.fanout.max_pending)),
            bodies: TaskTracker::new(),
            publisher,
            log,
            instances,
            budget,
            remembered,
            metrics,
            clock,
            access,
            tickets,
            kept_revocations: stores.revocations,
            addresses: Addresses::new(config.limits.clone()),
            users: Users::new(config.limits.user_streams, config.limits.user_publishes_per_second),
            requests: RequestBudget::new(config.hub.max_request_bytes),
            lifecycle,
            started_at,
            movable_clock: MovableClock::of_thread(),
            router,
            config,
        };
        Ok(Hub { running: Arc::new(LastHandle { parts: Arc::new(parts) }) })
    }
}

/// The partitions, their logs, and the other instances.
pub(super) struct Backend {
    pub partitions: Vec<Addr<Partition>>,
    pub queues: PartitionQueues,
    pub log: LogSource,
    pub cluster: Arc<dyn Cluster>,
}

impl Backend {
    fn start(
        config: &Config,
        template: PartitionSpec,
        metrics: &Arc<Metrics>,
        stop: &CancellationToken,
    ) -> Result<Self, StartError> {
        #[cfg(feature = "redis")]
        if !config.redis.url.is_empty() {
            let (policies, clock) = (template.policies.clone(), template.clock.clone());
            let redis = crate::redis::start_log(config, policies, clock, metrics, stop)?;
            let log: Arc<dyn Log> = Arc::new(redis.clone());
            let replica = |spec| replica(config, spec);
            let partitions = Partitions::of(config, &template, metrics, replica);
            let (partitions, queues) = partitions.reading(&log).start(config, stop)?;
            let replicas = crate::log::PartitionReplicas(partitions.clone());
            redis.begin(Arc::new(replicas), stop.clone());
            let (log, cluster) = (LogSource::External(log), Arc::new(redis));
            return Ok(Self { partitions, queues, log, cluster });
        }
        let memory = |spec| PartitionState::Memory(Box::new(MemoryPartition::new(spec)));
        let partitions = Partitions::of(config, &template, metrics, memory);
        let (partitions, queues) = partitions.start(config, stop)?;
        let log = LogSource::Memory { epoch: template.epoch };
        Ok(Self { partitions, queues, log, cluster: Arc::new(LocalCluster::default()) })
    }
}

fn partition_spec(
    config: &Config,
    budget: Arc<HistoryBudget>,
    clock: Arc<WallClock>,
    remembered: &RememberedIds,
) -> PartitionSpec {
    let policies = config.policies().expect("validate() checks every pattern");
    PartitionSpec {
        partition: 0,
        epoch: Epoch::new(rand::random()),
        policies: Arc::new(policies),
        budget,
        started_ms: clock.at(now()),
        clock,
        max_idle_topics: config.hub.max_idle_topics / usize::from(config.hub.partitions),
        idempotency_window: config.publish.idempotency_window,
        remembered: remembered.publishes.clone(),
        remembered_fan_outs: remembered.fan_outs.clone(),
    }
}

/// The partitions of a hub before their start.
pub(super) struct Partitions {
    others: Arc<OnceLock<Vec<Addr<Partition>>>>,
    partitions: Vec<Partition>,
}

impl Partitions {
    /// Partitions with their logs owned by themselves; `state` makes their states, in order of
    /// their numbers.
    pub fn of(
        config: &Config,
        template: &PartitionSpec,
        metrics: &Arc<Metrics>,
        mut state: impl FnMut(PartitionSpec) -> PartitionState<PublishPermit>,
    ) -> Self {
        let others = Arc::new(OnceLock::new());
        let partition = |number| {
            let state = state(PartitionSpec { partition: number, ..template.clone() });
            // Redis sets the clock; without it, one partition does.
            let sets_clock = number == 0 && state.sets_clock();
            let clock = sets_clock.then(|| template.clock.clone());
            Partition::new(number, state, others.clone(), metrics.clone(), clock)
        };
        let partitions = (0..config.hub.partitions).map(partition).collect();
        Self { others, partitions }
    }

    /// Replicas of a log elsewhere.
    #[cfg(feature = "redis")]
    fn reading(self, log: &Arc<dyn Log>) -> Self {
        let partitions = self.partitions.into_iter();
        let partitions = partitions.map(|partition| partition.with_log(log.clone())).collect();
        Self { partitions, ..self }
    }

    /// Partitions with a log on disk.
    #[cfg(feature = "log")]
    pub fn writing(self, log: &Arc<DiskLog>) -> Self {
        let partitions = self.partitions.into_iter();
        let partitions = partitions.map(|partition| partition.with_journal(log.clone())).collect();
        Self { partitions, ..self }
    }

    pub fn start(
        self,
        config: &Config,
        stop: &CancellationToken,
    ) -> Result<(Vec<Addr<Partition>>, PartitionQueues), StartError> {
        // A message per publish permit, for each manager one `ChangeInterest` and one
        // `DeliveriesTaken`, a `TrimHistory`, a `ContinueChanges`, and the answers and pages of a
        // log on disk.
        let log_messages = MAX_BATCHES_IN_FLIGHT + 1;
        let mailbox_capacity = config.publish.max_pending + 2 * MAX_MANAGERS + 2 + log_messages;
        let Self { others, partitions } = self;
        let (addrs, queues) =
            start_partitions(partitions, config.hub.threads, mailbox_capacity, stop)?;
        let _ = others.set(addrs.clone());
        Ok((addrs, queues))
    }
}

#[cfg(feature = "redis")]
fn replica(config: &Config, partition: PartitionSpec) -> PartitionState<PublishPermit> {
    let interest_grace = config.redis.interest_grace;
    let spec = ReplicaSpec { partition, interest_grace };
    PartitionState::Replica(Box::new(Replica::new(spec)))
}

pub(super) type Stores = (Arc<dyn FollowGraph>, Arc<dyn Preferences>);

/// The application's stores, and the hub's own in place of missing ones: `kept` on disk, or new.
fn stores(
    graph: Option<Arc<dyn FollowGraph>>,
    preferences: Option<Arc<dyn Preferences>>,
    kept: Option<Stores>,
    config: &Config,
    stop: &CancellationToken,
) -> Result<Stores, StartError> {
    if let (Some(graph), Some(preferences)) = (&graph, &preferences) {
        return Ok((graph.clone(), preferences.clone()));
    }
    let own = match kept {
        Some(kept) => kept,
        None => own_stores(config, stop)?,
    };
    Ok((graph.unwrap_or(own.0), preferences.unwrap_or(own.1)))
}

fn own_stores(config: &Config, stop: &CancellationToken) -> Result<Stores, StartError> {
    #[cfg(feature = "redis")]
    if !config.redis.url.is_empty() {
        let redis = Arc::new(crate::redis::start_follows(config, stop)?);
        return Ok((redis.clone(), redis));
    }
    let _ = config;
    // On its own thread: an import must not delay publishes.
    let start = || MemoryFollows::start(Tables::default(), None);
    let memory = Arc::new(start_alone("fanfare-follow", stop, start)?);
    Ok((memory.clone(), memory))
}
