//! The seam to the other instances of a cluster: its status, and calls to all instances.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{error::ChangeError, future::BoxFuture, subscription::TooMany};

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
    /// Too many changes of the stream wait already.
    Busy,
    /// The stream has ended.
    Ended,
}
