//! What instances ask of each other about the streams that each has.

use serde::{Deserialize, Serialize};

/// A question, or something to do, for every instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum InstanceCall {
    /// Change these streams; answered once that is in force.
    ChangeStreams(Vec<StreamChange>),
    /// How many streams listen to this topic?
    CountSubscribers { topic: String },
    /// Which users have a feed that wants this topic?
    ListFeedUsers { topic: String, kind: String },
}

/// A change of one client's stream, or of all of a user's feed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StreamChange {
    pub client: Option<String>,
    pub user: Option<String>,
    pub add: Vec<String>,
    pub remove: Vec<String>,
    /// The kinds that are muted from now on, if that changes.
    pub muted: Option<Vec<String>>,
}

/// What instances have answered in time.
#[derive(Debug, Default)]
pub(crate) struct InstanceAnswers {
    pub answers: Vec<InstanceAnswer>,
    /// Whether every instance that was asked has.
    pub are_all: bool,
}

/// What an instance answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum InstanceAnswer {
    /// What became of each stream that is here.
    Changed(Vec<StreamOutcome>),
    Subscribers(usize),
    /// By a hash of their names, and whether they have muted the kind.
    FeedUsers(Vec<(u64, bool)>),
    /// It could not do it in time.
    Failed,
}

/// What became of a change of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum StreamOutcome {
    /// It now has these topics.
    Changed(Vec<String>),
    TooManyTopics,
    /// It has ended meanwhile.
    Ended,
}
