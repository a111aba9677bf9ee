//! The bridge actor. It finds the node of each partition, keeps one link to each node, and sends
//! publish batches. It restarts links forever.
//!
//! Not here: pushes and queries (`link`), and the order within a partition (`publish_queue`).

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use actix::{
    Actor, ActorFutureExt, Addr, AsyncContext, Context, Handler, MessageResult, WrapFuture,
};
use fanfare_core::{
    error::PublishError,
    log::{LogRequest, Replicas},
};
use redis::{RedisError, aio::ConnectionLike};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    link::{self, BridgeRecipients, LinkSpec},
    messages::{
        AppendToRedis, BeginBridge, LinkBegan, LinkEnded, ReconnectPartition, RequestFromRedis,
    },
    pending_replies::PendingReplies,
    publish_path::{LinkError, PublishPath},
    publish_queue::{BatchOutcome, PublishBatch, PublishQueue},
    script,
    settings::{BridgeSettings, Contact},
    target::Endpoint,
};

/// Bounds of the pause before a link is restarted. The pause doubles with each failure in a row.
/// It is shortened by up to half at random, so that instances do not reconnect together.
const MIN_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_secs(2);

/// A link older than this resets the back-off.
const LASTING: Duration = Duration::from_secs(2);

/// Pause before the retry of a batch temporarily refused by Redis.
const RETRY: Duration = Duration::from_millis(20);

/// Added to the wait for the end of a key: the clocks of Redis and of this instance differ in speed.
const END_MARGIN: Duration = Duration::from_millis(2);

/// A node with partitions.
struct RedisNode {
    partitions: Vec<u16>,
    generation: u64,
    requests: mpsc::UnboundedSender<(u16, Vec<LogRequest>)>,
    task: JoinHandle<()>,
    /// The start of its link; `None` while the link is opening.
    began_at: Option<Instant>,
}

/// One per instance. The hub's stop token ends it and refuses all waiting publishes.
pub struct RedisBridge {
    pub(super) settings: Arc<BridgeSettings>,
    replicas: Option<Arc<dyn Replicas>>,
    nodes: BTreeMap<Endpoint, RedisNode>,
    pub(super) queues: Vec<PublishQueue>,
    pub(super) pending: PendingReplies,
    next_generation: u64,
    failures: u32,
    is_discovering: bool,
    was_up: bool,
    /// Whether the current outage is in the log already.
    has_failed: bool,
}

impl RedisBridge {
    /// Starts the actor on this thread.
    pub fn start(settings: Arc<BridgeSettings>) -> Addr<Self> {
        let queues = (0..settings.partition_count).map(|_| PublishQueue::default()).collect();
        Self::create(|ctx| {
            // Permits and limits bound the messages; see the table in `lib.rs`.
            ctx.set_mailbox_capacity(1024);
            Self {
                settings,
                replicas: None,
                nodes: BTreeMap::new(),
                queues,
                pending: PendingReplies::default(),
                next_generation: 1,
                failures: 0,
                is_discovering: false,
                was_up: false,
                has_failed: false,
            }
        })
    }

    /// Finds the node of each partition, after a pause growing with each failure.
    fn discover(&mut self, ctx: &mut Context<Self>) {
        // One discovery at a time. Every failing link and batch asks for one, and its answer is
        // the same for all of them.
        if std::mem::replace(&mut self.is_discovering, true) {
            return;
        }
        let wait = backoff(self.failures);
        self.failures = self.failures.saturating_add(1);
        let settings = self.settings.clone();
        let found = async move {
            sleep(wait).await;
            settings.target.discover(settings.partition_count, settings.timeout).await
        };
        ctx.spawn(found.into_actor(self).map(|found, this, ctx| {
            this.is_discovering = false;
            match found {
                Ok(nodes) => this.reconcile(nodes, ctx),
                Err(error) => {
                    this.note_failure(&error.into());
                    this.discover(ctx);
                }
            }
        }));
    }

    /// One partition of each node.
    pub(crate) fn first_partitions(&self) -> Vec<u16> {
        self.nodes.values().filter_map(|node| node.partitions.first().copied()).collect()
    }

