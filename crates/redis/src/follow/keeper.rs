//! Keeps a connection to each node, forever, and publishes the location of shards to callers.

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

/// Pauses between two attempts, and between two discoveries of shards.
const MIN_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_secs(2);

/// Bound on reports of trouble; more say nothing new.
const MAX_TROUBLES: usize = 64;

/// The keeper's settings and its knowledge.
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
    /// A keeper to [`Self::run`], its view of the nodes, and the sender for reports of trouble.
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

    /// Looks, connects, and waits for trouble, until the task is dropped.
    pub async fn run(mut self) {
        let mut failures = 0;
        loop {
            match self.connect().await {
                Ok(()) => {
                    if failures > 0 {
                        tracing::info!("followers: Redis is there again");
                    }
                    failures = 0;
                    self.wait_for_trouble().await;
                }
                Err(error) => {
                    failures += 1;
                    // Logged once an outage: later errors are the same.
                    if failures == 1 {
                        tracing::warn!(%error, "followers: Redis cannot be reached");
                    }
                }
            }
            self.pause(backoff(failures)).await;
        }
    }

    /// Waits. A lost connection in between is published at once.
    async fn pause(&mut self, wait: Duration) {
        let end = Instant::now() + wait;
        while let Ok(Some(trouble)) = timeout_at(end, self.troubles.recv()).await {
            if let Trouble::Lost { generation } = trouble {
                self.lose(generation);
            }
        }
    }

    /// Finds the shards and opens missing connections. Reachable nodes are published even if others
    /// fail.
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
                    // If there is no room, a caller or the next probe finds out.
                    let _ = report.try_send(Trouble::Lost { generation });
                }
                Ok::<_, ()>(())
            });
        let mut connection = self.target.connect(endpoint, &config).await?;
        let mut name = redis::cmd("CLIENT");
        name.arg("SETNAME").arg("fanfare-follow");
        if let Err(error) = name.query_async::<()>(&mut connection).await {
            tracing::debug!(%error, "the connection stays without a name");
        }
        refuse_replica(&mut connection).await?;
        scripts::load(&mut connection).await?;
        Ok(connection)
    }

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

    /// Returns when a connection is lost, or something has moved.
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

    /// Forgets a connection; whether it was known still.
    fn lose(&mut self, generation: u64) -> bool {
        let count = self.nodes.len();
        self.nodes.retain(|_, node| node.generation != generation);
        if self.nodes.len() == count {
            return false;
        }
        // Callers learn of it at once; other nodes are unaffected.
        self.told.send_modify(|topology| {
            for node in &mut topology.nodes {
                if node.as_ref().is_some_and(|node| node.generation == generation) {
                    *node = None;
                }
            }
        });
        true
    }

    /// Tries each connection out; whether all answer.
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

/// A replica answers too, but may lack the latest changes.
async fn refuse_replica(connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
    let mut command = redis::cmd("INFO");
    command.arg("replication");
    match command.query_async::<String>(connection).await {
        Ok(info) if info.contains("role:slave") => {
            Err((redis::ErrorKind::Server(redis::ServerErrorKind::ReadOnly), "a replica").into())
        }
        // Not every login may ask.
        _ => Ok(()),
    }
}

fn backoff(failures: u32) -> Duration {
    let longest = MIN_BACKOFF.saturating_mul(1 << failures.min(10)).min(MAX_BACKOFF);
    longest.mul_f64(rand::random_range(0.5..1.0))
}
