//! The link to one Redis node: two connections, ending together. One carries publishes. The other
//! carries pushes and the answers to replicas' requests, in the order of Redis.
//!
//! Every unexpected answer or error ends the link. With the next link, the replicas catch up, so no
//! event is lost.

mod calls;
mod epochs;
mod pages;
mod pushes;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet, VecDeque},
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use actix::Recipient;
use fanfare_core::{
    cursor::Epoch,
    log::{LogRequest, LogUpdate, Replicas},
};
use futures_util::future::{BoxFuture, join_all};
use redis::{
    AsyncConnectionConfig, Cmd, Pipeline, RedisError, Value,
    aio::{ConnectionLike, MultiplexedConnection},
};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, timeout},
};

use crate::{
    clock::Clock,
    link::{
        calls::{ExpectedAnswer, LinkCall, Sent, is_between_nodes},
        pushes::{LinkPush, push_sender},
    },
    messages::{CallAnswered, CallReceived, LinkBegan},
    publish_path::{LinkError, PublishPath},
    script::{self, Names},
    settings::BridgeSettings,
    signature::Secret,
    target::Endpoint,
};

/// Pushes handled in one turn: a flood of pushes must not delay calls and probes.
const MAX_PUSHES_A_TURN: usize = 1024;

/// Time between two joins after rejected pushes: a program sending them costs little.
const REJOIN: Duration = Duration::from_millis(100);

/// Time limit for an answer on the connection of pushes: a large answer takes long. The probe finds
/// a stalled connection earlier.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// The bridge actor, for the messages of a link.
pub(crate) struct BridgeRecipients {
    pub began: Recipient<LinkBegan>,
    pub call_received: Recipient<CallReceived>,
    pub call_answered: Recipient<CallAnswered>,
}

/// The settings and channels of a link.
pub(super) struct LinkSpec {
    pub endpoint: Endpoint,
    /// The partitions on its node.
    pub partitions: Vec<u16>,
    pub replicas: Arc<dyn Replicas>,
    pub generation: u64,
    pub settings: Arc<BridgeSettings>,
    pub bridge: BridgeRecipients,
    /// Requests of replicas, in order.
    pub requests: mpsc::UnboundedReceiver<(u16, Vec<LogRequest>)>,
}

/// Opens the link and serves it to its end. Opening may take three times the time limit of an
/// answer. Returns the reason for the end.
pub(super) async fn run(spec: LinkSpec) -> LinkError {
    let max_open = spec.settings.timeout * 3;
    let open = async {
        let mut link = NodeLink::open(spec).await?;
        link.join().await?;
        link.subscribe_own_channels().await?;
        link.agree_on_epoch().await?;
        Ok::<_, LinkError>(link)
    };
    let connected = timeout(max_open, open).await;
    match connected {
        Ok(Ok(link)) => link.serve().await.err().unwrap_or(LinkError::Stopped),
        Ok(Err(error)) => error,
        Err(_) => LinkError::ConnectTimeout,
    }
}

struct NodeLink {
    spec: LinkSpec,
    names: BTreeMap<u16, Names>,
    publish: PublishPath,
    subscribe: MultiplexedConnection,
    read_sha: Arc<str>,
    secrets: BTreeMap<u16, Secret>,
    /// Partitions with a rejected push since their last join. A program may have published while
    /// the partition had no secret.
    to_join: BTreeSet<u16>,
    /// The time of the last join after a rejected push.
    joined_at: Instant,
    pushes: mpsc::UnboundedReceiver<LinkPush>,
    pushed_bytes: Arc<AtomicUsize>,
    clock: Clock,
    /// The calls to send next, in order.
    calls: VecDeque<LinkCall>,
    /// The pipeline in flight.
    sent: Option<Sent>,
    /// The epoch and sequence of each partition's last push.
    last_pushed: BTreeMap<u16, (Epoch, u64)>,
    /// Partitions with a rename call queued or in flight.
    renaming: HashSet<u16>,
    /// Redis has lost the scripts: load them before the next calls.
    must_load: bool,
    /// No calls are sent before this moment: a slot is moving to another node.
    pause_until: Option<Instant>,
    /// Channels with an unsubscribe in flight. An unsubscribe of any other channel comes from the
    /// server and ends the link.
    leaving: HashSet<Vec<u8>>,
    /// Updates not yet handed over, in order.
    news: BTreeMap<u16, Vec<LogUpdate>>,
    probe_channel: String,
    /// The start of the probe in flight, and its random content.
    probe_sent: Option<(Instant, String)>,
}