    /// Ends the links of changed nodes, then starts the missing links.
    fn reconcile(&mut self, nodes: BTreeMap<Endpoint, Vec<u16>>, ctx: &mut Context<Self>) {
        let is_as_before = |endpoint: &Endpoint, node: &RedisNode| {
            nodes.get(endpoint).is_some_and(|partitions| *partitions == node.partitions)
        };
        let changed: Vec<Endpoint> = self
            .nodes
            .iter()
            .filter(|(endpoint, node)| !is_as_before(endpoint, node))
            .map(|(endpoint, _)| endpoint.clone())
            .collect();
        // Drop before start: a node with other partitions needs a new link, and a dropped node
        // clears the publish paths of its partitions.
        changed.iter().for_each(|endpoint| self.drop_node(endpoint));
        for (endpoint, partitions) in nodes {
            if !self.nodes.contains_key(&endpoint) {
                self.start_link(endpoint, partitions, ctx);
            }
        }
    }

    fn start_link(&mut self, endpoint: Endpoint, partitions: Vec<u16>, ctx: &mut Context<Self>) {
        let generation = self.next_generation;
        self.next_generation += 1;
        let (sender, requests) = mpsc::unbounded_channel();
        let Some(replicas) = self.replicas.clone() else { return };
        let spec = LinkSpec {
            endpoint: endpoint.clone(),
            partitions: partitions.clone(),
            replicas,
            generation,
            settings: self.settings.clone(),
            bridge: BridgeRecipients {
                began: ctx.address().recipient(),
                call_received: ctx.address().recipient(),
                call_answered: ctx.address().recipient(),
            },
            requests,
        };
        let bridge = ctx.address();
        let ended = endpoint.clone();
        let task = actix::spawn(async move {
            let error = link::run(spec).await;
            bridge.do_send(LinkEnded { endpoint: ended, generation, error });
        });
        let node = RedisNode { partitions, generation, requests: sender, task, began_at: None };
        self.nodes.insert(endpoint, node);
    }

    /// Ends a node's link. Waiting publishes are refused; batches in flight get their own answers.
    fn drop_node(&mut self, endpoint: &Endpoint) {
        let Some(node) = self.nodes.remove(endpoint) else { return };
        node.task.abort();
        for partition in node.partitions {
            let queue = &mut self.queues[usize::from(partition)];
            queue.path = None;
            queue.refuse();
            // One per link, so it may pass the bound of the partition's mailbox.
            if let Some(replicas) = &self.replicas {
                replicas.link_down(partition);
            }
        }
        self.note_status();
    }

    /// Logs each change between up (all partitions have a link) and down.
    fn note_status(&mut self) {
        let is_up = self.queues.iter().all(|queue| queue.path.is_some());
        if is_up == std::mem::replace(&mut self.was_up, is_up) {
            return;
        }
        self.settings.status.is_up.store(is_up, Ordering::Relaxed);
        if is_up {
            self.settings.status.note_contact(Contact::Tried);
            self.has_failed = false;
            tracing::info!(instance = self.settings.instance, "linked to Redis");
        } else {
            self.settings.status.reconnects.fetch_add(1, Ordering::Relaxed);
            tracing::warn!("link to Redis lost; publishes are refused until it is up again");
        }
    }

    /// Logs a failure to connect: the first of an outage as a warning, later ones for debugging.
    fn note_failure(&mut self, error: &LinkError) {
        self.settings.status.note_contact(match error {
            LinkError::Refused(conflict) => Contact::Refused(conflict.clone()),
            _ => Contact::Tried,
        });
        if std::mem::replace(&mut self.has_failed, true) {
            tracing::debug!(%error, "not linked to Redis");
        } else {
            tracing::warn!(%error, "not linked to Redis; retrying until it is up");
        }
    }

    /// Sends the partition's next batch, unless one is in flight. Without a link, it refuses all
    /// waiting publishes.
    fn pump(&mut self, partition: u16, ctx: &mut Context<Self>) {
        let queue = &mut self.queues[usize::from(partition)];
        if queue.path.is_none() {
            return queue.refuse();
        }
        if let Some((batch, path)) = queue.next() {
            self.send(partition, batch, path, ctx);
        }
    }

