//! Streams and topics over all instances: the calls to every instance, and this instance's
//! part of their execution.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use actix::Addr;
use fanfare_core::{
    access::{Grant, GrantText, MayOperate, MayRead, Revocation},
    cluster::{
        Cluster, HandleCall, InstanceAnswer, InstanceCall, RenewOutcome, StreamChange,
        StreamFilter, StreamInfo, StreamOutcome,
    },
    error::ChangeError,
    sse::ShutdownReason,
    subscription::Change,
    topic::{Pattern, Topic},
    topic_manager::{ChangeOutcome, Renewal, Which},
    user::User,
};
use futures_util::{
    FutureExt,
    future::{BoxFuture, join, join_all},
};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::{sync::Semaphore, time::timeout};

use crate::{
    actors::{
        partition::{CountSubscribers, ReadLastSequence},
        topic_manager::{
            ChangeStreams, EndStreams, ListFeedUsers, ListStreams, RenewGrant, TopicManager, Whose,
        },
    },
    clock::{now, unix_ms},
    ids::Ids,
    publisher::Publisher,
    revocations::Revocations,
};

/// Time limit for all instances to count a topic's streams.
const COUNT_TIMEOUT: Duration = Duration::from_secs(1);

/// Time limit for one instance to execute a call.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(2);

/// Streams of one instance in one list.
const MAX_LISTED: usize = 10_000;

/// Calls to topic managers in flight.
pub(crate) const MAX_ASKS: usize = 1024;

/// A topic over all instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct TopicStatus {
    /// Instances with subscribers of the topic.
    pub instances: usize,
    pub subscribers: usize,
    /// Sequence of the last event; 0 if there is none.
    pub sequence: u64,
}

/// This instance and the others.
pub(crate) struct Instances {
    pub cluster: Arc<dyn Cluster>,
    publisher: Arc<Publisher>,
    ids: Arc<Ids>,
    pub revocations: Arc<Revocations>,
    /// [`MAX_ASKS`] permits for calls to topic managers.
    pub asks: Semaphore,
    /// Locked for a worker's first stream, for calls, and for a drain; never on an event's way.
    managers: Mutex<Vec<Addr<TopicManager>>>,
}

impl Instances {
    pub fn new(
        cluster: Arc<dyn Cluster>,
        publisher: Arc<Publisher>,
        ids: Arc<Ids>,
        revocations: Arc<Revocations>,
    ) -> Self {
        let (asks, managers) = (Semaphore::new(MAX_ASKS), Mutex::default());
        Self { cluster, publisher, ids, revocations, asks, managers }
    }

    /// The topic managers of this instance.
    pub fn managers(&self) -> Vec<Addr<TopicManager>> {
        self.managers.lock().clone()
    }

    /// Adds a worker's topic manager. `start` gets the number of managers before it.
    pub fn add_manager(
        &self,
        start: impl FnOnce(usize) -> Addr<TopicManager>,
    ) -> Addr<TopicManager> {
        let mut managers = self.managers.lock();
        let manager = start(managers.len());
        managers.retain(Addr::connected);
        managers.push(manager.clone());
        manager
    }

    /// Changes streams on every instance. Resolves when the change is in force. The call takes the
    /// link of `partition`, the same as its events: an instance losing this link misses both, and
    /// after the reconnect it reads both again.
    pub async fn change_everywhere(
        &self,
        partition: u16,
        changes: Vec<StreamChange>,
    ) -> Result<Vec<StreamOutcome>, ChangeError> {
        let answers = self.everywhere(partition, InstanceCall::ChangeStreams(changes)).await?;
        let mut outcomes = Vec::new();
        for answer in answers {
            match answer {
                InstanceAnswer::Changed(changed) => outcomes.extend(changed),
                _ => return Err(ChangeError::Unconfirmed),
            }
        }
        Ok(outcomes)
    }

