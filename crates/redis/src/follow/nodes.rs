//! Calls to the nodes of shards. All calls to one node leave in one pipeline. A call refused
//! temporarily is repeated.
//!
//! Not here: opening connections (`keeper`).

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use redis::{
    Cmd, ErrorKind, Pipeline, RedisError, ServerErrorKind, Value,
    aio::{ConnectionLike, MultiplexedConnection},
};
use tokio::{
    sync::{Semaphore, SemaphorePermit, mpsc, watch},
    time::{sleep, timeout},
};

use crate::follow::scripts::{self, Script};

/// Callers served at once. Further callers wait.
const MAX_CALLERS: usize = 32;

/// Pause before temporarily refused calls are repeated.
const PAUSE: Duration = Duration::from_millis(50);

/// A connection to a node.
#[derive(Clone)]
pub(super) struct FollowNode {
    pub connection: MultiplexedConnection,
    /// Unique among the keeper's connections, so a late report of a lost one does not end its
    /// successor.
    pub generation: u64,
}

/// The location of the shards.
#[derive(Clone, Default)]
pub(super) struct Topology {
    /// The node of each shard, as an index of `nodes`; empty before the first discovery.
    pub routes: Arc<[usize]>,
    /// `None` for a node without a connection.
    pub nodes: Vec<Option<FollowNode>>,
}

impl Topology {
    fn node(&self, shard: u16) -> Option<(usize, &FollowNode)> {
        let node = *self.routes.get(usize::from(shard))?;
        Some((node, self.nodes.get(node)?.as_ref()?))
    }
}

/// Trouble found by callers or connections, for the keeper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// A connection is lost, or gives no answers.
    Lost { generation: u64 },
    /// A node lost a shard, or became read-only.
    Moved,
}

/// A command for the node of a shard.
pub(super) struct FollowCall {
    pub shard: u16,
    pub command: Cmd,
}

impl FollowCall {
    pub fn script(shard: u16, script: Script, keys: &[String], words: &[&str]) -> Self {
        Self { shard, command: scripts::call(script, keys, words) }
    }
}

/// The reason for missing answers.
#[derive(Debug)]
pub(super) enum CallFailure {
    /// Redis is unavailable and has run none of the calls.
    Away,
    /// Redis has run some of the calls, or may have.
    Lost,
    /// Redis sent an unexpected answer.
    Broken(RedisError),
}

/// The callers' access to the nodes.
pub(super) struct Nodes {
    topology: watch::Receiver<Topology>,
    troubles: mpsc::Sender<Trouble>,
    callers: Semaphore,
    timeout: Duration,
}

/// The outcome of one call.
enum CallOutcome {
    Answered(Value),
    /// Not run. A retry may succeed.
    NotYet,
    /// Not run. A retry within this call is useless.
    Refused,
    Lost,
    Broken(RedisError),
}

impl Nodes {
    pub fn new(
        topology: watch::Receiver<Topology>,
        troubles: mpsc::Sender<Trouble>,
        timeout: Duration,
    ) -> Self {
        Self { topology, troubles, callers: Semaphore::new(MAX_CALLERS), timeout }
    }