    fn send(
        &mut self,
        partition: u16,
        batch: PublishBatch,
        path: PublishPath,
        ctx: &mut Context<Self>,
    ) {
        let generation = path.generation;
        let shortest_ttl = batch.shortest_ttl();
        let outcome = batch.publish(path, partition, self.settings.clone());
        ctx.spawn(outcome.into_actor(self).map(move |outcome, this, ctx| {
            let queue = &mut this.queues[usize::from(partition)];
            match outcome {
                BatchOutcome::Done(last) => {
                    // A batch of repeated ids has no new event.
                    last.into_iter().for_each(|last| queue.acknowledged.note(last));
                    let present = queue.path.as_ref().map(|path| path.generation);
                    if let Some(present) = present.filter(|present| *present != generation) {
                        // Confirmed over an ended link, perhaps by a replaced server. The present
                        // link's replica does not know; the next one's will.
                        this.end_link(present, ctx);
                    }
                    this.wait_for_end(partition, shortest_ttl, ctx);
                }
                BatchOutcome::Failed(error) => {
                    tracing::debug!(partition, %error, "publish failed in Redis");
                    // The connection is broken. The next link catches up, so no event is lost.
                    if error.is_io_error() || error.is_unrecoverable_error() {
                        this.end_link(generation, ctx);
                    }
                }
                BatchOutcome::NotYet(batch, error) => {
                    // The queue stays busy. Otherwise the next batch would overtake this one.
                    return this.retry(partition, batch, &error, ctx);
                }
            }
            this.queues[usize::from(partition)].is_busy = false;
            this.pump(partition, ctx);
        }));
    }

    /// Calls the script at the end of a key, in `wait` from now. The script removes the key, unless
    /// another instance called it before. Without this instance, the next probe of another does.
    fn wait_for_end(&mut self, partition: u16, wait: Option<Duration>, ctx: &mut Context<Self>) {
        let Some(at) = wait.and_then(|wait| Instant::now().checked_add(wait + END_MARGIN)) else {
            return;
        };
        let timer = &self.queues[usize::from(partition)].end_timer;
        if timer.as_ref().is_some_and(|(earlier, _)| *earlier <= at) {
            return;
        }
        let ended = sleep_until(at).into_actor(self).map(move |(), this: &mut Self, ctx| {
            this.queues[usize::from(partition)].end_timer = None;
            this.end_keys(partition, ctx);
        });
        let ended = ctx.spawn(ended);
        // One timer for each partition: the answer of its call names the next end.
        let timer = &mut self.queues[usize::from(partition)].end_timer;
        if let Some((_, later)) = timer.replace((at, ended)) {
            ctx.cancel_future(later);
        }
    }

    /// Calls the script without events: it removes the keys at their end.
    fn end_keys(&mut self, partition: u16, ctx: &mut Context<Self>) {
        let Some(mut path) = self.queues[usize::from(partition)].path.clone() else { return };
        let names = self.settings.names(partition);
        let call = self.settings.publish_call(&path.sha, &path.server, partition, &names);
        let command = call.command(&[]);
        let answer = async move { path.connection.req_packed_command(&command).await };
        ctx.spawn(answer.into_actor(self).map(move |answer, this, ctx| {
            match answer.and_then(script::next_end) {
                Ok(next) => this.wait_for_end(partition, next, ctx),
                // The next probe calls the script too.
                Err(error) => tracing::debug!(partition, %error, "keys not removed yet"),
            }
        }));
    }

    /// Ends the link of this generation and finds its partitions' nodes again. Ignores an earlier
    /// generation: its successor is at work already.
    fn end_link(&mut self, generation: u64, ctx: &mut Context<Self>) {
        let ended = self.nodes.iter().find(|(_, node)| node.generation == generation);
        if let Some((endpoint, node)) = ended.map(|(endpoint, node)| (endpoint.clone(), node)) {
            if node.began_at.is_some_and(|began_at| began_at.elapsed() > LASTING) {
                self.failures = 0;
            }
            self.drop_node(&endpoint);
            self.discover(ctx);
        }
    }

    /// Sends the batch again after a pause. After `timeout` since the first attempt, refuses it:
    /// Redis has run no attempt, so the refusal is certain.
    fn retry(
        &mut self,
        partition: u16,
        batch: PublishBatch,
        error: &RedisError,
        ctx: &mut Context<Self>,
    ) {
        tracing::debug!(partition, %error, "Redis temporarily refused a publish");
        // The partition may have moved, or its node may have become a replica.
        let is_elsewhere = error.is_cluster_error()
            || error.kind() == redis::ErrorKind::Server(redis::ServerErrorKind::ReadOnly);
        if is_elsewhere {
            self.discover(ctx);
        }
        let timeout = self.settings.timeout;
        ctx.spawn(sleep(RETRY).into_actor(self).map(move |(), this, ctx| {
            let queue = &mut this.queues[usize::from(partition)];
            // The path of the present link: the first attempt's link may have ended.
            match queue.path.clone() {
                Some(path) if batch.began.elapsed() < timeout => {
                    this.send(partition, batch, path, ctx);
                }
                _ => {
                    queue.is_busy = false;
                    batch.refuse(&PublishError::BridgeDown);
                    this.pump(partition, ctx);
                }
            }
        }));
    }
}

