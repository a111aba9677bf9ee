//! The hub: the cheap handle held by applications, and the parts behind it. `builder` starts the
//! actors.

mod access;
mod access_sources;
mod admission;
mod builder;
mod caller;
mod cursor;
#[cfg(feature = "log")]
mod durable;
mod fan_out;
mod feeds;
mod follows;
mod kept_revocations;
mod live_topics;
mod operator;
mod publishing;
mod stopping;

use std::{
    cell::RefCell,
    collections::HashMap,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use actix::{Actor, Addr};
use actix_web::dev::RequestHead;
use fanfare_core::{
    access::{Grant, RevocationStore},
    budget::HistoryBudget,
    connection::WorkerContext,
    error::{AccessError, SubscribeError},
    id_budget::IdBudget,
    subscription::{ResolvedSubscription, Subscription},
    user::User,
    wall_clock::WallClock,
};
use tokio::{sync::Semaphore, time::timeout};
use tokio_util::task::TaskTracker;

pub(crate) use self::admission::UseKind;
pub(crate) use self::caller::{ActingError, Caller};
pub(crate) use self::operator::Operator;
pub use self::{access::RevokeError, builder::HubBuilder};

use self::follows::Follows;
use crate::{
    access::{Access, Action, Tickets},
    actors::{
        connection::{
            Connection, ConnectionHost, NewStream, PipeReader, RunQueue, StreamHold, Tally, Worker,
        },
        topic_manager::{Drain, ManagerHost, TopicManager},
    },
    addresses::{Addresses, OfStream, Share},
    clock::{MovableClock, now},
    config::Config,
    error::StartError,
    fan_out::FanOutRouter,
    instances::{Instances, MAX_ASKS},
    lifecycle::Lifecycle,
    log::LogSource,
    metrics::Metrics,
    publisher::Publisher,
    request_budget::RequestBudget,
    users::Users,
};

/// A running hub. Clones are cheap handles to the same hub, also for other threads. Dropping the
/// last handle ends every stream with `shutdown` and stops the actors without waiting for them; for
/// an orderly end call [`Self::drain`] first.
#[derive(Clone)]
pub struct Hub {
    running: Arc<LastHandle>,
}

/// Ends the hub with its last handle.
struct LastHandle {
    parts: Arc<HubParts>,
}

impl Drop for LastHandle {
    fn drop(&mut self) {
        self.parts.lifecycle.stop.cancel();
    }
}

/// The budgets of remembered ids.
pub(crate) struct RememberedIds {
    pub publishes: Arc<IdBudget>,
    pub fan_outs: Arc<IdBudget>,
}

impl RememberedIds {
    pub fn used_bytes(&self) -> usize {
        self.publishes.used_bytes() + self.fan_outs.used_bytes()
    }
}

/// The parts of a hub. Each actor gets only its own.
pub(crate) struct HubParts {
    pub config: Config,
    pub publisher: Arc<Publisher>,
    pub log: LogSource,
    pub instances: Arc<Instances>,
    pub follows: Arc<Follows>,
    pub budget: Arc<HistoryBudget>,
    pub remembered: RememberedIds,
    pub metrics: Arc<Metrics>,
    pub clock: Arc<WallClock>,
    pub users: Users,
    pub requests: Arc<RequestBudget>,
    pub access: Arc<Access>,
    pub tickets: Tickets,
    /// The revocations for all instances, with Redis.
    pub kept_revocations: Option<Arc<dyn RevocationStore>>,
    pub addresses: Addresses,
    pub lifecycle: Arc<Lifecycle>,
    pub started_at: Instant,
    /// The clock of a test.
    pub movable_clock: Option<MovableClock>,
    /// Streams with bytes still to write, ended ones included. They hold sockets and memory, so
    /// `hub.max_connections` bounds them.
    pub bodies: TaskTracker,
    connections: Arc<ConnectionHost>,
    managers: Arc<ManagerHost>,
    router: Addr<FanOutRouter>,
    /// `fanout.max_pending` permits for running and waiting fan-outs.
    fan_outs: Arc<Semaphore>,
}

thread_local! {
    /// The worker of each hub with streams on this thread. The key is the address of the hub's
    /// [`ManagerHost`]: unique as long as the worker's topic manager holds the host.
    static WORKERS: RefCell<HashMap<usize, Rc<Worker>>> = RefCell::new(HashMap::new());
}

impl Hub {
    /// Starts a hub. It binds no socket and sets no global logger or metrics. Its partitions run on
    /// their own threads (`hub.threads`), so this needs no runtime and works under any. Streams
    /// need an actix-web worker.
    ///
    /// With `redis.url` set, the hub starts also while Redis is unavailable; it is not ready until
    /// the connection is up (see [`Self::is_ready`]).
    ///
    /// # Errors
    /// [`StartError`]: the configuration is invalid, or a thread cannot be started.
    pub fn start(config: Config) -> Result<Self, StartError> {
        Self::builder(config).start()
    }

    /// A builder, for an application with its own follow graph or preferences. A store not given to
    /// the builder is in Redis if `redis.url` is set, else in memory.
    pub fn builder(config: Config) -> HubBuilder {
        HubBuilder::new(config)
    }

    /// Waits for the first contact to Redis, if configured: made, failed, or refused. A failed one
    /// is no error: the hub retries until Redis is available.
    ///
    /// # Errors
    /// [`StartError::Cluster`]: a setting differs from the other instances of the cluster. The hub
    /// stays unready as long as it does.
    pub async fn first_contact(&self) -> Result<(), StartError> {
        Ok(self.parts().instances.cluster.first_contact().await?)
    }

    /// Drains the hub: refuses new streams and publishes, delivers the accepted events, and ends
    /// every stream with `shutdown`. Each client gets a random time within `window` for its
    /// reconnect. Resolves when every stream is written to its client, at the latest after
    /// `window`. A drained hub stays closed.
    pub async fn drain(&self, window: Duration) {
        let parts = self.parts();
        parts.lifecycle.begin_drain();
        let end = async {
            // Wait for the events in flight, so that `shutdown` comes after them. Only for half
            // the window: one stuck worker holds its permits forever, and the streams of all
            // others would end without `shutdown`.
            if timeout(window / 2, parts.publisher.drain()).await.is_err() {
                tracing::warn!("a worker does not take its events; draining without it");
            }
            parts.instances.managers().iter().for_each(|manager| manager.do_send(Drain { window }));
            // A tracker resolves only if closed and empty. New streams are refused already.
            parts.bodies.close();
            parts.bodies.wait().await;
        };
        if timeout(window, end).await.is_err() {
            tracing::warn!(window_ms = window.as_millis() as u64, "drain window passed");
        }
        parts.publisher.close();
        parts.log.close();
    }

    /// Whether the hub takes new streams and publishes: every partition runs, no drain has begun,
    /// Redis, if configured, is available, and a log on disk has not failed. Limits do not count.
    pub fn is_ready(&self) -> bool {
        let parts = self.parts();
        let is_loaded = parts.instances.revocations.is_loaded();
        let is_loaded = is_loaded && parts.log.failure().is_none();
        is_loaded && parts.publisher.is_running() && parts.check_open().is_ok()
    }

    /// The number of open streams on this instance.
    pub fn connections(&self) -> usize {
        self.parts().open_streams()
    }

    pub(crate) fn parts(&self) -> &Arc<HubParts> {
        &self.running.parts
    }

    /// The caller of a request.
    ///
    /// # Errors
    /// The request has an invalid credential, or the application's decision is unavailable.
    pub(crate) async fn caller(
        &self,
        head: &RequestHead,
        action: Action<'_>,
    ) -> Result<Caller, AccessError> {
        let grant = self.parts().access.grant_of(head, action).await?;
        Ok(Caller::new(self.clone(), grant))
    }

    /// The caller with a token in the body of its request.
    ///
    /// # Errors
    /// The token is invalid.
    pub(crate) async fn caller_with_token(&self, token: &str) -> Result<Caller, AccessError> {
        let grant = self.parts().access.grant_of_token(token).await?;
        Ok(Caller::new(self.clone(), grant))
    }

    /// [`Self::caller`] before the topics are known. `None` if the application decides.
    ///
    /// # Errors
    /// The request has an invalid credential.
    pub(crate) async fn caller_without_topics(
        &self,
        head: &RequestHead,
    ) -> Result<Option<Caller>, AccessError> {
        let grant = self.parts().access.grant_without_topics(head).await?;
        Ok(grant.map(|grant| Caller::new(self.clone(), grant)))
    }

    /// Creates a stream on this worker and spawns its connection.
    pub(crate) fn spawn_stream(
        &self,
        subscription: Subscription,
        share: Option<Share<OfStream>>,
        grant: &Arc<Grant>,
    ) -> Result<PipeReader, SubscribeError> {
        self.create_stream(subscription, share, grant).map(NewStream::start)
    }

    /// Creates a stream on this worker. The transport runs its connection.
    ///
    /// The subscription is checked first: an invalid request gets its own error also while the hub
    /// is draining or Redis is unavailable.
    pub(crate) fn create_stream(
        &self,
        subscription: Subscription,
        share: Option<Share<OfStream>>,
        grant: &Arc<Grant>,
    ) -> Result<NewStream, SubscribeError> {
        let parts = self.parts();
        let limits = parts.config.hub.stream_limits();
        let mut resolved = subscription.resolve(limits, rand::random(), grant)?;
        resolved.allow_clock_margin(parts.time_margin());
        parts.check_open()?;
        parts.create(resolved, share, grant.user())
    }
}

impl HubParts {
    /// Streams in a replay longer than a page.
    pub fn replays(&self) -> usize {
        self.managers.spec.replays.count()
    }

    /// The time subtracted from the times of cursors.
    pub fn time_margin(&self) -> Duration {
        self.config.redis.margin().max(self.log.time_margin())
    }

    /// Whether streams may be opened. Their number is checked by [`Self::create`].
    pub fn check_open(&self) -> Result<(), SubscribeError> {
        match (self.lifecycle.is_draining(), self.instances.cluster.status().is_up) {
            (true, _) => Err(SubscribeError::Draining),
            (false, false) => Err(SubscribeError::BridgeDown),
            (false, true) => Ok(()),
        }
    }

    /// Takes a stream's share of the client's address.
    pub fn stream_share(
        &self,
        head: &RequestHead,
    ) -> Result<Option<Share<OfStream>>, SubscribeError> {
        let share = self.addresses.open_stream(head.peer_addr, &head.headers);
        share.map_err(|_| SubscribeError::TooManyStreams)
    }

    pub fn open_streams(&self) -> usize {
        self.connections.open_count.load(Ordering::Relaxed)
    }

    fn create(
        &self,
        resolved: ResolvedSubscription,
        share: Option<Share<OfStream>>,
        user: Option<&User>,
    ) -> Result<NewStream, SubscribeError> {
        // Take the token before the check: the count then includes this stream, so workers opening
        // streams at the same time cannot pass the limit together.
        let body = self.bodies.token();
        if self.bodies.len() > self.config.hub.max_connections {
            return Err(SubscribeError::AtCapacity);
        }
        let of_user = self.users.open_stream(user);
        let of_user = of_user.map_err(|_| SubscribeError::TooManyStreams)?;
        let held = StreamHold::new(body, share, of_user);
        Ok(Connection::create(self.worker(), resolved, held))
    }

    /// Room for `OpenStream` and `CloseStream` of every stream, for the partitions' deliveries, for
    /// calls, and for control. A full mailbox would never wake a waiting `send`.
    fn manager_mailbox_capacity(&self) -> usize {
        let partitions = usize::from(self.config.hub.partitions);
        2 * self.config.hub.max_connections + 2 * partitions + MAX_ASKS + 64
    }

    /// This thread's worker. The first stream of a thread starts it. Workers of stopped hubs are
    /// dropped here.
    pub fn worker(&self) -> Rc<Worker> {
        let key = Arc::as_ptr(&self.managers) as usize;
        WORKERS.with_borrow_mut(|workers| {
            workers.retain(|_, worker| worker.manager.connected());
            workers.entry(key).or_insert_with(|| self.start_worker()).clone()
        })
    }

    fn start_worker(&self) -> Rc<Worker> {
        if let Some(clock) = &self.movable_clock {
            clock.install();
        }
        let metrics = self.metrics.add_worker();
        let tally = Rc::new(Tally::default());
        let queue = RunQueue::start(metrics.clone(), tally.clone());
        let manager = self.instances.add_manager(|number| {
            TopicManager::create(|ctx| {
                ctx.set_mailbox_capacity(self.manager_mailbox_capacity());
                TopicManager::new(self.managers.clone(), metrics.clone(), queue.clone(), number)
            })
        });
        let spec = Arc::new(self.config.connection_spec());
        Rc::new(Worker {
            started_at: now(),
            host: self.connections.clone(),
            manager,
            metrics,
            queue,
            tally,
            spec,
            names: RefCell::default(),
            context: RefCell::new(WorkerContext::new(self.clock.clone())),
        })
    }
}