    /// Takes a permit of the `MAX_CALLERS`. The caller holds it during its calls.
    ///
    /// # Errors
    /// [`CallFailure::Away`] without a free permit within the time limit.
    pub async fn place(&self) -> Result<SemaphorePermit<'_>, CallFailure> {
        let place = timeout(self.timeout, self.callers.acquire()).await;
        place.ok().and_then(Result::ok).ok_or(CallFailure::Away)
    }

    /// Makes independent calls. The answers are in the order of the calls.
    ///
    /// # Errors
    /// Without an answer to every call within the time limit. The answered calls stay in effect.
    pub async fn call(&self, calls: &[FollowCall]) -> Result<Vec<Value>, CallFailure> {
        let deadline = Instant::now() + self.timeout;
        let mut answers: Vec<Option<Value>> = calls.iter().map(|_| None).collect();
        let mut pending: Vec<usize> = (0..calls.len()).collect();
        loop {
            let outcomes = self.attempt(calls, &pending).await;
            let mut failure = None;
            pending = Vec::new();
            for (index, outcome) in outcomes {
                match outcome {
                    CallOutcome::Answered(value) => answers[index] = Some(value),
                    CallOutcome::NotYet => pending.push(index),
                    CallOutcome::Refused => failure = failure.or(Some(CallFailure::Away)),
                    CallOutcome::Lost => failure = Some(CallFailure::Lost),
                    CallOutcome::Broken(error) => failure = Some(CallFailure::Broken(error)),
                }
            }
            if failure.is_none() && pending.is_empty() {
                return Ok(answers.into_iter().flatten().collect());
            }
            if failure.is_none() && Instant::now() >= deadline {
                failure = Some(CallFailure::Away);
            }
            match failure {
                // `Away` promises an unchanged store, but some calls were run.
                Some(CallFailure::Away) if answers.iter().any(Option::is_some) => {
                    return Err(CallFailure::Lost);
                }
                Some(failure) => return Err(failure),
                None => sleep(PAUSE).await,
            }
        }
    }

    /// Makes each of these calls at most once.
    async fn attempt(&self, calls: &[FollowCall], indexes: &[usize]) -> Vec<(usize, CallOutcome)> {
        let topology = self.topology.borrow().clone();
        let mut outcomes = Vec::with_capacity(indexes.len());
        let mut by_node: BTreeMap<usize, (&FollowNode, Vec<usize>)> = BTreeMap::new();
        for index in indexes {
            match topology.node(calls[*index].shard) {
                Some((number, node)) => {
                    by_node.entry(number).or_insert((node, Vec::new())).1.push(*index);
                }
                None => outcomes.push((*index, CallOutcome::Refused)),
            }
        }
        let sent = by_node.into_values().map(|(node, own)| self.send(node, calls, own));
        outcomes.extend(join_all(sent).await.into_iter().flatten());
        outcomes
    }

    /// Sends one node's calls in one pipeline. Loads lost scripts for the next attempt.
    async fn send(
        &self,
        node: &FollowNode,
        calls: &[FollowCall],
        own: Vec<usize>,
    ) -> Vec<(usize, CallOutcome)> {
        let mut pipeline = Pipeline::with_capacity(own.len());
        for index in &own {
            pipeline.add_command(calls[*index].command.clone());
        }
        let mut connection = node.connection.clone();
        let answers = connection.req_packed_commands(&pipeline, 0, pipeline.len()).await;
        match answers {
            Ok(values) => {
                let (values, must_load) = self.judge(values);
                if must_load && scripts::load(&mut connection).await.is_err() {
                    self.tell(Trouble::Lost { generation: node.generation });
                }
                own.into_iter().zip(values).collect()
            }
            Err(error) => {
                tracing::debug!(%error, "followers: no answer from Redis");
                // Redis may have run any number of these calls.
                self.tell(Trouble::Lost { generation: node.generation });
                own.into_iter().map(|index| (index, CallOutcome::Lost)).collect()
            }
        }
    }

    /// The outcomes of calls, and `true` if the node has lost the scripts.
    fn judge(&self, values: Vec<Value>) -> (Vec<CallOutcome>, bool) {
        let mut must_load = false;
        let outcome = |value| {
            let Value::ServerError(error) = value else { return CallOutcome::Answered(value) };
            let error = RedisError::from(error);
            match error.kind() {
                ErrorKind::Server(ServerErrorKind::NoScript) => {
                    must_load = true;
                    CallOutcome::NotYet
                }
                ErrorKind::Server(ServerErrorKind::Ask | ServerErrorKind::TryAgain) => {
                    CallOutcome::NotYet
                }
                _ if is_elsewhere(&error) => {
                    self.tell(Trouble::Moved);
                    CallOutcome::NotYet
                }
                _ if is_between_nodes(&error) => CallOutcome::NotYet,
                _ if is_refused(&error) => CallOutcome::Refused,
                _ => CallOutcome::Broken(error),
            }
        };
        let outcomes = values.into_iter().map(outcome).collect();
        (outcomes, must_load)
    }

    fn tell(&self, trouble: Trouble) {
        // If the queue is full, the keeper has enough reports to act on.
        let _ = self.troubles.try_send(trouble);
    }
}

/// Whether another node must answer, or this one later.
fn is_elsewhere(error: &RedisError) -> bool {
    use ServerErrorKind::{BusyLoading, ClusterDown, MasterDown, Moved, ReadOnly};
    matches!(
        error.kind(),
        ErrorKind::Server(Moved | ClusterDown | MasterDown | ReadOnly | BusyLoading)
    )
}

/// Whether a script failed at a key missing on this node, because its slot is moving. The scripts
/// touch all keys of a name before the first change, so nothing of this name has changed.
fn is_between_nodes(error: &RedisError) -> bool {
    error.to_string().contains("non local key")
}

/// Whether Redis refused a script before its first write.
fn is_refused(error: &RedisError) -> bool {
    let codes = ["OOM", "MISCONF", "NOREPLICAS", "BUSY", "NOAUTH", "NOPERM", "WRONGPASS"];
    error.code().is_some_and(|code| codes.contains(&code))
}
