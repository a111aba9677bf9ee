//! The keeper: it keeps one connection to each node, reconnects forever, and publishes the location
//! of the shards to callers.
//!
//! Not here: the callers' commands and their retries (`nodes`).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::future::join_all;
use redis::{AsyncConnectionConfig, PushKind, RedisError, aio::MultiplexedConnection};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, timeout_at},
};

use crate::{
    follow::{
        keys::SHARD_COUNT,
        nodes::{FollowNode, Topology, Trouble},
        scripts,
    },
    target::{Endpoint, Target},
};

/// Bounds of the pause between two discoveries of the shards. The pause doubles with each failure
/// in a row.
const MIN_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_secs(2);

/// Bound on queued reports of trouble; more would say nothing new.
const MAX_TROUBLES: usize = 64;

/// The keeper's settings and its connections.
pub(super) struct Keeper {
    target: Target,
    timeout: Duration,
    probe: Duration,
    nodes: BTreeMap<Endpoint, FollowNode>,
    next_generation: u64,
    told: watch::Sender<Topology>,
    report: mpsc::Sender<Trouble>,
    troubles: mpsc::Receiver<Trouble>,
}

impl Keeper {
    /// A keeper to [`Self::run`], the published location of shards, and the sender for reports of
    /// trouble.
    pub fn new(
        target: Target,
        timeout: Duration,
        probe: Duration,
    ) -> (Self, watch::Receiver<Topology>, mpsc::Sender<Trouble>) {
        let (told, topology) = watch::channel(Topology::default());
        let (report, troubles) = mpsc::channel(MAX_TROUBLES);
        let keeper = Self {
            target,
            timeout,
            probe,
            nodes: BTreeMap::new(),
            next_generation: 0,
            told,
            report: report.clone(),
            troubles,
        };
        (keeper, topology, report)
    }

    /// Discovers, connects, and waits for trouble, until the task is dropped.
    pub async fn run(mut self) {
        let mut failures = 0;
        loop {
            match self.connect().await {
                Ok(()) => {
                    if failures > 0 {
                        tracing::info!("followers: Redis is up again");
                    }
                    failures = 0;
                    self.wait_for_trouble().await;
                }
                Err(error) => {
                    failures += 1;
                    // Once per outage: later errors are the same.
                    if failures == 1 {
                        tracing::warn!(%error, "followers: Redis unreachable");
                    }
                }
            }
            self.pause(backoff(failures)).await;
        }
    }

    /// Waits, and publishes a lost connection at once. Drops reports of moved shards: a discovery
    /// follows the pause anyway.
    async fn pause(&mut self, wait: Duration) {
        let end = Instant::now() + wait;
        while let Ok(Some(trouble)) = timeout_at(end, self.troubles.recv()).await {
            if let Trouble::Lost { generation } = trouble {
                self.lose(generation);
            }
        }
    }

    /// Discovers the shards and opens missing connections. Publishes the connected nodes even if
    /// others fail.
    async fn connect(&mut self) -> Result<(), RedisError> {
        let places = self.target.discover(SHARD_COUNT, self.timeout).await?;
        self.nodes.retain(|endpoint, _| places.contains_key(endpoint));
        let missing: Vec<&Endpoint> =
            places.keys().filter(|endpoint| !self.nodes.contains_key(endpoint)).collect();
        let generations = self.next_generation..;
        self.next_generation += missing.len() as u64;
        let opening = missing.into_iter().zip(generations);
        let opened = join_all(opening.map(async |(endpoint, generation)| {
            let connection = self.open(endpoint, generation).await;
            (endpoint.clone(), connection.map(|connection| FollowNode { connection, generation }))
        }))
        .await;
        let mut failed = None;
        for (endpoint, node) in opened {
            match node {
                Ok(node) => {
                    tracing::debug!(%endpoint, "followers: connected to Redis");
                    self.nodes.insert(endpoint, node);
                }
                Err(error) => failed = Some(error),
            }
        }
        self.tell(&places);
        failed.map_or(Ok(()), Err)
    }