impl NodeLink {
    /// Connects twice, refuses a replica, and loads the scripts.
    async fn open(spec: LinkSpec) -> Result<Self, LinkError> {
        let settings = &spec.settings;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(settings.timeout))
            .set_response_timeout(Some(settings.timeout))
            .set_pipeline_buffer_size(1024);
        let mut publish = settings.target.connect(&spec.endpoint, &config).await?;
        set_name(&mut publish, "fanfare-publish").await;
        let (sender, pushes) = mpsc::unbounded_channel();
        let pushed_bytes = Arc::new(AtomicUsize::new(0));
        let config = config
            .set_response_timeout(Some(READ_TIMEOUT))
            .set_push_sender(push_sender(sender, pushed_bytes.clone()));
        let mut subscribe = settings.target.connect(&spec.endpoint, &config).await?;
        set_name(&mut subscribe, "fanfare-subscribe").await;
        let mut server = server_id(&mut publish).await?;
        // Each database of a process has its own sequences. `SWAPDB` exchanges them.
        let database = settings.target.database();
        if !server.is_empty() && database != 0 {
            server = format!("{server}/{database}");
        }
        let load = async |script: &str| {
            let mut command = redis::cmd("SCRIPT");
            command.arg("LOAD").arg(script);
            command.query_async::<String>(&mut publish.clone()).await
        };
        let sha = load(script::PUBLISH).await?;
        let read_sha = load(script::READ).await?;
        let names: BTreeMap<u16, Names> = spec
            .partitions
            .iter()
            .map(|partition| (*partition, settings.names(*partition)))
            .collect();
        let first = names.values().next().ok_or(LinkError::Stopped)?;
        Ok(Self {
            probe_channel: first.channel(&format!("probe:{}", settings.instance)),
            publish: PublishPath {
                connection: publish,
                sha: sha.into(),
                server: server.into(),
                generation: spec.generation,
            },
            read_sha: read_sha.into(),
            secrets: BTreeMap::new(),
            to_join: BTreeSet::new(),
            joined_at: Instant::now(),
            clock: Clock::local(),
            calls: VecDeque::new(),
            sent: None,
            last_pushed: BTreeMap::new(),
            renaming: HashSet::new(),
            must_load: false,
            pause_until: None,
            leaving: HashSet::new(),
            news: BTreeMap::new(),
            probe_sent: None,
            names,
            subscribe,
            pushes,
            pushed_bytes,
            spec,
        })
    }

    /// Begins with `LinkUp` for every partition: a replica's first requests come after it.
    async fn serve(mut self) -> Result<(), LinkError> {
        // The bridge knows the acknowledged publishes of each partition. With them, a replica finds
        // out if this server has lost an event confirmed by another server.
        let path = self.publish.clone();
        let acknowledged = self.spec.bridge.began.send(LinkBegan {
            endpoint: self.spec.endpoint.clone(),
            generation: self.spec.generation,
            path,
        });
        let mut acknowledged = acknowledged.await.map_err(|_| LinkError::Stopped)?;
        for partition in &self.spec.partitions {
            let acknowledged = acknowledged.remove(partition).unwrap_or_default();
            let news = LogUpdate::LinkUp { generation: self.spec.generation, acknowledged };
            self.news.entry(*partition).or_default().push(news);
        }
        self.hand_over().await?;
        let mut probes = interval(self.spec.settings.probe);
        probes.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                push = self.pushes.recv() => {
                    self.take_push(push.unwrap_or(LinkPush::Disconnected))?;
                }
                request = self.spec.requests.recv() => {
                    let (partition, requests) = request.ok_or(LinkError::Stopped)?;
                    self.execute(partition, requests);
                }
                answers = wait(&mut self.sent), if self.sent.is_some() => {
                    self.sent = None;
                    // Redis sends pushes and answers in one order, so all pushes older than this
                    // answer are in the queue already. The replica must get them first: an answer
                    // is a cut, and an older event after it would count as newer.
                    self.take_pushes(usize::MAX)?;
                    self.take_answers(answers?)?;
                }
                _ = probes.tick() => self.probe()?,
                // Only wakes the loop: `send_calls` below checks the pause.
                () = resumed(self.pause_until), if self.sent.is_none() => {}
            }
            self.take_pushes(MAX_PUSHES_A_TURN)?;
            // Before the wait in `hand_over`: Redis works on the calls while the partitions apply
            // the updates.
            self.spread_epoch();
            self.rejoin();
            self.send_calls();
            self.hand_over().await?;
        }
    }

    /// Joins all partitions of this node, before the subscriptions: they would count as another
    /// instance.
    async fn join(&mut self) -> Result<(), LinkError> {
        // The first one alone: a refused instance must not write its settings to any partition.
        let all = self.spec.partitions.clone();
        let (first, others) = all.split_at(1.min(all.len()));
        // The client refuses an empty pipeline, and a hub may have one partition.
        for partitions in [first, others].into_iter().filter(|some| !some.is_empty()) {
            let mut pipeline = redis::pipe();
            for partition in partitions {
                pipeline.add_command(self.spec.settings.join_call(*partition, 0));
            }
            let answers = run_pipeline(&mut self.subscribe, &pipeline).await?;
            for (partition, answer) in partitions.iter().zip(answers) {
                match check(std::slice::from_ref(&answer)) {
                    // The slot is moving. The next probe joins.
                    Err(error) if is_between_nodes(&error) => {}
                    checked => {
                        checked?;
                        self.on_joined(*partition, answer)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes the answer to a join.
    fn on_joined(&mut self, partition: u16, answer: Value) -> Result<(), LinkError> {
        let settings = &self.spec.settings;
        let secret = settings.agreement.secret(answer, &self.names[&partition])?;
        settings.secrets.note(partition, secret.clone());
        self.secrets.insert(partition, secret);
        Ok(())
    }

    /// Joins the partitions with rejected pushes again, at most every [`REJOIN`].
    fn rejoin(&mut self) {
        if self.to_join.is_empty() || self.joined_at.elapsed() < REJOIN {
            return;
        }
        self.joined_at = Instant::now();
        for partition in std::mem::take(&mut self.to_join) {
            let commands = vec![self.spec.settings.join_call(partition, 1)];
            let asked = ExpectedAnswer::Joined { has_rejected: true };
            self.calls.push_back(LinkCall { partition, commands, asked });
        }
    }

    /// Subscribes to the channels of every link: probe, calls, answers, fan-outs and announcements.
    /// This comes before the replicas' first requests, so no fan-out falls between their cut and the
    /// pushes.
    async fn subscribe_own_channels(&mut self) -> Result<(), LinkError> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("SSUBSCRIBE").arg(&self.probe_channel);
        for names in self.names.values() {
            pipeline.cmd("SSUBSCRIBE").arg(names.channel("control"));
            pipeline.cmd("SSUBSCRIBE").arg(names.channel("fanout"));
            pipeline.cmd("SSUBSCRIBE").arg(names.channel("announced"));
            let answers = format!("answers:{}", self.spec.settings.instance);
            pipeline.cmd("SSUBSCRIBE").arg(names.channel(&answers));
        }
        check(&run_pipeline(&mut self.subscribe, &pipeline).await?)?;
        Ok(())
    }

    /// Sends a probe to find a dead connection, and queries the head of every partition.
    ///
    /// # Errors
    /// The last probe has not returned in time.
    fn probe(&mut self) -> Result<(), LinkError> {
        // The returned probe may wait among the pushes. A slow turn must not pass for a dead
        // connection.
        self.take_pushes(usize::MAX)?;
        if self
            .probe_sent
            .as_ref()
            .is_some_and(|(sent, _)| sent.elapsed() > self.spec.settings.timeout)
        {
            return Err(LinkError::Stalled);
        }
        if self.probe_sent.is_none() {
            let nonce = format!("{:016x}", rand::random::<u64>());
            let mut connection = self.publish.connection.clone();
            let mut command = command("SPUBLISH", &self.probe_channel);
            command.arg(&nonce);
            self.probe_sent = Some((Instant::now(), nonce));
            actix::spawn(async move {
                // If the publish fails, the probe does not return, and the link ends.
                let _ = connection.req_packed_command(&command).await;
            });
        }
        for partition in self.names.keys() {
            // An emptied Redis has lost the values of the cluster.
            let commands = vec![self.spec.settings.join_call(*partition, 1)];
            let asked = ExpectedAnswer::Joined { has_rejected: false };
            self.calls.push_back(LinkCall { partition: *partition, commands, asked });
        }
        // The heads show lost events and new epochs also to replicas without pushes.
        for (partition, names) in &self.names {
            let head = script::read_call(&self.read_sha, names, &[], &words(["head"]));
            let commands = vec![self.ensure_epoch_call(*partition), head];
            let asked = ExpectedAnswer::Head { purpose: None };
            self.calls.push_back(LinkCall { partition: *partition, commands, asked });
        }
        Ok(())
    }

    /// Hands all updates to the partitions, and waits until they are applied. The wait is the
    /// bound: one list of updates per partition is in flight.
    async fn hand_over(&mut self) -> Result<(), LinkError> {
        if self.news.is_empty() {
            return Ok(());
        }
        let news = std::mem::take(&mut self.news).into_iter().filter(|(_, news)| !news.is_empty());
        let sent = news.map(|(partition, news)| self.spec.replicas.apply(partition, news));
        for taken in join_all(sent).await {
            taken.map_err(|_| LinkError::Stopped)?;
        }
        Ok(())
    }
}

/// Ready at the end of the pause; never without a pause.
async fn resumed(pause_until: Option<Instant>) {
    match pause_until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}

/// The answer to the pipeline in flight; never ready without one.
async fn wait<T>(sent: &mut Option<BoxFuture<'static, T>>) -> T {
    match sent {
        Some(sent) => sent.await,
        None => std::future::pending().await,
    }
}

fn command(name: &str, argument: &str) -> Cmd {
    let mut command = redis::cmd(name);
    command.arg(argument);
    command
}

async fn run_pipeline(
    connection: &mut MultiplexedConnection,
    pipeline: &Pipeline,
) -> Result<Vec<Value>, RedisError> {
    answers_to(connection, pipeline, pipeline.len()).await
}

/// The answers to a pipeline: one per command, but one per channel of a subscription.
async fn answers_to(
    connection: &mut MultiplexedConnection,
    pipeline: &Pipeline,
    answer_count: usize,
) -> Result<Vec<Value>, RedisError> {
    // The library refuses an empty pipeline. A link of one partition has no further ones to join.
    if pipeline.is_empty() {
        return Ok(Vec::new());
    }
    connection.req_packed_commands(pipeline, 0, answer_count).await
}

/// The first error among the answers.
fn check(values: &[Value]) -> Result<(), RedisError> {
    let error = values.iter().find_map(|value| match value {
        Value::ServerError(error) => Some(error.clone()),
        _ => None,
    });
    error.map_or(Ok(()), |error| Err(error.into()))
}

fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).into()
}

/// Names the connection in Redis' `CLIENT LIST`. A login without this right keeps it unnamed.
async fn set_name(connection: &mut MultiplexedConnection, name: &str) {
    let mut command = redis::cmd("CLIENT");
    command.arg("SETNAME").arg(name);
    if let Err(error) = command.query_async::<()>(connection).await {
        tracing::debug!(%error, "the connection stays unnamed");
    }
}

/// The `run_id` of the server process; empty if the login may not call `INFO`.
///
/// # Errors
/// The server is a replica, or the call failed.
async fn server_id(connection: &mut MultiplexedConnection) -> Result<String, LinkError> {
    let mut command = redis::cmd("INFO");
    command.arg("server").arg("replication");
    let info: String = match command.query_async(connection).await {
        Ok(info) => info,
        Err(error) if error.kind() == redis::ErrorKind::Server(redis::ServerErrorKind::NoPerm) => {
            tracing::warn!("no right to call INFO: a failover may lose events unnoticed");
            return Ok(String::new());
        }
        Err(error) => return Err(error.into()),
    };
    let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    if field("role:") == Some("slave") {
        return Err(LinkError::Replica);
    }
    // Not `master_replid`: it also changes on the same process, when the server gets a replica.
    Ok(field("run_id:").unwrap_or_default().to_owned())
}