    /// The users with a feed subscribed to a topic, on any instance: a hash of each name, and
    /// `true` if the user mutes the kind.
    pub async fn feed_users_everywhere(
        &self,
        topic: &Topic,
        kind: &str,
    ) -> Result<HashMap<u64, bool>, ChangeError> {
        let partition = topic.partition(self.publisher.partition_count());
        let (name, kind) = (topic.as_str().to_owned(), kind.to_owned());
        let call = InstanceCall::ListFeedUsers { topic: name, kind };
        let mut users = HashMap::new();
        for answer in self.everywhere(partition, call).await? {
            match answer {
                InstanceAnswer::FeedUsers(here) => users.extend(here),
                _ => return Err(ChangeError::Unconfirmed),
            }
        }
        Ok(users)
    }

    /// Renews the grant of a client's stream, on the instance with it.
    pub async fn renew_everywhere(
        &self,
        client: &str,
        grant: &Grant,
    ) -> Result<Vec<String>, ChangeError> {
        let call = InstanceCall::RenewStream { client: client.to_owned(), grant: grant.to_text() };
        let mut outcome = None;
        for answer in self.everywhere(0, call).await? {
            match answer {
                InstanceAnswer::Renewed(renewed) => outcome = outcome.or(renewed),
                _ => return Err(ChangeError::Unconfirmed),
            }
        }
        match outcome {
            Some(RenewOutcome::Renewed { removed }) => Ok(removed),
            Some(RenewOutcome::Forbidden) => Err(grant.refusal(Vec::new()).into()),
            None => Err(ChangeError::UnknownStream),
        }
    }

    /// Ends streams on all instances. Returns their number, once none of them gets anything more.
    pub async fn end_everywhere(
        &self,
        filter: StreamFilter,
        reason: ShutdownReason,
        _: MayOperate,
    ) -> Result<usize, ChangeError> {
        self.ended(0, InstanceCall::EndStreams { filter, reason }).await
    }

    /// Refuses revoked tokens on all instances, and ends their streams. An instance without any link
    /// learns of it with its next one, before any later event.
    pub async fn revoke_everywhere(
        &self,
        revocation: Revocation,
        _: MayOperate,
    ) -> Result<usize, ChangeError> {
        let partitions = self.cluster.partitions_of_links().await;
        if partitions.is_empty() {
            return Err(ChangeError::BridgeDown);
        }
        let mut count = 0;
        for partition in partitions {
            count += self.ended(partition, InstanceCall::Revoke(revocation.clone())).await?;
        }
        Ok(count)
    }

    async fn ended(&self, partition: u16, call: InstanceCall) -> Result<usize, ChangeError> {
        let mut count = 0;
        for answer in self.everywhere(partition, call).await? {
            match answer {
                InstanceAnswer::StreamsEnded(here) => count += here,
                _ => return Err(ChangeError::Unconfirmed),
            }
        }
        Ok(count)
    }

    /// The streams of all instances, at most `limit` of each.
    pub async fn streams_everywhere(
        &self,
        filter: StreamFilter,
        limit: usize,
        _: MayOperate,
    ) -> Result<Vec<StreamInfo>, ChangeError> {
        let mut streams = Vec::new();
        for answer in self.everywhere(0, InstanceCall::ListStreams { filter, limit }).await? {
            match answer {
                InstanceAnswer::Streams(here) => streams.extend(here),
                _ => return Err(ChangeError::Unconfirmed),
            }
        }
        Ok(streams)
    }

    /// A topic's counts over all instances, and its last sequence. `None` while the log is
    /// unavailable.
    pub async fn topic_status(&self, topic: MayRead) -> Option<TopicStatus> {
        let topic = topic.into_topic();
        let partition = topic.partition(self.publisher.partition_count());
        let call = InstanceCall::CountSubscribers { topic: topic.as_str().to_owned() };
        let counted = self.cluster.call_all(partition, call, Some(COUNT_TIMEOUT));
        let sequence = self.publisher.partition(partition).send(ReadLastSequence(topic));
        let (sequence, counted) = join(sequence, counted).await;
        // An instance without an answer in time counts as gone: counts are for people.
        let counts = counted.ok()?.answers.into_iter().filter_map(|answer| match answer {
            InstanceAnswer::Subscribers(count) if count > 0 => Some(count),
            _ => None,
        });
        let counts: Vec<usize> = counts.collect();
        let (instances, subscribers) = (counts.len(), counts.iter().sum());
        Some(TopicStatus { instances, subscribers, sequence: sequence.ok()?? })
    }