    async fn open(
        &self,
        endpoint: &Endpoint,
        generation: u64,
    ) -> Result<MultiplexedConnection, RedisError> {
        let report = self.report.clone();
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.timeout))
            .set_response_timeout(Some(self.timeout))
            .set_pipeline_buffer_size(1024)
            .set_push_sender(move |push: redis::PushInfo| {
                if push.kind == PushKind::Disconnection {
                    // If the queue is full, a caller or the next probe notices the loss.
                    let _ = report.try_send(Trouble::Lost { generation });
                }
                Ok::<_, ()>(())
            });
        let mut connection = self.target.connect(endpoint, &config).await?;
        let mut name = redis::cmd("CLIENT");
        name.arg("SETNAME").arg("fanfare-follow");
        if let Err(error) = name.query_async::<()>(&mut connection).await {
            tracing::debug!(%error, "the connection stays unnamed");
        }
        refuse_replica(&mut connection).await?;
        scripts::load(&mut connection).await?;
        Ok(connection)
    }

    /// Publishes the location of the shards. A node without a connection is `None`.
    fn tell(&self, places: &BTreeMap<Endpoint, Vec<u16>>) {
        let mut routes = vec![usize::MAX; usize::from(SHARD_COUNT)];
        for (number, shards) in places.values().enumerate() {
            for shard in shards {
                routes[usize::from(*shard)] = number;
            }
        }
        let nodes = places.keys().map(|endpoint| self.nodes.get(endpoint).cloned()).collect();
        let _ = self.told.send(Topology { routes: Arc::from(routes), nodes });
    }

    /// Returns after a lost connection or a moved shard. Probes all connections in between.
    async fn wait_for_trouble(&mut self) {
        loop {
            let next_probe = Instant::now() + self.probe;
            match timeout_at(next_probe, self.troubles.recv()).await {
                Err(_) => {
                    if self.probe_all().await {
                        continue;
                    }
                    return;
                }
                Ok(None | Some(Trouble::Moved)) => return,
                Ok(Some(Trouble::Lost { generation })) => {
                    if self.lose(generation) {
                        return;
                    }
                }
            }
        }
    }

    /// Removes a connection. `false` if it was removed before: several callers report one loss.
    fn lose(&mut self, generation: u64) -> bool {
        let count = self.nodes.len();
        self.nodes.retain(|_, node| node.generation != generation);
        if self.nodes.len() == count {
            return false;
        }
        // Publish the loss before the next discovery: calls to this node then fail at once.
        self.told.send_modify(|topology| {
            for node in &mut topology.nodes {
                if node.as_ref().is_some_and(|node| node.generation == generation) {
                    *node = None;
                }
            }
        });
        true
    }

    /// Probes each connection and removes the silent ones. `true` if all have answered.
    async fn probe_all(&mut self) -> bool {
        let probes = self.nodes.values().map(|node| async {
            let mut connection = node.connection.clone();
            let answer = redis::cmd("PING").query_async::<()>(&mut connection).await;
            answer.is_err().then_some(node.generation)
        });
        let silent: Vec<u64> = join_all(probes).await.into_iter().flatten().collect();
        for generation in &silent {
            self.lose(*generation);
        }
        silent.is_empty()
    }
}

/// Refuses a replica: it answers reads, but may lack the latest changes.
async fn refuse_replica(connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
    let mut command = redis::cmd("INFO");
    command.arg("replication");
    match command.query_async::<String>(connection).await {
        Ok(info) if info.contains("role:slave") => {
            Err((redis::ErrorKind::Server(redis::ServerErrorKind::ReadOnly), "a replica").into())
        }
        // The login may lack the right to call INFO.
        _ => Ok(()),
    }
}

fn backoff(failures: u32) -> Duration {
    let longest = MIN_BACKOFF.saturating_mul(1 << failures.min(10)).min(MAX_BACKOFF);
    longest.mul_f64(rand::random_range(0.5..1.0))
}
