//! The link to one Redis node: two connections that live and die together. On one go
//! publishes; on the other come pushes, and the answers to what mirrors ask, in one order.
//!
//! Whatever is odd ends the link: a new one begins by catching up, so nothing is lost by it.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use actix::Addr;
use futures_util::{
    FutureExt,
    future::{BoxFuture, join_all},
};
use redis::{
    AsyncConnectionConfig, Cmd, Pipeline, PushInfo, PushKind, RedisError, Value,
    aio::{ConnectionLike, MultiplexedConnection},
};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, timeout},
};

use super::{
    RedisBridge, Settings, SubscribersTold,
    clock::Clock,
    message,
    script::{self, Names, PublishCall},
    target::Endpoint,
};
use crate::{
    actors::{
        now,
        partition::{Partition, TakeNews},
    },
    domain::{
        relay::{Channel, Head, News, Purpose, Request, TopicRead},
        topic::Topic,
    },
};

/// Pushed bytes that partitions have not taken. Past that the link ends and catches up
/// later, which takes no more memory than the log has events.
const MAX_PUSHED_BYTES: usize = 64 * 1024 * 1024;

/// What a push costs beside its bytes.
const PUSH_OVERHEAD_BYTES: usize = 200;

/// Pushes that are handed over in one go.
const MAX_PUSHES_A_TURN: usize = 1024;

/// Topics that are read by one call of the script, which keeps Redis busy so long.
const MAX_TOPICS_A_PAGE: usize = 128;

/// Bytes of events after which a page ends. Small beside the output that Redis lets gather
/// for a subscriber (`client-output-buffer-limit pubsub`, 8 MB for a minute by default).
const MAX_BYTES_A_PAGE: &str = "262144";

/// Commands that are sent in one go.
const MAX_COMMANDS_AT_ONCE: usize = 4096;

/// Redis does not know a script.
const NO_SCRIPT: redis::ErrorKind = redis::ErrorKind::Server(redis::ServerErrorKind::NoScript);

/// Answers may be large: a connection that gives none for this long is given up. A stalled
/// one is found earlier, by the probe.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// What a link is started with.
pub(super) struct LinkSpec {
    pub endpoint: Endpoint,
    /// Where its partitions are, by their numbers.
    pub partitions: BTreeMap<u16, Addr<Partition>>,
    pub generation: u64,
    pub settings: Arc<Settings>,
    pub bridge: Addr<RedisBridge>,
    /// What mirrors ask.
    pub requests: mpsc::UnboundedReceiver<(u16, Vec<Request>)>,
}

/// A link that works, as publishes use it.
#[derive(Clone)]
pub(super) struct PublishPath {
    pub connection: MultiplexedConnection,
    pub sha: Arc<str>,
    pub server: Arc<str>,
    /// That of the link.
    pub generation: u64,
}

/// Why a link ended, or did not begin.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error(transparent)]
    Redis(#[from] RedisError),
    #[error("no connection within the time allowed")]
    ConnectTimeout,
    #[error("the server is a replica")]
    Replica,
    #[error("the connection was lost")]
    Disconnected,
    #[error("the server has taken a channel away")]
    ChannelMoved,
    #[error("more was pushed than the partitions could take")]
    Overflow,
    #[error("the probe did not come back")]
    Stalled,
    #[error("the bridge has ended")]
    Stopped,
}

/// What the connection brings by itself.
enum Push {
    Message { channel: Vec<u8>, payload: Vec<u8> },
    Unsubscribed { channel: Vec<u8> },
    Disconnected,
    Overflow,
}

/// Runs until the link ends.
pub(super) async fn run(spec: LinkSpec) -> LinkError {
    let max_open = spec.settings.timeout * 3;
    let open = async {
        let mut link = Link::open(spec).await?;
        link.subscribe_own_channels().await?;
        link.agree_on_epoch().await?;
        Ok::<_, LinkError>(link)
    };
    let connected = timeout(max_open, open).await;
    match connected {
        Ok(Ok(link)) => match link.serve().await {
            Ok(()) => LinkError::Stopped,
            Err(error) => error,
        },
        Ok(Err(error)) => error,
        Err(_) => LinkError::ConnectTimeout,
    }
}