    /// Calls all instances. A missing answer is an error: the change may lack on that instance.
    async fn everywhere(
        &self,
        partition: u16,
        call: InstanceCall,
    ) -> Result<Vec<InstanceAnswer>, ChangeError> {
        let answered = self.cluster.call_all(partition, call, None).await?;
        if answered.are_all { Ok(answered.answers) } else { Err(ChangeError::Unconfirmed) }
    }

    /// Executes a call on this instance. The permit bounds the messages in the managers' mailboxes.
    async fn execute(&self, call: InstanceCall) -> InstanceAnswer {
        let _permit = self.asks.acquire().await;
        let answer = async {
            match call {
                InstanceCall::ChangeStreams(changes) => self.change_here(&changes).await,
                InstanceCall::RenewStream { client, grant } => {
                    self.renew_here(&client, grant).await
                }
                InstanceCall::EndStreams { filter, reason } => match self.which(&filter) {
                    Some(which) => self.end_here(which, reason).await,
                    None => InstanceAnswer::StreamsEnded(0),
                },
                InstanceCall::Revoke(revocation) => self.revoke_here(revocation).await,
                InstanceCall::ListStreams { filter, limit } => match self.which(&filter) {
                    Some(which) => self.streams_here(which, limit).await,
                    None => InstanceAnswer::Streams(Vec::new()),
                },
                InstanceCall::CountSubscribers { topic } => self.subscribers_here(&topic).await,
                InstanceCall::ListFeedUsers { topic, kind } => {
                    self.feed_users_here(&topic, &kind).await
                }
            }
        };
        timeout(CHANGE_TIMEOUT, answer).await.unwrap_or(InstanceAnswer::Failed)
    }

    async fn change_here(&self, changes: &[StreamChange]) -> InstanceAnswer {
        let changes: Arc<[_]> = changes.iter().filter_map(|change| self.read(change)).collect();
        let managers = self.managers();
        let answers = managers.iter().map(|manager| manager.send(ChangeStreams(changes.clone())));
        // A worker failing to answer has ended, and so have its streams.
        let outcomes = join_all(answers).await.into_iter().filter_map(Result::ok).flatten();
        InstanceAnswer::Changed(outcomes.map(stream_outcome).collect())
    }

    async fn renew_here(&self, client: &str, grant: GrantText) -> InstanceAnswer {
        let Some((stream, secret)) = self.ids.stream_of(client) else {
            return InstanceAnswer::Renewed(None);
        };
        let Ok(grant) = Grant::from_text(grant, now(), unix_ms()).map(Arc::new) else {
            return InstanceAnswer::Failed;
        };
        let managers = self.managers();
        let renew = || RenewGrant { stream, secret, grant: grant.clone() };
        let answers = join_all(managers.iter().map(|manager| manager.send(renew()))).await;
        let outcome = answers.into_iter().filter_map(Result::ok).find_map(|answer| match answer {
            Renewal::Done(removed) | Renewal::Pending(removed) => {
                Some(RenewOutcome::Renewed { removed })
            }
            Renewal::Forbidden => Some(RenewOutcome::Forbidden),
            Renewal::Ended => None,
        });
        InstanceAnswer::Renewed(outcome)
    }

    async fn end_here(&self, which: Which, reason: ShutdownReason) -> InstanceAnswer {
        let managers = self.managers();
        let end = || EndStreams { which: which.clone(), reason };
        let answers = join_all(managers.iter().map(|manager| manager.send(end()))).await;
        InstanceAnswer::StreamsEnded(answers.into_iter().filter_map(Result::ok).sum())
    }

    /// Refuses new streams first: a stream opening meanwhile then finds the revocation.
    async fn revoke_here(&self, revocation: Revocation) -> InstanceAnswer {
        if self.revocations.add(revocation.clone()).is_err() {
            return InstanceAnswer::Failed;
        }
        self.end_here(Which::Revoked(revocation), ShutdownReason::Revoked).await
    }

