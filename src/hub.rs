//! The hub: starts the actors, and is the cheap handle that applications hold.

mod builder;
mod fanout;
mod feeds;
mod follows;
mod instances;
mod publishing;
mod threads;

use std::{
    any::Any,
    cell::RefCell,
    collections::HashMap,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use actix::{Actor, Addr};
use actix_web::{HttpRequest, HttpResponse, dev::Extensions, web::ServiceConfig};
use futures_util::future::join_all;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::{sync::Semaphore, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) use self::publishing::{Publish, PublishAnswers};
pub use self::{
    builder::HubBuilder,
    fanout::{FanOutMode, FanOutReport},
};
use crate::{
    actors::{
        StreamId,
        connection::{Connection, ConnectionSpec, NewStream, PipeReader, Worker},
        fanout::FanoutRouter,
        partition::Partition,
        topic_manager::{Drain, TopicManager},
    },
    bridge::{Bridge, TopicStatus},
    config::Config,
    domain::{budget::HistoryBudget, event::Event, topic::Topic},
    error::{PublishError, StartError, SubscribeError},
    follow::{FollowGraph, Preferences},
    http,
    metrics::Metrics,
    subscription::Subscription,
    transport,
};

/// Questions to a manager, and changes of its streams, that may be on their way at once.
const MAX_ASKS: usize = 1024;

/// The answer to a publish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Published {
    /// The event's cursor: a stream that resumes from it gets what came after.
    pub event_id: String,
    pub topic: String,
    pub partition: u16,
    /// The event's number in its partition, from 1.
    pub sequence: u64,
    /// Streams of this instance that the event was queued for.
    pub receivers: usize,
}

/// A running hub. Clones are handles to the same hub; when the last is dropped, its streams
/// end with `shutdown` and its actors stop.
#[derive(Clone)]
pub struct Hub {
    running: Arc<Running>,
}

/// Ends the hub with its last handle.
struct Running {
    shared: Arc<Shared>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

/// What the actors of a hub have in common. Nothing in it is locked on an event's way.
pub(crate) struct Shared {
    pub config: Config,
    pub partitions: Vec<PartitionHandle>,
    pub bridge: Box<dyn Bridge>,
    pub graph: Arc<dyn FollowGraph>,
    pub preferences: Arc<dyn Preferences>,
    pub budget: Arc<HistoryBudget>,
    pub metrics: Arc<Metrics>,
    pub stop: CancellationToken,
    pub started_at: Instant,
    /// Streams whose transport has not taken all of them, or lost its client. They hold
    /// sockets and memory, so they are what is bounded.
    pub bodies: TaskTracker,
    /// Streams whose connections run.
    pub open_streams: AtomicUsize,
    is_draining: AtomicBool,
    next_id: AtomicU64,
    /// Hides in clients' ids how many streams there were.
    client_key: u64,
    pub router: Addr<FanoutRouter>,
    /// Places for fan-outs that run or wait.
    fan_outs: Arc<Semaphore>,
    /// Changes of what users follow and mute, by a hash of their names: one at a time.
    follow_turns: [tokio::sync::Mutex<()>; 64],
    /// Places for what managers are asked and changed at once.
    asks: Semaphore,
    /// Only touched when a worker's first stream opens, at the end, and where streams are
    /// changed.
    managers: Mutex<Vec<Addr<TopicManager>>>,
}

/// A partition as publishers and managers reach it.
pub(crate) struct PartitionHandle {
    pub addr: Addr<Partition>,
    /// Places for publishes that are not yet delivered to every worker.
    places: Arc<Semaphore>,
}

impl PartitionHandle {
    #[cfg(test)]
    pub async fn take_all_places(&self) -> tokio::sync::OwnedSemaphorePermit {
        let count = self.places.available_permits() as u32;
        self.places.clone().acquire_many_owned(count).await.expect("not draining")
    }
}

thread_local! {
    /// The topic manager of each hub that has streams on this worker thread, by the hub's
    /// address, which is its own as long as the manager holds the hub's parts.
    static WORKERS: RefCell<HashMap<usize, Rc<Worker>>> = RefCell::new(HashMap::new());
}

impl Hub {
    /// Starts a hub. It binds no socket and sets no global logger or metrics; its partitions
    /// run on threads of their own (`hub.threads`), so it can be started under any runtime
    /// or none. Streams are opened on actix-web's workers.
    ///
    /// # Errors
    /// A configuration that does not hold, or no threads to be had.
    pub fn start(config: Config) -> Result<Self, StartError> {
        Self::builder(config).start()
    }