struct Link {
    spec: LinkSpec,
    names: BTreeMap<u16, Names>,
    publish: PublishPath,
    subscribe: MultiplexedConnection,
    read_sha: Arc<str>,
    pushes: mpsc::UnboundedReceiver<Push>,
    pushed_bytes: Arc<AtomicUsize>,
    clock: Clock,
    /// What is to be sent next, in order.
    calls: VecDeque<Call>,
    /// What was sent last: everything that had gathered, in one go.
    sent: Option<BoxFuture<'static, Result<Vec<(Call, Vec<Value>)>, RedisError>>>,
    /// Whether Redis has forgotten the scripts.
    must_load: bool,
    /// Channels that were given up and whose confirmation has not come.
    leaving: HashSet<Vec<u8>>,
    news: BTreeMap<u16, Vec<News>>,
    probe_channel: String,
    probe_sent: Option<Instant>,
}

impl Link {
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
        let server = replication_id(&mut publish).await?;
        let load = async |script: &str| {
            let mut command = redis::cmd("SCRIPT");
            command.arg("LOAD").arg(script);
            command.query_async::<String>(&mut publish.clone()).await
        };
        let sha = load(script::PUBLISH).await?;
        let read_sha = load(script::READ).await?;
        let names: BTreeMap<u16, Names> = spec
            .partitions
            .keys()
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
            clock: Clock::new(now(), 0),
            calls: VecDeque::new(),
            sent: None,
            must_load: false,
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
        let acknowledged = self.spec.bridge.send(super::LinkBegan {
            endpoint: self.spec.endpoint.clone(),
            generation: self.spec.generation,
            path,
        });
        let acknowledged = acknowledged.await.map_err(|_| LinkError::Stopped)?;
        for partition in self.spec.partitions.keys() {
            let acknowledged = acknowledged.get(partition).copied().unwrap_or_default();
            let news = News::LinkUp { generation: self.spec.generation, acknowledged };
            self.news.entry(*partition).or_default().push(news);
        }
        self.hand_over().await?;
        let mut probes = interval(self.spec.settings.probe);
        probes.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                push = self.pushes.recv() => {
                    self.take_push(push.unwrap_or(Push::Disconnected))?;
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
        }
        check(&run_pipeline(&mut self.subscribe, &pipeline).await?)?;
        Ok(())
    }

    /// Makes sure that each partition has an epoch, and all the same: the latest.
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

    async fn heads(&mut self) -> Result<Vec<(u16, Head)>, LinkError> {
        let mut pipeline = redis::pipe();
        for names in self.names.values() {
            pipeline.add_command(self.publish_call(names).command(&[]));
            pipeline.add_command(script::read_call(&self.read_sha, names, &[], &words(["head"])));
        }
        let values = run_pipeline(&mut self.subscribe, &pipeline).await?;
        check(&values)?;
        let mut heads = Vec::new();
        for (partition, value) in self.names.keys().zip(values.into_iter().skip(1).step_by(2)) {
            let (head, clock, _) = script::head(value)?;
            self.clock = clock;
            heads.push((*partition, head));
        }
        Ok(heads)
    }

    fn renew_call(&self, names: &Names, partition: u16) -> redis::Cmd {
        let (present, latest) = self.spec.settings.epochs.of(partition);
        let words = words(["renew", &present.to_string(), &latest.to_string()]);
        script::read_call(&self.read_sha, names, &[], &words)
    }

    fn publish_call<'a>(&'a self, names: &'a Names) -> PublishCall<'a> {
        self.spec.settings.publish_call(&self.publish.sha, &self.publish.server, names)
    }

    fn note_epoch(&self, partition: u16, head: &Head) {
        self.spec.settings.epochs.note(partition, head.epoch.number());
    }

    fn take_pushes(&mut self, max_count: usize) -> Result<(), LinkError> {
        for _ in 0..max_count {
            match self.pushes.try_recv() {
                Ok(push) => self.take_push(push)?,
                Err(mpsc::error::TryRecvError::Empty) => return Ok(()),
                Err(mpsc::error::TryRecvError::Disconnected) => {
                    return Err(LinkError::Disconnected);
                }
            }
        }
        Ok(())
    }

    fn take_push(&mut self, push: Push) -> Result<(), LinkError> {
        let (channel, payload) = match push {
            Push::Message { channel, payload } => (channel, payload),
            Push::Unsubscribed { channel } if self.leaving.remove(&channel) => return Ok(()),
            Push::Unsubscribed { .. } => return Err(LinkError::ChannelMoved),
            Push::Disconnected => return Err(LinkError::Disconnected),
            Push::Overflow => return Err(LinkError::Overflow),
        };
        let bytes = channel.len() + payload.len() + PUSH_OVERHEAD_BYTES;
        self.pushed_bytes.fetch_sub(bytes, Ordering::Relaxed);
        let channel = String::from_utf8_lossy(&channel);
        if *channel == *self.probe_channel {
            if let Some(sent) = self.probe_sent.take() {
                self.spec.settings.status.note_lag(sent.elapsed());
            }
            return Ok(());
        }
        let Some((partition, name)) = script::channel_parts(&self.spec.settings.prefix, &channel)
        else {
            return Ok(());
        };
        let news = if name == "control" {
            self.on_control(&payload)
        } else {
            match message::parse(&payload, &self.clock) {
                Ok(event) => Some(News::Event(event)),
                Err(error) => {
                    tracing::error!(channel = &*channel, %error, "event passed over");
                    None
                }
            }
        };
        self.news.entry(partition).or_default().extend(news);
        Ok(())
    }

    /// `ask <question> <topic>` of any instance, `tell <question> <count>` to the one.
    fn on_control(&self, payload: &[u8]) -> Option<News> {
        let text = std::str::from_utf8(payload).ok()?;
        let mut words = text.split(' ');
        let (verb, question, word) = (words.next()?, words.next()?.parse().ok()?, words.next()?);
        match verb {
            "ask" => Some(News::SubscribersAsked { question, topic: Topic::parse(word).ok()? }),
            "tell" => {
                let told = SubscribersTold { question, count: word.parse().ok()? };
                // One an instance and question; the questions are bounded.
                self.spec.bridge.do_send(told);
                None
            }
            _ => None,
        }
    }

    /// Queues requests; their answers come in the same order.
    fn execute(&mut self, partition: u16, requests: Vec<Request>) {
        let Some(names) = self.names.get(&partition) else { return };
        let name = |channel: &Channel| match channel {
            Channel::Topic(topic) => names.of(&format!("topic:{topic}")),
            Channel::All => names.of("all"),
        };
        let read = |words: &[String]| script::read_call(&self.read_sha, names, &[], words);
        for request in requests {
            let (commands, asked) = match request {
                // A command a channel: each is confirmed by itself.
                Request::Subscribe(channels) => {
                    let channels = channels.iter().map(name);
                    (channels.map(|name| command("SSUBSCRIBE", &name)).collect(), Asked::Nothing)
                }
                Request::Unsubscribe(channels) => {
                    let channels: Vec<String> = channels.iter().map(name).collect();
                    self.leaving.extend(channels.iter().map(|name| name.clone().into_bytes()));
                    let commands = channels.iter().map(|name| command("SUNSUBSCRIBE", name));
                    (commands.collect(), Asked::Nothing)
                }
                Request::Head { purpose } => {
                    (vec![read(&words(["head"]))], Asked::Head { purpose: Some(purpose) })
                }
                Request::Changes { purpose, after } => {
                    let words = words(["changes", &after.to_string()]);
                    (vec![read(&words)], Asked::Changes { purpose })
                }
                Request::Read { purpose, topics } => {
                    let pages = Pages::new(purpose, topics);
                    (vec![pages.command(&self.read_sha, names)], Asked::Read(pages))
                }
                Request::Renew { epoch } => {
                    let words = words(["renew", &epoch.number().to_string(), "0"]);
                    (vec![read(&words)], Asked::Head { purpose: None })
                }
                Request::TellSubscribers { question, count } => {
                    let mut command = command("SPUBLISH", &names.of("control"));
                    command.arg(format!("tell {question} {count}"));
                    (vec![command], Asked::Nothing)
                }
            };
            self.calls.push_back(Call { partition, commands, asked });
        }
    }

    /// Sends all that has gathered, once what was sent before is answered: so the order is
    /// that of the requests, whatever happens, and a delay is paid once for all of them.
    fn send_calls(&mut self) {
        if self.sent.is_some() || self.calls.is_empty() {
            return;
        }
        let mut pipeline = Pipeline::new();
        if std::mem::take(&mut self.must_load) {
            for script in [script::PUBLISH, script::READ] {
                self.calls.push_front(Call::load(script));
            }
        }
        let mut calls: Vec<Call> = Vec::new();
        while pipeline.len() < MAX_COMMANDS_AT_ONCE
            && let Some(call) = self.calls.pop_front()
        {
            call.commands.iter().for_each(|command| {
                pipeline.add_command(command.clone());
            });
            calls.push(call);
        }
        let mut connection = self.subscribe.clone();
        let sent = async move {
            let mut values = run_pipeline(&mut connection, &pipeline).await?.into_iter();
            let own = |call: Call| {
                let own = values.by_ref().take(call.commands.len()).collect();
                (call, own)
            };
            Ok(calls.into_iter().map(own).collect())
        };
        self.sent = Some(sent.boxed());
    }

    fn take_answers(&mut self, answers: Vec<(Call, Vec<Value>)>) -> Result<(), LinkError> {
        let mut again = Vec::new();
        for (mut call, mut values) in answers {
            match check(&values) {
                Err(error) if error.kind() == NO_SCRIPT => {
                    // As after SCRIPT FLUSH. Subscriptions and publishes of the same call
                    // have no script, so nothing is done twice.
                    self.must_load = true;
                    again.push(call);
                    continue;
                }
                checked => checked?,
            }
            let (partition, Some(value)) = (call.partition, values.pop()) else { continue };
            let news = match call.asked {
                Asked::Nothing => continue,
                Asked::Head { purpose } => News::Head { purpose, head: script::head(value)?.0 },
                Asked::Changes { purpose } => {
                    let (head, _, rest) = script::head(value)?;
                    News::Changes { purpose, head, changed: script::changed(rest)? }
                }
                Asked::Read(mut pages) => {
                    pages.take(value)?;
                    match pages.finish() {
                        Ok(news) => news,
                        Err(pages) => {
                            call.commands =
                                vec![pages.command(&self.read_sha, &self.names[&partition])];
                            call.asked = Asked::Read(pages);
                            again.push(call);
                            continue;
                        }
                    }
                }
            };
            if let News::Head { head, .. } | News::Changes { head, .. } | News::Read { head, .. } =
                &news
            {
                self.note_epoch(partition, head);
            }
            self.news.entry(partition).or_default().push(news);
        }
        again.into_iter().rev().for_each(|call| self.calls.push_front(call));
        Ok(())
    }

    /// Sends something around, so that a connection that is dead without a word is found,
    /// and looks whether all partitions are what they were.
    fn probe(&mut self) -> Result<(), LinkError> {
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
            let asked = Asked::Head { purpose: None };
            self.calls.push_back(Call { partition: *partition, commands, asked });
        }
        Ok(())
    }

    /// Waits until the partitions have taken all news, which is what bounds them.
    async fn hand_over(&mut self) -> Result<(), LinkError> {
        if self.news.is_empty() {
            return Ok(());
        }
        let sent = std::mem::take(&mut self.news).into_iter().filter_map(|(partition, news)| {
            let addr = self.spec.partitions.get(&partition)?;
            (!news.is_empty()).then(|| addr.send(TakeNews(news)))
        });
        for taken in join_all(sent).await {
            taken.map_err(|_| LinkError::Stopped)?;
        }
        Ok(())
    }
}

