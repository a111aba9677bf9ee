//! The link to one Redis node: two connections with one fate. One carries publishes; the other
//! carries pushes and the answers to replicas' requests, in one order.
//!
//! Anything odd ends the link. The next link begins by catching up, so nothing is lost.

mod calls;
mod pages;
mod pushes;

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use actix::Recipient;
use fanfare_core::log::{LogRequest, LogUpdate, PartitionHead, Replicas};
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
    script::{self, Names, PublishCall},
    settings::BridgeSettings,
    target::Endpoint,
};

/// Pushes handed over in one turn.
const MAX_PUSHES_A_TURN: usize = 1024;

/// Answers may be large, so a connection may be silent this long. The probe finds a stalled
/// connection earlier.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// The bridge actor, as a link reaches it.
pub(crate) struct BridgeRecipients {
    pub began: Recipient<LinkBegan>,
    pub call_received: Recipient<CallReceived>,
    pub call_answered: Recipient<CallAnswered>,
}

/// The settings of a link.
pub(super) struct LinkSpec {
    pub endpoint: Endpoint,
    /// The partitions on its node.
    pub partitions: Vec<u16>,
    pub replicas: Arc<dyn Replicas>,
    pub generation: u64,
    pub settings: Arc<BridgeSettings>,
    /// The bridge actor.
    pub bridge: BridgeRecipients,
    /// Requests of replicas.
    pub requests: mpsc::UnboundedReceiver<(u16, Vec<LogRequest>)>,
}