fn backoff(failures: u32) -> Duration {
    if failures == 0 {
        return Duration::ZERO;
    }
    let longest = MIN_BACKOFF.saturating_mul(1 << failures.min(10)).min(MAX_BACKOFF);
    longest.mul_f64(rand::random_range(0.5..1.0))
}

impl Actor for RedisBridge {
    type Context = Context<Self>;
}

impl Handler<BeginBridge> for RedisBridge {
    type Result = ();

    fn handle(&mut self, message: BeginBridge, ctx: &mut Self::Context) {
        self.replicas = Some(message.replicas);
        self.discover(ctx);
        let stopped = message.stop.cancelled_owned().into_actor(self);
        ctx.spawn(stopped.map(|(), this: &mut Self, ctx| {
            this.nodes.values().for_each(|node| node.task.abort());
            this.queues.iter_mut().for_each(PublishQueue::refuse);
            actix::ActorContext::stop(ctx);
        }));
    }
}

impl Handler<LinkBegan> for RedisBridge {
    type Result = MessageResult<LinkBegan>;

    fn handle(&mut self, message: LinkBegan, ctx: &mut Self::Context) -> Self::Result {
        let mut acknowledged = HashMap::new();
        let node = self.nodes.get_mut(&message.endpoint);
        // A dropped link may report its start late. Its path must not replace its successor's.
        let Some(node) = node.filter(|node| node.generation == message.generation) else {
            return MessageResult(acknowledged);
        };
        node.began_at = Some(Instant::now());
        for partition in node.partitions.clone() {
            let queue = &mut self.queues[usize::from(partition)];
            queue.path = Some(message.path.clone());
            acknowledged.insert(partition, queue.acknowledged.clone());
            self.pump(partition, ctx);
        }
        self.note_status();
        MessageResult(acknowledged)
    }
}

impl Handler<LinkEnded> for RedisBridge {
    type Result = ();

    fn handle(&mut self, message: LinkEnded, ctx: &mut Self::Context) {
        let LinkEnded { endpoint, generation, error } = message;
        let node = self.nodes.get(&endpoint);
        let Some(node) = node.filter(|node| node.generation == generation) else { return };
        match node.began_at {
            Some(_) if !matches!(error, LinkError::Refused(_)) => {
                tracing::warn!(node = %endpoint, %error, "a link to Redis ended");
            }
            _ => self.note_failure(&error),
        }
        self.end_link(generation, ctx);
    }
}

impl Handler<AppendToRedis> for RedisBridge {
    type Result = ();

    fn handle(&mut self, message: AppendToRedis, ctx: &mut Self::Context) {
        let AppendToRedis { partition, publishes } = message;
        self.queues[usize::from(partition)].waiting.extend(publishes);
        self.pump(partition, ctx);
    }
}

impl Handler<RequestFromRedis> for RedisBridge {
    type Result = ();

    fn handle(&mut self, message: RequestFromRedis, _: &mut Self::Context) {
        let RequestFromRedis { partition, generation, requests } = message;
        let node = self.nodes.values().find(|node| node.generation == generation);
        if let Some(node) = node {
            // If the link has ended, the request is dropped: the next link makes the replica catch
            // up.
            let _ = node.requests.send((partition, requests));
        }
    }
}

impl Handler<ReconnectPartition> for RedisBridge {
    type Result = ();

    /// Restarts the link of the partition's node. Only a new link makes the rebuilt replica read
    /// its missed events.
    fn handle(&mut self, message: ReconnectPartition, ctx: &mut Self::Context) {
        let node = self.nodes.values().find(|node| node.partitions.contains(&message.0));
        if let Some(generation) = node.map(|node| node.generation) {
            self.end_link(generation, ctx);
        }
    }
}