/// What a call's answer is to be read as.
enum Asked {
    Nothing,
    Head { purpose: Option<Purpose> },
    Changes { purpose: Purpose },
    Read(Pages),
}

/// Commands that are sent together; the last one's answer is what was asked.
struct Call {
    partition: u16,
    commands: Vec<Cmd>,
    asked: Asked,
}

impl Call {
    fn load(script: &str) -> Self {
        let mut load = command("SCRIPT", "LOAD");
        load.arg(script);
        Self { partition: 0, commands: vec![load], asked: Asked::Nothing }
    }
}

/// A read in pages: an answer beyond the server's limit for such connections would end it.
struct Pages {
    purpose: Purpose,
    /// That of the first page: what is newer comes as pushes.
    head: Option<Head>,
    /// Topics not wholly read, each with the sequence after which its next page begins.
    left: VecDeque<(Topic, u64)>,
    read: Vec<TopicRead>,
    /// The read under way of the first topic left.
    partial: Option<TopicRead>,
}

impl Pages {
    fn new(purpose: Purpose, topics: Vec<(Topic, u64)>) -> Self {
        Self { purpose, head: None, left: topics.into(), read: Vec::new(), partial: None }
    }

    /// The topics of the next page.
    fn next(&self) -> Vec<(Topic, u64)> {
        self.left.iter().take(MAX_TOPICS_A_PAGE).cloned().collect()
    }