/// Runs until the link ends.
pub(super) async fn run(spec: LinkSpec) -> LinkError {
    let max_open = spec.settings.timeout * 3;
    let open = async {
        let mut link = NodeLink::open(spec).await?;
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
    pushes: mpsc::UnboundedReceiver<LinkPush>,
    pushed_bytes: Arc<AtomicUsize>,
    clock: Clock,
    /// The calls to send next, in order.
    calls: VecDeque<LinkCall>,
    /// The pipeline in flight.
    sent: Option<Sent>,
    /// Whether Redis has forgotten the scripts.
    must_load: bool,
    /// Before this moment nothing is sent: a slot is on its way.
    pause_until: Option<Instant>,
    /// Channels unsubscribed without confirmation so far.
    leaving: HashSet<Vec<u8>>,
    news: BTreeMap<u16, Vec<LogUpdate>>,
    probe_channel: String,
    probe_sent: Option<Instant>,
}

impl NodeLink {
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
        let server = server_id(&mut publish).await?;
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
            .map(|partition| (*partition, Names::new(&settings.prefix, *partition)))
            .collect();
        let first = names.values().next().ok_or(LinkError::Stopped)?;
        Ok(Self {
            probe_channel: first.of(&format!("probe:{}", settings.instance)),
            publish: PublishPath {
                connection: publish,
                sha: sha.into(),
                server: server.into(),
                generation: spec.generation,
            },
            read_sha: read_sha.into(),
            clock: Clock::local(),
            calls: VecDeque::new(),
            sent: None,
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

    async fn serve(mut self) -> Result<(), LinkError> {
        let path = self.publish.clone();
        let acknowledged = self.spec.bridge.began.send(LinkBegan {
            endpoint: self.spec.endpoint.clone(),
            generation: self.spec.generation,
            path,
        });
        let acknowledged = acknowledged.await.map_err(|_| LinkError::Stopped)?;
        for partition in &self.spec.partitions {
            let acknowledged = acknowledged.get(partition).cloned();
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
                    // Every push that is older than an answer is there when the answer is.
                    self.take_pushes(usize::MAX)?;
                    self.take_answers(answers?)?;
                }
                _ = probes.tick() => self.probe()?,
                () = resumed(self.pause_until), if self.sent.is_none() => {}
            }
            self.take_pushes(MAX_PUSHES_A_TURN)?;
            self.send_calls();
            self.hand_over().await?;
        }
    }

    async fn subscribe_own_channels(&mut self) -> Result<(), LinkError> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("SSUBSCRIBE").arg(&self.probe_channel);
        for names in self.names.values() {
            pipeline.cmd("SSUBSCRIBE").arg(names.of("control"));
            pipeline.cmd("SSUBSCRIBE").arg(names.of("fanout"));
            let answers = format!("answers:{}", self.spec.settings.instance);
            pipeline.cmd("SSUBSCRIBE").arg(names.of(&answers));
        }
        check(&run_pipeline(&mut self.subscribe, &pipeline).await?)?;
        Ok(())
    }

    /// Makes sure all partitions have the same, the latest, epoch.
    async fn agree_on_epoch(&mut self) -> Result<(), LinkError> {
        for (partition, head) in self.heads().await? {
            self.note_epoch(partition, &head);
        }
        for partition in self.spec.settings.epochs.lagging(self.names.keys().copied()) {
            let command = self.renew_call(&self.names[&partition], partition);
            let value = self.subscribe.req_packed_command(&command).await?;
            self.note_epoch(partition, &script::head(value)?.0);
        }
        Ok(())
    }

    async fn heads(&mut self) -> Result<Vec<(u16, PartitionHead)>, LinkError> {
        let mut pipeline = redis::pipe();
        for names in self.names.values() {
            pipeline.add_command(self.publish_call(names).command(&[]));
            pipeline.add_command(script::read_call(&self.read_sha, names, &[], &words(["head"])));
        }
        let values = run_pipeline(&mut self.subscribe, &pipeline).await?;
        let mut heads = Vec::new();
        for (partition, answers) in self.names.keys().zip(values.chunks(2)) {
            match check(answers) {
                // Its mirror asks until it is answered; the others need not wait.
                Err(error) if is_between_nodes(&error) => continue,
                checked => checked?,
            }
            let value = answers[1].clone();
            let (head, clock, _) = script::head(value)?;
            self.clock = clock;
            heads.push((*partition, head));
        }
        Ok(heads)
    }

    fn renew_call(&self, names: &Names, partition: u16) -> redis::Cmd {
        let (present, latest) = self.spec.settings.epochs.of(partition);
        let words = words(["renew", &present.to_string(), &latest.to_string(), "0"]);
        script::read_call(&self.read_sha, names, &[], &words)
    }

    fn publish_call<'a>(&'a self, names: &'a Names) -> PublishCall<'a> {
        self.spec.settings.publish_call(&self.publish.sha, &self.publish.server, names)
    }

    fn note_epoch(&self, partition: u16, head: &PartitionHead) {
        self.spec.settings.epochs.note(partition, head.epoch.number());
    }

    /// Sends a probe to find a dead connection, and checks the head of every partition.
    fn probe(&mut self) -> Result<(), LinkError> {
        self.take_pushes(usize::MAX)?;
        if self.probe_sent.is_some_and(|sent| sent.elapsed() > self.spec.settings.timeout) {
            return Err(LinkError::Stalled);
        }
        if self.probe_sent.is_none() {
            self.probe_sent = Some(Instant::now());
            let mut connection = self.publish.connection.clone();
            let mut command = command("SPUBLISH", &self.probe_channel);
            command.arg("");
            actix::spawn(async move {
                // Should it fail, it does not come back.
                let _ = connection.req_packed_command(&command).await;
            });
        }
        let lagging = self.spec.settings.epochs.lagging(self.names.keys().copied());
        for (partition, names) in &self.names {
            let head = script::read_call(&self.read_sha, names, &[], &words(["head"]));
            let commands = match lagging.contains(partition) {
                true => vec![self.renew_call(names, *partition)],
                false => vec![self.publish_call(names).command(&[]), head],
            };
            let asked = ExpectedAnswer::Head { purpose: None };
            self.calls.push_back(LinkCall { partition: *partition, commands, asked });
        }
        Ok(())
    }

    /// Waits until the partitions have applied all updates: the bound on their number.
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

/// The end of a pause.
async fn resumed(pause_until: Option<Instant>) {
    match pause_until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}

/// The answer to the pipeline in flight.
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
    connection.req_packed_commands(pipeline, 0, pipeline.len()).await
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

/// Names the connection for operators. A login may lack this right.
async fn set_name(connection: &mut MultiplexedConnection, name: &str) {
    let mut command = redis::cmd("CLIENT");
    command.arg("SETNAME").arg(name);
    if let Err(error) = command.query_async::<()>(connection).await {
        tracing::debug!(%error, "the connection stays without a name");
    }
}

/// Tells server processes apart; empty if the login may not ask.
async fn server_id(connection: &mut MultiplexedConnection) -> Result<String, LinkError> {
    let mut command = redis::cmd("INFO");
    command.arg("server").arg("replication");
    let info: String = match command.query_async(connection).await {
        Ok(info) => info,
        Err(error) if error.kind() == redis::ErrorKind::Server(redis::ServerErrorKind::NoPerm) => {
            tracing::warn!("INFO is not allowed: lost events may go unnoticed when Redis fails");
            return Ok(String::new());
        }
        Err(error) => return Err(error.into()),
    };
    let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    if field("role:") == Some("slave") {
        return Err(LinkError::Replica);
    }
    // Not `master_replid`: it changes when the same server becomes a replica's master.
    Ok(field("run_id:").unwrap_or_default().to_owned())
}
