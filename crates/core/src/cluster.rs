//! The seam to the other instances of a cluster: its status, and calls to all instances.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    access::{GrantText, Revocation},
    error::ChangeError,
    future::BoxFuture,
    sse::ShutdownReason,
    subscription::{ChangeBy, TooMany},
};

/// A hub's access to all instances of its cluster.
pub trait Cluster: Send + Sync {
    /// The state of the link to other instances.
    fn status(&self) -> ClusterStatus;

    /// Waits for the first contact to the cluster: made, failed, or refused.
    ///
    /// # Errors
    /// The cluster refused this instance.
    fn first_contact(&self) -> BoxFuture<'static, Result<(), SettingConflict>>;

    /// Makes every instance execute a call, this instance included. Returns the answers received
    /// within `limit`; without a limit, within the cluster's own time-out. The call travels with
    /// the events of `partition`: an instance losing the call loses the events too, and rereads
    /// both.
    ///
    /// # Errors
    /// [`ChangeError::BridgeDown`]: no instance was asked. [`ChangeError::Unconfirmed`]: some may
    /// have been asked.
    fn call_all(
        &self,
        partition: u16,
        call: InstanceCall,
        limit: Option<Duration>,
    ) -> BoxFuture<'static, Result<InstanceAnswers, ChangeError>>;

    /// One partition of each link between the instances. An instance can lose a link and keep the
    /// others: a call by all of them misses no instance with a link left.
    fn partitions_of_links(&self) -> BoxFuture<'static, Vec<u16>>;

    /// Sets the handler of calls. Until then this instance answers no call.
    fn serve(&self, handler: Box<dyn HandleCall>);
}

/// Executes calls on this instance.
pub trait HandleCall: Send + Sync {
    /// Executes a call and answers within some seconds.
    fn handle(&self, call: InstanceCall) -> BoxFuture<'static, InstanceAnswer>;
}

/// Whether and how this instance is linked to others.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterStatus {
    /// `local` or `redis`.
    pub kind: &'static str,
    #[serde(rename = "up")]
    pub is_up: bool,
    /// The name of this instance; none for a single instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// The number of times the link was lost.
    pub reconnects: u64,
    /// Skipped messages of other programs.
    pub rejected: u64,
    /// Bytes of history in Redis, of all partitions. 0 for a single instance.
    pub history_bytes: u64,
    /// Duration of the last probe's round trip.
    pub lag_ms: f64,
    /// Why the cluster refuses this instance at present.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conflict: Option<SettingConflict>,
}

/// A setting of this instance differs from the rest of its cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error(
    "{name}: the cluster has `{stored}`, this instance has `{own}`; all instances need the same"
)]
pub struct SettingConflict {
    pub name: String,
    pub stored: String,
    pub own: String,
}

/// A call to every instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum InstanceCall {
    /// Change these streams. The answer comes after all changes are in force.
    ChangeStreams(Vec<StreamChange>),
    /// How many streams listen to this topic?
    CountSubscribers { topic: String },
    /// Renew the grant of a client's stream. The answer comes once it is in force.
    RenewStream { client: String, grant: GrantText },
    /// End these streams. The answer comes once none of them gets anything more.
    EndStreams { filter: StreamFilter, reason: ShutdownReason },
    /// Refuse these tokens, and end their streams as for `EndStreams`.
    Revoke(Revocation),
    /// Describe these streams, at most `limit`.
    ListStreams { filter: StreamFilter, limit: usize },
    /// List the users with a feed subscribed to this topic.
    ListFeedUsers { topic: String, kind: String },
}

/// A change of one client's stream, or of all of a user's feed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamChange {
    pub client: Option<String>,
    pub user: Option<String>,
    pub add: Vec<String>,
    pub remove: Vec<String>,
    /// The new list of muted kinds, if it changes.
    pub muted: Option<Vec<String>>,
    #[serde(default)]
    pub by: ChangeBy,
}

/// The outcome of renewing the grant of one stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RenewOutcome {
    /// The stream has lost these topics.
    Renewed { removed: Vec<String> },
    /// The grant is of another user, or revoked.
    Forbidden,
}

/// Open streams of all instances. All given parts must match; the default matches all streams.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamFilter {
    client: Option<String>,
    user: Option<String>,
    topic: Option<String>,
}

impl StreamFilter {
    /// All streams.
    pub fn all() -> Self {
        Self::default()
    }

    /// The streams of a user.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// The stream with this client id, from its `connected` event.
    #[must_use]
    pub fn client(mut self, client_id: impl Into<String>) -> Self {
        self.client = Some(client_id.into());
        self
    }

    /// The streams of a topic, patterns included.
    #[must_use]
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.topic = Some(topic.into());
        self
    }

    /// The parts: client id, user, topic.
    pub fn parts(&self) -> [Option<&str>; 3] {
        [self.client.as_deref(), self.user.as_deref(), self.topic.as_deref()]
    }
}

/// An open stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct StreamInfo {
    pub client_id: String,
    /// The user of its grant or feed.
    pub user: Option<String>,
    /// Its opening, in milliseconds since 1970.
    pub opened_at_ms: u64,
    /// Its first topics and patterns, sorted.
    pub topics: Vec<String>,
    /// The number of all its topics and patterns.
    pub topic_count: usize,
    /// Bytes not taken by its client yet.
    pub unsent_bytes: usize,
}

impl StreamInfo {
    /// Topics listed for one stream.
    pub const MAX_TOPICS: usize = 100;

    pub fn new(client_id: String, opened_at_ms: u64) -> Self {
        let (user, topics) = (None, Vec::new());
        Self { client_id, user, opened_at_ms, topics, topic_count: 0, unsent_bytes: 0 }
    }
}

/// The answers of instances received in time.
#[derive(Debug, Default)]
pub struct InstanceAnswers {
    pub answers: Vec<InstanceAnswer>,
    /// Whether every asked instance answered.
    pub are_all: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum InstanceAnswer {
    /// The outcome for each stream on this instance.
    Changed(Vec<StreamOutcome>),
    Subscribers(usize),
    /// The outcome of a renewal; none without this stream.
    Renewed(Option<RenewOutcome>),
    /// The number of ended streams.
    StreamsEnded(usize),
    Streams(Vec<StreamInfo>),
    /// The hash of each user's name, and whether the user has muted the kind.
    FeedUsers(Vec<(u64, bool)>),
    /// The instance did not execute the call in time.
    Failed,
}

/// The outcome of changing one stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StreamOutcome {
    /// The stream's topics after the change.
    Changed(Vec<String>),
    TooMany(TooMany),
    /// The caller may not change the stream, or may not add these names.
    Forbidden(Vec<String>),
    /// Too many changes of the stream wait already.
    Busy,
    /// The stream's topics change too fast.
    TooFast,
    /// The stream has ended.
    Ended,
}
