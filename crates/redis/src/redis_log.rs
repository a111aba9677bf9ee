//! [`RedisLog`]: a handle of the bridge actor, as the hub's `Log` and `Cluster`.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use actix::Addr;
use fanfare_core::{
    cluster::{Cluster, ClusterStatus, HandleCall, InstanceAnswers, InstanceCall, SettingConflict},
    cursor::Epoch,
    error::{ChangeError, PublishError},
    future::BoxFuture,
    log::{Append, Log, LogRequest, Replicas},
    topic::Topic,
};
use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;

use crate::{
    actor::RedisBridge,
    agreement::Agreement,
    messages::{
        AppendToRedis, BeginBridge, CallInstances, QueryHead, QueryLastSequence, QueryLinks,
        ReconnectPartition, RecordModeInRedis, RequestFromRedis, ServeCalls,
    },
    settings::{
        BridgeSettings, Contact, CountPublished, Epochs, MIN_READ_BYTES, RedisSpec, Secrets, Status,
    },
};

/// Log and cluster over Redis. All clones share one bridge actor.
#[derive(Debug, Clone)]
pub struct RedisLog {
    addr: Addr<RedisBridge>,
    status: Arc<Status>,
    epochs: Arc<Epochs>,
    instance: Arc<str>,
}

impl RedisLog {
    /// Starts the bridge actor on this thread. It connects after [`Self::begin`]. `published`
    /// counts the events new in Redis.
    pub fn start(spec: RedisSpec, published: Arc<dyn CountPublished>) -> Self {
        let instance = format!("{:016x}", rand::random::<u64>());
        let status = Arc::new(Status::default());
        let epochs = Arc::new(Epochs::new(spec.partition_count));
        let stored_bytes = spec.max_stored_bytes;
        let agreement = Agreement::new(spec.partition_count, &spec.policies, stored_bytes);
        let settings = BridgeSettings {
            target: spec.target,
            prefix: spec.prefix,
            timeout: spec.timeout,
            probe: spec.probe,
            instance: instance.clone(),
            partition_count: spec.partition_count,
            max_topics: spec.max_idle_topics.div_ceil(spec.partition_count.into()).max(1),
            window_ms: spec.idempotency_window.as_millis() as u64,
            max_read_bytes: spec.max_history_bytes.max(MIN_READ_BYTES),
            agreement,
            secrets: Secrets::new(),
            policies: spec.policies,
            clock: spec.clock,
            epochs: epochs.clone(),
            status: status.clone(),
            published,
        };
        let addr = RedisBridge::start(Arc::new(settings));
        Self { addr, status, epochs, instance: instance.into() }
    }

    /// Connects, and sends updates to these partitions until `stop` is cancelled.
    pub fn begin(&self, replicas: Arc<dyn Replicas>, stop: CancellationToken) {
        self.addr.do_send(BeginBridge { replicas, stop });
    }
}

impl Log for RedisLog {
    fn append(&self, partition: u16, appends: Vec<Append>) {
        self.addr.do_send(AppendToRedis { partition, publishes: appends });
    }

    fn request(&self, partition: u16, generation: u64, requests: Vec<LogRequest>) {
        self.addr.do_send(RequestFromRedis { partition, generation, requests });
    }

    fn reconnect(&self, partition: u16) {
        self.addr.do_send(ReconnectPartition(partition));
    }

    fn record_fan_out_mode(
        &self,
        posts: Topic,
        name: String,
        is_pull: bool,
    ) -> BoxFuture<'static, Result<bool, PublishError>> {
        let answer = self.addr.send(RecordModeInRedis { posts, name, is_pull });
        answer.map(|answer| answer.unwrap_or(Err(PublishError::Draining))).boxed()
    }

    fn head(&self, partition: u16) -> BoxFuture<'static, Option<(Epoch, u64)>> {
        let answer = self.addr.send(QueryHead(partition));
        Box::pin(async { answer.await.ok().flatten() })
    }

    fn last_sequence(&self, topic: Topic) -> BoxFuture<'static, Option<u64>> {
        let answer = self.addr.send(QueryLastSequence(topic));
        answer.map(|answer| answer.ok().flatten()).boxed()
    }

    fn epoch(&self) -> Option<u64> {
        Some(self.epochs.latest()).filter(|epoch| *epoch != 0)
    }
}

impl Cluster for RedisLog {
    fn status(&self) -> ClusterStatus {
        ClusterStatus {
            kind: "redis",
            is_up: self.status.is_up.load(Ordering::Relaxed),
            instance: Some(self.instance.to_string()),
            reconnects: self.status.reconnects.load(Ordering::Relaxed),
            rejected: self.status.rejected.load(Ordering::Relaxed),
            history_bytes: self.epochs.history_bytes(),
            lag_ms: self.status.lag_micros.load(Ordering::Relaxed) as f64 / 1000.0,
            conflict: match &*self.status.contact.borrow() {
                Contact::Refused(conflict) => Some(conflict.clone()),
                Contact::Opening | Contact::Tried => None,
            },
        }
    }

    fn first_contact(&self) -> BoxFuture<'static, Result<(), SettingConflict>> {
        let mut contact = self.status.contact.subscribe();
        async move {
            match contact.wait_for(|contact| *contact != Contact::Opening).await.as_deref() {
                Ok(Contact::Refused(conflict)) => Err(conflict.clone()),
                // Without a sender the hub has stopped.
                Ok(Contact::Opening | Contact::Tried) | Err(_) => Ok(()),
            }
        }
        .boxed()
    }

    fn call_all(
        &self,
        partition: u16,
        call: InstanceCall,
        limit: Option<Duration>,
    ) -> BoxFuture<'static, Result<InstanceAnswers, ChangeError>> {
        let text = serde_json::to_string(&call).expect("plain texts and numbers serialize");
        let answers = self.addr.send(CallInstances { partition, text, limit });
        answers.map(|answers| answers.unwrap_or(Err(ChangeError::Unconfirmed))).boxed()
    }

    fn partitions_of_links(&self) -> BoxFuture<'static, Vec<u16>> {
        let partitions = self.addr.send(QueryLinks);
        partitions.map(Result::unwrap_or_default).boxed()
    }

    fn serve(&self, handler: Box<dyn HandleCall>) {
        self.addr.do_send(ServeCalls(handler));
    }
}
