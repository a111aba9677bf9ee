//! Starting a hub: the application's stores, and all the hub's own parts.

use std::sync::{Arc, OnceLock, atomic::AtomicUsize};

use actix::{Actor, Addr};
use fanfare_core::{
    budget::HistoryBudget,
    cluster::Cluster,
    cursor::Epoch,
    id_budget::IdBudget,
    log::Log,
    partition::{MemoryPartition, PartitionSpec, PartitionState, Replica, ReplicaSpec},
    wall_clock::WallClock,
};
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Hub, HubParts, LastHandle, RememberedIds,
    access_sources::{AccessSources, access_stores},
    follows::Follows,
    kept_revocations,
};
use crate::{
    access::{Access, Authorizer, ByAuthorizer, Decide, Tickets},
    actors::{connection::ConnectionHost, partition::Partition, topic_manager::ManagerHost},
    addresses::Addresses,
    clock::{MovableClock, now, unix_ms},
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
        let (graph, preferences) = stores(self.graph, self.preferences, &config, &stop)?;
        let max_topics = config.hub.max_topics_per_stream;
        let feeds = Arc::new(FeedReader { graph, preferences, max_topics });
        let started_at = now();
        let budget =
            HistoryBudget::new(config.history.max_bytes, config.hub.partitions, started_at);
        let budget = Arc::new(budget.with_max_idle_bytes(config.history.max_idle_bytes));
        let clock = Arc::new(WallClock::new(started_at, unix_ms()));
        let metrics = Arc::new(Metrics::new(config.hub.partitions));
        let remembered = RememberedIds {
            publishes: Arc::new(IdBudget::new(config.publish.max_remembered_bytes)),
            fan_outs: Arc::new(IdBudget::new(config.fanout.max_remembered_bytes)),
        };
        let template = partition_spec(&config, budget.clone(), clock.clone(), &remembered);
        let policies = template.policies.clone();
        let backend = Backend::start(&config, template, &metrics, &stop)?;
        let Backend { partitions, log, cluster } = backend;
        let lifecycle = Arc::new(Lifecycle::new(stop.clone()));
        let ids = Arc::new(Ids::new());
        let is_external = log.external().is_some();
        let publisher = Publisher::new(
            &partitions,
            config.publish.clone(),
            policies,
            config.hub.max_topics_per_stream,
            lifecycle.clone(),
            is_external,
        );
        let publisher = Arc::new(publisher);
        let revocations = Arc::new(Revocations::new(
            config.access.revocations_kept,
            config.access.max_revocations,
        ));
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
        let stores = access_stores(&config, &stop)?;
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
struct Backend {
    partitions: Vec<Addr<Partition>>,
    log: LogSource,
    cluster: Arc<dyn Cluster>,
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
            let partitions = start(config, &template, Some(&log), metrics, stop)?;
            let replicas = crate::log::PartitionReplicas(partitions.clone());
            redis.begin(Arc::new(replicas), stop.clone());
            let (log, cluster) = (LogSource::External(log), Arc::new(redis));
            return Ok(Self { partitions, log, cluster });
        }
        let partitions = start(config, &template, None, metrics, stop)?;
        let log = LogSource::Memory { epoch: template.epoch };
        Ok(Self { partitions, log, cluster: Arc::new(LocalCluster::default()) })
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

/// Starts all partitions: replicas of `log`, or each with its own log in memory.
fn start(
    config: &Config,
    template: &PartitionSpec,
    log: Option<&Arc<dyn Log>>,
    metrics: &Arc<Metrics>,
    stop: &CancellationToken,
) -> Result<Vec<Addr<Partition>>, StartError> {
    let others = Arc::new(OnceLock::new());
    let partition = |number| {
        let spec = PartitionSpec { partition: number, ..template.clone() };
        let state = match log {
            None => PartitionState::Memory(Box::new(MemoryPartition::new(spec))),
            Some(_) => {
                let interest_grace = config.redis.interest_grace;
                let spec = ReplicaSpec { partition: spec, interest_grace };
                PartitionState::Replica(Box::new(Replica::new(spec)))
            }
        };
        // Redis sets the clock; without it, one partition does.
        let clock = template.clock.clone();
        let clock = (log.is_none() && number == 0).then_some(clock);
        Partition::new(number, state, log.cloned(), others.clone(), metrics.clone(), clock)
    };
    let partitions = (0..config.hub.partitions).map(partition).collect();
    // A message per publish permit, and for each manager one `ChangeInterest` and one
    // `DeliveriesTaken`.
    let mailbox_capacity = config.publish.max_pending + 2 * MAX_MANAGERS + 1;
    let addrs = start_partitions(partitions, config.hub.threads, mailbox_capacity, stop)?;
    let _ = others.set(addrs.clone());
    Ok(addrs)
}

type Stores = (Arc<dyn FollowGraph>, Arc<dyn Preferences>);

/// The application's stores, and the hub's own in place of missing ones.
fn stores(
    graph: Option<Arc<dyn FollowGraph>>,
    preferences: Option<Arc<dyn Preferences>>,
    config: &Config,
    stop: &CancellationToken,
) -> Result<Stores, StartError> {
    if let (Some(graph), Some(preferences)) = (&graph, &preferences) {
        return Ok((graph.clone(), preferences.clone()));
    }
    let own = own_stores(config, stop)?;
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
