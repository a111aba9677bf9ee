//! What concerns streams wherever they are: on which worker, and on which instance.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, join, join_all},
};
use tokio::time::timeout;

use super::{Hub, Shared};
use crate::{
    actors::{
        partition::AskTopic,
        topic_manager::{ChangeStreams, ListFeedUsers, Outcome, Whose},
    },
    bridge::{
        Execute, InstanceAnswer, InstanceAnswers, InstanceCall, StreamChange, StreamOutcome,
        TopicStatus,
    },
    domain::topic::{Pattern, Topic},
    error::ChangeError,
    follow::User,
    subscription::Change,
};

/// How long instances may take to say how many streams listen to a topic.
const COUNT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long the streams of an instance may take to change.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(2);

impl Hub {
    /// Changes the topics and patterns of an open stream, without a reconnect, on whatever
    /// instance it is. It is answered with all that the stream has then, once it gets
    /// whatever is published from now on. A client that reconnects begins with the topics
    /// that it asks for then.
    ///
    /// # Errors
    /// See [`ChangeError`]; nothing is changed but for [`ChangeError::Unconfirmed`].
    pub async fn change_topics(
        &self,
        client_id: &str,
        add: &[impl AsRef<str>],
        remove: &[impl AsRef<str>],
    ) -> Result<Vec<String>, ChangeError> {
        let is_id = client_id.len() == 32 && client_id.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_id {
            return Err(ChangeError::UnknownStream);
        }
        let max_count = self.shared().config.hub.max_topics_per_stream;
        if add.len().max(remove.len()) > max_count {
            return Err(ChangeError::TooManyTopics { max_count });
        }
        let change = StreamChange {
            client: Some(client_id.to_owned()),
            add: checked(add)?,
            remove: checked(remove)?,
            ..StreamChange::default()
        };
        let shared = self.shared();
        // Any partition's link reaches all instances.
        match shared.change_everywhere(0, vec![change]).await?.into_iter().next() {
            Some(StreamOutcome::Changed(names)) => Ok(names),
            Some(StreamOutcome::TooManyTopics) => Err(ChangeError::TooManyTopics { max_count }),
            Some(StreamOutcome::Ended) | None => Err(ChangeError::UnknownStream),
        }
    }
}

fn checked(names: &[impl AsRef<str>]) -> Result<Vec<String>, ChangeError> {
    let checked = |name: &str| Ok(Pattern::parse(name)?.as_str().to_owned());
    names.iter().map(|name| checked(name.as_ref())).collect()
}

impl Shared {
    /// Changes streams on every instance, and returns when it is in force. It goes by a
    /// partition's link: an instance that loses it also loses what is published there, and
    /// looks again at both.
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