    fn command(&self, sha: &str, names: &Names) -> Cmd {
        script::read_call(sha, names, &self.next(), &words(["read", MAX_BYTES_A_PAGE]))
    }

    /// Takes the answer to the next page: whole topics, and the last perhaps in part.
    fn take(&mut self, value: Value) -> Result<(), RedisError> {
        let (head, clock, rest) = script::head(value)?;
        self.head.get_or_insert(head);
        for (read, is_whole) in script::read(rest, &self.next(), &clock)? {
            let read = match self.partial.take() {
                Some(partial) => joined(partial, read),
                None => read,
            };
            let last = read.events.last().map_or(read.after, |event| event.sequence);
            if is_whole {
                self.left.pop_front();
                self.read.push(read);
            } else {
                if let Some((_, after)) = self.left.front_mut() {
                    *after = last;
                }
                self.partial = Some(read);
            }
        }
        Ok(())
    }

    /// All that was asked, or itself if a page is missing.
    fn finish(self) -> Result<News, Self> {
        match self.head.clone() {
            Some(head) if self.left.is_empty() => {
                Ok(News::Read { purpose: self.purpose, head, topics: self.read })
            }
            _ => Err(self),
        }
    }
}

/// Two pages of a topic. If something between them was trimmed meanwhile, only the later
/// one: what begins it then says what is lost.
fn joined(mut first: TopicRead, second: TopicRead) -> TopicRead {
    let last = first.events.last().map_or(first.after, |event| event.sequence);
    let is_torn = second.events.first().is_some_and(|event| event.previous > last);
    if is_torn {
        first.events.clear();
    }
    first.events.extend(second.events);
    TopicRead { last: second.last, evicted_through: second.evicted_through, ..first }
}

