//! The bridge over Redis: sequence, log and relay are in Redis, one atomic script call a
//! publish; what mirrors ask and are told goes over links, one to each node.
//!
//! | from | to | message | bound |
//! |---|---|---|---|
//! | hub | bridge | `BeginBridge` | one |
//! | partition | bridge | `PublishInRedis` | each event holds its place, `publish.max_pending` a partition |
//! | partition | bridge | `AskRedis` | one a turn of the partition; what is asked is for streams, which are bounded, or one catching up |
//! | link | partition | `TakeNews` | one unanswered; what comes meanwhile waits in the link, 64 MiB, past which the link ends and catches up later |
//! | link | bridge | `LinkBegan`, `LinkEnded` | one of each a link |
//! | bridge | partition | `TakeNews` (a link has ended) | one a link |
//! | link | bridge | `CallAnswered` | one an instance and call |
//! | link | bridge | `CallReceived` | as many as other instances have under way, 1,024 each |
//! | hub | bridge | `CallInstances`, `SettleInRedis`, `AskLastSequence` | one a request; 1,024 calls under way |

mod actor;
mod calls;
mod clock;
mod lane;
mod link;
mod message;
mod questions;
mod script;
mod target;
#[cfg(test)]
mod tests;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use actix::Addr;
use futures_util::{FutureExt, future::BoxFuture};
use tokio_util::sync::CancellationToken;

use actor::{AskRedis, BeginBridge, LinkBegan, PublishInRedis, ReconnectPartition, RedisBridge};
use calls::{CallInstances, ServeCalls};
use questions::{AskLastSequence, SettleInRedis};
use script::{Names, PublishCall};
pub(crate) use target::{Endpoint, Target};
#[cfg(test)]
pub(crate) use tests::TestRedis;

use super::{Bridge, BridgeStatus, Execute, InstanceAnswers, InstanceCall};
use crate::{
    actors::partition::{Partition, Relay, Relayed},
    config::{Config, Redis},
    domain::{policy::Policies, relay::Request, topic::Topic},
    error::{ChangeError, PublishError},
    metrics::Metrics,
};

/// What is read at once at least, however little history an instance keeps in memory: a
/// topic of the default policy with the largest events.
const MIN_READ_BYTES: usize = 64 * 1024 * 1024;

/// What all parts of the bridge know.
#[derive(Debug)]
struct Settings {
    target: Target,
    prefix: String,
    timeout: Duration,
    probe: Duration,
    /// A name of this instance's own.
    instance: String,
    partition_count: u16,
    /// Topics that a partition remembers.
    max_topics: usize,
    window_ms: u64,
    /// Bytes that are read at once for the streams of a partition.
    max_read_bytes: usize,
    policies: Arc<Policies>,
    epochs: Arc<Epochs>,
    status: Arc<Status>,
    metrics: Arc<Metrics>,
}

impl Settings {
    fn publish_call<'a>(&self, sha: &'a str, server: &'a str, names: &'a Names) -> PublishCall<'a> {
        let (max_topics, window_ms) = (self.max_topics, self.window_ms);
        let latest_epoch = self.epochs.latest();
        PublishCall { sha, names, server, latest_epoch, max_topics, window_ms }
    }
}

/// The epochs that were last seen. All partitions are to have the latest.
#[derive(Debug)]
struct Epochs(Box<[AtomicU64]>);

impl Epochs {
    fn new(partition_count: u16) -> Self {
        Self((0..partition_count).map(|_| AtomicU64::new(0)).collect())
    }

    fn note(&self, partition: u16, epoch: u64) {
        self.0[usize::from(partition)].store(epoch, Ordering::Relaxed);
    }

    fn latest(&self) -> u64 {
        self.0.iter().map(|epoch| epoch.load(Ordering::Relaxed)).max().unwrap_or_default()
    }

    /// That of a partition, and the latest of all.
    fn of(&self, partition: u16) -> (u64, u64) {
        (self.0[usize::from(partition)].load(Ordering::Relaxed), self.latest())
    }

    /// Those of the partitions that are behind.
    fn lagging(&self, partitions: impl Iterator<Item = u16>) -> Vec<u16> {
        let is_behind = |partition: &u16| {
            let (own, latest) = self.of(*partition);
            own != 0 && own < latest
        };
        partitions.filter(is_behind).collect()
    }
}