    /// The users who have a feed on any instance that wants a topic, by a hash of their
    /// names, and whether they have muted the kind.
    pub async fn feed_users_everywhere(
        &self,
        topic: &Topic,
        kind: &str,
    ) -> Result<HashMap<u64, bool>, ChangeError> {
        let partition = topic.partition(self.config.hub.partitions);
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

    /// How a topic stands over all instances; none if that cannot be told at the moment.
    pub async fn topic_status(&self, topic: Topic) -> Option<TopicStatus> {
        let partition = topic.partition(self.config.hub.partitions);
        let call = InstanceCall::CountSubscribers { topic: topic.as_str().to_owned() };
        let counted = self.ask_all(partition, call, Some(COUNT_TIMEOUT));
        let (sequence, counted) = join(self.bridge.last_sequence(topic), counted).await;
        // Who has not answered by then is gone.
        let counts = counted.ok()?.answers.into_iter().filter_map(|answer| match answer {
            InstanceAnswer::Subscribers(count) if count > 0 => Some(count),
            _ => None,
        });
        let counts: Vec<usize> = counts.collect();
        let (instances, subscribers) = (counts.len(), counts.iter().sum());
        Some(TopicStatus { instances, subscribers, sequence: sequence? })
    }

    /// What every instance answers.
    async fn everywhere(
        &self,
        partition: u16,
        call: InstanceCall,
    ) -> Result<Vec<InstanceAnswer>, ChangeError> {
        let answered = self.ask_all(partition, call, None).await?;
        if answered.are_all { Ok(answered.answers) } else { Err(ChangeError::Unconfirmed) }
    }

    async fn ask_all(
        &self,
        partition: u16,
        call: InstanceCall,
        limit: Option<Duration>,
    ) -> Result<InstanceAnswers, ChangeError> {
        match self.bridge.call_all(partition, &call, limit) {
            Some(answers) => answers.await,
            None => Ok(InstanceAnswers { answers: vec![self.execute(call).await], are_all: true }),
        }
    }

    /// Does what an instance is asked.
    async fn execute(&self, call: InstanceCall) -> InstanceAnswer {
        let _place = self.asks.acquire().await;
        let answer = async {
            match call {
                InstanceCall::ChangeStreams(changes) => self.change_here(&changes).await,
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
        let managers = self.managers.lock().clone();
        let asked = managers.iter().map(|manager| manager.send(ChangeStreams(changes.clone())));
        // A worker that has ended has no streams.
        let outcomes = join_all(asked).await.into_iter().filter_map(Result::ok).flatten();
        InstanceAnswer::Changed(outcomes.map(StreamOutcome::from).collect())
    }

    async fn subscribers_here(&self, topic: &str) -> InstanceAnswer {
        let Ok(topic) = Topic::parse(topic) else { return InstanceAnswer::Failed };
        let partition = topic.partition(self.config.hub.partitions);
        let asked = self.partitions[usize::from(partition)].addr.send(AskTopic(topic)).await;
        asked.map_or(InstanceAnswer::Failed, |(count, _)| InstanceAnswer::Subscribers(count))
    }

    async fn feed_users_here(&self, topic: &str, kind: &str) -> InstanceAnswer {
        let Ok(topic) = Topic::parse(topic) else { return InstanceAnswer::Failed };
        let managers = self.managers.lock().clone();
        let ask = || ListFeedUsers { topic: topic.clone(), kind: kind.to_owned() };
        let asked = managers.iter().map(|manager| manager.send(ask()));
        let users = join_all(asked).await.into_iter().filter_map(Result::ok).flatten();
        InstanceAnswer::FeedUsers(users.collect())
    }

    /// A change as this instance sees it; none if it can be of no stream here.
    fn read(&self, change: &StreamChange) -> Option<(Whose, Change)> {
        let patterns = |names: &[String]| -> Vec<Pattern> {
            names.iter().filter_map(|name| Pattern::parse(name).ok()).collect()
        };
        let whose = match (&change.client, &change.user) {
            (Some(client), _) => {
                let (stream, secret) = self.client(client)?;
                Whose::Client { stream, secret }
            }
            (None, Some(user)) => Whose::Feed(User::parse(user).ok()?),
            (None, None) => return None,
        };
        let muted = change.muted.clone().map(Arc::from);
        let (add, remove) = (patterns(&change.add), patterns(&change.remove));
        Some((whose, Change { add, remove, muted }))
    }
}

impl From<Outcome> for StreamOutcome {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Changed(names) => Self::Changed(names.into()),
            Outcome::TooManyTopics => Self::TooManyTopics,
            Outcome::Ended => Self::Ended,
        }
    }
}

/// Executes the calls of other instances, as long as the hub is there.
pub(super) struct Executor(pub Weak<Shared>);

impl Execute for Executor {
    fn execute(&self, call: InstanceCall) -> BoxFuture<'static, InstanceAnswer> {
        let shared = self.0.upgrade();
        async move {
            match shared {
                Some(shared) => shared.execute(call).await,
                None => InstanceAnswer::Failed,
            }
        }
        .boxed()
    }
}