    /// Puts a revocation kept in Redis in force, unless it already is.
    pub async fn revoke_kept(&self, revocation: Revocation) {
        if self.revocations.includes(&revocation) {
            return;
        }
        if let InstanceAnswer::Failed = self.revoke_here(revocation).await {
            tracing::error!("no room for a revocation kept in Redis (access.max_revocations)");
        }
    }

    async fn streams_here(&self, which: Which, limit: usize) -> InstanceAnswer {
        let limit = limit.min(MAX_LISTED);
        let managers = self.managers();
        let list = || ListStreams { which: which.clone(), limit };
        let infos = join_all(managers.iter().map(|manager| manager.send(list()))).await;
        let infos = infos.into_iter().filter_map(Result::ok).flatten().take(limit);
        InstanceAnswer::Streams(infos.collect())
    }

    /// The streams of a filter on this instance; `None` if there can be none.
    fn which(&self, filter: &StreamFilter) -> Option<Which> {
        let [client, user, topic] = filter.parts();
        if let Some(client) = client {
            let (stream, secret) = self.ids.stream_of(client)?;
            return Some(Which::Client { stream, secret });
        }
        let topic = topic.map(Topic::parse).transpose().ok()?;
        Some(Which::Of { user: user.map(str::to_owned), topic })
    }

    async fn subscribers_here(&self, topic: &str) -> InstanceAnswer {
        let Ok(topic) = Topic::parse(topic) else { return InstanceAnswer::Failed };
        let partition = topic.partition(self.publisher.partition_count());
        let counted = self.publisher.partition(partition).send(CountSubscribers(topic)).await;
        counted.map_or(InstanceAnswer::Failed, InstanceAnswer::Subscribers)
    }

    async fn feed_users_here(&self, topic: &str, kind: &str) -> InstanceAnswer {
        let Ok(topic) = Topic::parse(topic) else { return InstanceAnswer::Failed };
        let managers = self.managers();
        let ask = || ListFeedUsers { topic: topic.clone(), kind: kind.to_owned() };
        let answers = managers.iter().map(|manager| manager.send(ask()));
        let users = join_all(answers).await.into_iter().filter_map(Result::ok).flatten();
        InstanceAnswer::FeedUsers(users.collect())
    }

    /// Parses a change. `None` if it names no possible stream of this instance.
    fn read(&self, change: &StreamChange) -> Option<(Whose, Change)> {
        let patterns = |names: &[String]| -> Vec<Pattern> {
            names.iter().filter_map(|name| Pattern::parse(name).ok()).collect()
        };
        let whose = match (&change.client, &change.user) {
            (Some(client), _) => {
                let (stream, secret) = self.ids.stream_of(client)?;
                Whose::Client { stream, secret }
            }
            (None, Some(user)) => Whose::Feed(User::parse(user).ok()?),
            (None, None) => return None,
        };
        let muted = change.muted.clone().map(Arc::from);
        let (add, remove) = (patterns(&change.add), patterns(&change.remove));
        Some((whose, Change { add, remove, muted, by: change.by.clone() }))
    }
}

fn stream_outcome(outcome: ChangeOutcome) -> StreamOutcome {
    match outcome {
        ChangeOutcome::Changed(names) => StreamOutcome::Changed(names.into()),
        ChangeOutcome::TooMany(too_many) => StreamOutcome::TooMany(too_many),
        ChangeOutcome::Forbidden(names) => StreamOutcome::Forbidden(names.into()),
        ChangeOutcome::Busy => StreamOutcome::Busy,
        ChangeOutcome::TooFast => StreamOutcome::TooFast,
        ChangeOutcome::Ended => StreamOutcome::Ended,
    }
}

/// Executes the cluster's calls as long as the hub exists.
pub(crate) struct Executor(pub Weak<Instances>);

impl HandleCall for Executor {
    fn handle(&self, call: InstanceCall) -> BoxFuture<'static, InstanceAnswer> {
        let instances = self.0.upgrade();
        async move {
            match instances {
                Some(instances) => instances.execute(call).await,
                None => InstanceAnswer::Failed,
            }
        }
        .boxed()
    }
}