    /// A hub that keeps followers and preferences elsewhere than it would by itself: in
    /// Redis if it has one, else in memory.
    pub fn builder(config: Config) -> HubBuilder {
        HubBuilder::new(config)
    }

    /// All endpoints under a prefix, for [`actix_web::App::configure`]: `/stream`, `/publish`,
    /// `/streams/{clientId}/topics`, `/topics/{topic}`, `/fanout`, `/feed`, those of followers
    /// and preferences, `/health/live`, `/health/ready`, `/stats` and `/metrics`. Whoever
    /// reaches them may use them: what is not for everybody belongs behind the application's
    /// own login.
    pub fn routes(&self, prefix: &str) -> impl FnOnce(&mut ServiceConfig) + use<> {
        http::routes(self.clone(), prefix.to_owned())
    }

    /// Opens a stream as the answer to a request. The topics are the subscription's alone;
    /// from the request come `Last-Event-ID` and, where the subscription leaves them open,
    /// the query's `types`, `batch` and `snapshot`.
    ///
    /// To be called on an actix-web worker. The answer is the stream, or the refusal that
    /// the contract names.
    pub fn stream(&self, request: &HttpRequest, subscription: Subscription) -> HttpResponse {
        http::stream::answer(self, request, subscription)
    }

    /// Publishes an event. It is answered once the event has its sequence and is in history.
    ///
    /// # Errors
    /// See [`PublishError`]. An overloaded hub lets the caller wait for `publish.max_wait`
    /// and then refuses; a refused event was not taken.
    pub async fn publish(
        &self,
        topic: impl AsRef<str>,
        event: Event,
    ) -> Result<Published, PublishError> {
        let publish = self.check(topic.as_ref(), event)?;
        let answers = self.enqueue(vec![vec![publish]]).await.await;
        answers.into_iter().flatten().next().ok_or(PublishError::Internal)?
    }

    /// Refuses new streams and publishes from now on, delivers what was published, and ends
    /// every stream with a `shutdown` that spreads the clients' return over the window.
    /// Returns when all streams are written to their clients, or after the window.
    pub async fn drain(&self, window: Duration) {
        let shared = self.shared();
        shared.is_draining.store(true, Ordering::Relaxed);
        // Publishes give their places back when every worker has their events. So whoever
        // has all places of a partition knows that nothing is under way.
        let all_places = u32::try_from(shared.config.publish.max_pending).unwrap_or(u32::MAX);
        let settle = join_all(shared.partitions.iter().map(async |partition| {
            let _all = partition.places.acquire_many(all_places).await;
            partition.places.close();
        }));
        let end = async {
            // A worker that does not answer must not keep the others' streams from being told.
            if timeout(window / 2, settle).await.is_err() {
                tracing::warn!("a worker does not take its events; draining without it");
            }
            let managers = shared.managers.lock().clone();
            managers.iter().for_each(|manager| manager.do_send(Drain { window }));
            shared.bodies.close();
            shared.bodies.wait().await;
        };
        if timeout(window, end).await.is_err() {
            tracing::warn!(window_ms = window.as_millis() as u64, "drain window passed");
        }
        shared.partitions.iter().for_each(|partition| partition.places.close());
    }

    /// For [`actix_web::HttpServer::on_connect`]: has the kernel end a connection whose client
    /// acknowledges nothing, or has no room, for `stream.write_timeout`. Without it, one that
    /// vanished without a word holds its socket for a quarter of an hour, and one that
    /// stopped reading for ever.
    pub fn on_connect(&self) -> impl Fn(&dyn Any, &mut Extensions) + Send + Sync + 'static + use<> {
        let timeout = self.shared().config.stream.write_timeout;
        move |connection, _| transport::limit_unsent(connection, timeout)
    }

    /// Whether the hub takes new streams and publishes.
    pub fn is_ready(&self) -> bool {
        let shared = self.shared();
        let runs = shared.partitions.iter().all(|partition| partition.addr.connected());
        runs && !shared.is_draining() && shared.is_bridge_up()
    }

    /// Streams that are open now.
    pub fn connections(&self) -> usize {
        self.shared().open_streams()
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.running.shared
    }