/// How the bridge fares, for whoever asks.
#[derive(Debug, Default)]
struct Status {
    is_up: AtomicBool,
    reconnects: AtomicU64,
    lag_micros: AtomicU64,
}

impl Status {
    fn note_lag(&self, lag: Duration) {
        self.lag_micros.store(lag.as_micros() as u64, Ordering::Relaxed);
    }
}

/// The bridge as hub and partitions hold it.
#[derive(Debug, Clone)]
pub(crate) struct RedisLink {
    addr: Addr<RedisBridge>,
    status: Arc<Status>,
    epochs: Arc<Epochs>,
    instance: Arc<str>,
}

impl RedisLink {
    /// Makes the actor; it begins with [`BeginBridge`]. To be called on the thread that it is
    /// to run on.
    pub fn start(
        config: &Config,
        target: Target,
        policies: Arc<Policies>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let Redis { prefix, timeout, probe, .. } = config.redis.clone();
        let instance = format!("{:016x}", rand::random::<u64>());
        let status = Arc::new(Status::default());
        let epochs = Arc::new(Epochs::new(config.hub.partitions));
        let settings = Settings {
            target,
            prefix,
            timeout,
            probe,
            instance: instance.clone(),
            partition_count: config.hub.partitions,
            max_topics: config.hub.max_idle_topics.div_ceil(config.hub.partitions.into()).max(1),
            window_ms: config.publish.idempotency_window.as_millis() as u64,
            max_read_bytes: config.history.max_bytes.max(MIN_READ_BYTES),
            policies,
            epochs: epochs.clone(),
            status: status.clone(),
            metrics,
        };
        let addr = RedisBridge::start(Arc::new(settings));
        Self { addr, status, epochs, instance: instance.into() }
    }

    /// Tells it where the partitions are.
    pub fn begin(&self, partitions: Vec<Addr<Partition>>, stop: CancellationToken) {
        self.addr.do_send(BeginBridge { partitions, stop });
    }
}

impl RedisLink {
    /// Tells it who executes what other instances ask.
    pub fn serve(&self, executor: Box<dyn Execute>) {
        self.addr.do_send(ServeCalls(executor));
    }
}

impl Relay for RedisLink {
    fn publish(&self, partition: u16, publishes: Vec<Relayed>) {
        self.addr.do_send(PublishInRedis { partition, publishes });
    }

    fn ask(&self, partition: u16, generation: u64, requests: Vec<Request>) {
        self.addr.do_send(AskRedis { partition, generation, requests });
    }

    fn reconnect(&self, partition: u16) {
        self.addr.do_send(ReconnectPartition(partition));
    }
}

impl Bridge for RedisLink {
    fn status(&self) -> BridgeStatus {
        BridgeStatus {
            kind: "redis",
            is_up: self.status.is_up.load(Ordering::Relaxed),
            instance: Some(self.instance.to_string()),
            reconnects: self.status.reconnects.load(Ordering::Relaxed),
            lag_ms: self.status.lag_micros.load(Ordering::Relaxed) as f64 / 1000.0,
        }
    }

    fn epoch(&self) -> Option<u64> {
        Some(self.epochs.latest()).filter(|epoch| *epoch != 0)
    }

    fn settle(
        &self,
        posts: Topic,
        name: String,
        is_pull: bool,
    ) -> BoxFuture<'static, Result<bool, PublishError>> {
        let answer = self.addr.send(SettleInRedis { posts, name, is_pull });
        answer.map(|answer| answer.unwrap_or(Err(PublishError::Draining))).boxed()
    }

    fn call_all(
        &self,
        partition: u16,
        call: &InstanceCall,
        limit: Option<Duration>,
    ) -> Option<BoxFuture<'static, Result<InstanceAnswers, ChangeError>>> {
        let text = serde_json::to_string(call).expect("plain texts and numbers serialize");
        let answers = self.addr.send(CallInstances { partition, text, limit });
        Some(answers.map(|answers| answers.unwrap_or(Err(ChangeError::Unconfirmed))).boxed())
    }

    fn last_sequence(&self, topic: Topic) -> BoxFuture<'static, Option<u64>> {
        let answer = self.addr.send(AskLastSequence(topic));
        answer.map(|answer| answer.ok().flatten()).boxed()
    }
}