/// The answer to what was sent.
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

/// So that an operator sees whose connection it is. Not every login may do so.
async fn set_name(connection: &mut MultiplexedConnection, name: &str) {
    let mut command = redis::cmd("CLIENT");
    command.arg("SETNAME").arg(name);
    if let Err(error) = command.query_async::<()>(connection).await {
        tracing::debug!(%error, "the connection stays without a name");
    }
}

/// Tells server processes apart; empty if the login may not ask.
async fn replication_id(connection: &mut MultiplexedConnection) -> Result<String, LinkError> {
    let mut command = redis::cmd("INFO");
    command.arg("replication");
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
    Ok(field("master_replid:").unwrap_or_default().to_owned())
}

/// Takes pushes as the connection reads them. It cannot wait, so it counts.
fn push_sender(
    sender: mpsc::UnboundedSender<Push>,
    pushed_bytes: Arc<AtomicUsize>,
) -> impl Fn(PushInfo) -> Result<(), ()> + Send + Sync + 'static {
    move |push| {
        let mut parts = push.data.into_iter();
        let mut bytes = || match parts.next() {
            Some(Value::BulkString(bytes)) => bytes,
            _ => Vec::new(),
        };
        let push = match push.kind {
            PushKind::SMessage | PushKind::Message => {
                let (channel, payload) = (bytes(), bytes());
                let size = channel.len() + payload.len() + PUSH_OVERHEAD_BYTES;
                if pushed_bytes.fetch_add(size, Ordering::Relaxed) + size > MAX_PUSHED_BYTES {
                    Push::Overflow
                } else {
                    Push::Message { channel, payload }
                }
            }
            PushKind::SUnsubscribe => Push::Unsubscribed { channel: bytes() },
            PushKind::Disconnection => Push::Disconnected,
            _ => return Ok(()),
        };
        sender.send(push).map_err(|_| ())
    }
}