    /// Checks a publish without taking anything.
    pub(crate) fn check(&self, topic: &str, event: Event) -> Result<Publish, PublishError> {
        self.shared().check(topic, event)
    }

    /// Waits for places and then hands over, see [`Shared::enqueue`].
    pub(crate) async fn enqueue(&self, posts: Vec<Vec<Publish>>) -> PublishAnswers {
        self.shared().enqueue(posts).await
    }

    /// How a topic stands over all instances; none if Redis is away.
    pub(crate) async fn topic_status(&self, topic: Topic) -> Option<TopicStatus> {
        self.shared().topic_status(topic).await
    }

    /// Opens a stream on this worker.
    pub(crate) fn open(&self, subscription: Subscription) -> Result<PipeReader, SubscribeError> {
        self.begin(subscription).map(NewStream::spawn)
    }

    /// Opens a stream on this worker, whose connection the transport is to run.
    pub(crate) fn begin(&self, subscription: Subscription) -> Result<NewStream, SubscribeError> {
        let shared = self.shared();
        let max_topics = shared.config.hub.max_topics_per_stream;
        let wanted = subscription.resolve(max_topics)?;
        shared.check_open()?;
        let body = shared.bodies.token();
        if shared.bodies.len() > shared.config.hub.max_connections {
            return Err(SubscribeError::AtCapacity);
        }
        Ok(Connection::open(shared.clone(), shared.worker(), wanted, body))
    }
}

impl Shared {
    /// Whether streams may be opened; how many there are is looked at when one is.
    pub fn check_open(&self) -> Result<(), SubscribeError> {
        match (self.is_draining(), self.is_bridge_up()) {
            (true, _) => Err(SubscribeError::Draining),
            (false, false) => Err(SubscribeError::BridgeDown),
            (false, true) => Ok(()),
        }
    }

    pub fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed) || self.stop.is_cancelled()
    }

    /// Whether events come and go, over whatever bridge.
    pub fn is_bridge_up(&self) -> bool {
        self.bridge.status().is_up
    }

    pub fn open_streams(&self) -> usize {
        self.open_streams.load(Ordering::Relaxed)
    }

    /// A number that nothing else of this hub has.
    pub fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// The id of a stream's client: the stream's number, and a secret that nobody can guess.
    pub fn client_id(&self, stream: StreamId, secret: u64) -> String {
        format!("{:016x}{secret:016x}", stream ^ self.client_key)
    }

    /// The stream and the secret of a client's id; none if it can be that of no client.
    pub fn client(&self, id: &str) -> Option<(StreamId, u64)> {
        let id = (id.len() == 32).then(|| u128::from_str_radix(id, 16).ok()).flatten()?;
        Some(((id >> 64) as u64 ^ self.client_key, id as u64))
    }

    /// A stream's own time to wait before it reconnects: random, so that clients that were
    /// cut together do not return together.
    pub fn random_retry(&self) -> Duration {
        let (min, max) = (self.config.stream.retry_min, self.config.stream.retry_max);
        min + (max - min).mul_f64(rand::random())
    }

    /// Enough for the open and the close of every stream, the partitions' news, what is
    /// asked, and control.
    pub fn manager_mailbox_capacity(&self) -> usize {
        let partitions = usize::from(self.config.hub.partitions);
        2 * self.config.hub.max_connections + 2 * partitions + MAX_ASKS + 64
    }

    /// This thread's topic manager; started if this is the first stream here.
    pub fn worker(self: &Arc<Self>) -> Rc<Worker> {
        let key = Arc::as_ptr(self) as usize;
        WORKERS.with_borrow_mut(|workers| {
            workers.retain(|_, worker| worker.manager.connected());
            workers.entry(key).or_insert_with(|| self.start_worker()).clone()
        })
    }

    fn start_worker(self: &Arc<Self>) -> Rc<Worker> {
        let metrics = self.metrics.add_worker();
        let number = self.managers.lock().len();
        let manager = TopicManager::create(|ctx| {
            ctx.set_mailbox_capacity(self.manager_mailbox_capacity());
            TopicManager::new(self.clone(), metrics.clone(), number)
        });
        let mut managers = self.managers.lock();
        managers.retain(Addr::connected);
        managers.push(manager.clone());
        let spec = Arc::new(ConnectionSpec::new(&self.config));
        Rc::new(Worker { manager, metrics, spec, topics: RefCell::default() })
    }
}
