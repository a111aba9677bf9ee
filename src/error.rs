//! Errors that callers match on, and their stable codes.

use crate::{
    domain::{cursor::CursorError, event::EventError, topic::TopicError},
    follow::{GraphError, UserError},
};

/// Why a hub did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration does not hold.
    #[error("the configuration does not hold:\n{0}")]
    Config(#[from] crate::config::ConfigProblems),
    /// The threads for the hub's partitions could not be started.
    #[error("the hub's threads did not start: {0}")]
    Threads(#[from] std::io::Error),
}

/// Why an event was not taken. But for [`Self::Internal`] and [`Self::Unconfirmed`] it is in
/// no history and reaches no stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    #[error(transparent)]
    Topic(#[from] TopicError),
    #[error(transparent)]
    Event(#[from] EventError),
    /// Too many events wait already. Try again later.
    #[error("the hub has more to publish than it can take at the moment")]
    AtCapacity,
    /// The instance is stopping. Try another, or later.
    #[error("this instance is stopping")]
    Draining,
    /// Redis is away. Try again later.
    #[error("Redis is away, so nothing can be published at the moment")]
    BridgeDown,
    /// Redis went away before it answered: the event may have been taken. Publish it again
    /// with the same id, and it is there once.
    #[error(
        "Redis did not answer: the event may have been taken; publish it again with the same id"
    )]
    Unconfirmed,
    /// A bug: the partition panicked and was rebuilt. The event may have been kept.
    #[error("the hub failed to publish the event")]
    Internal,
}

impl PublishError {
    /// The code in an HTTP answer. Its meaning never changes.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Topic(_) => "bad_topic",
            Self::Event(EventError::PayloadTooLarge { .. }) => "payload_too_large",
            Self::Event(_) => "bad_event",
            Self::AtCapacity => "at_capacity",
            Self::Draining => "draining",
            Self::BridgeDown => "bridge_down",
            Self::Unconfirmed => "unconfirmed",
            Self::Internal => "internal",
        }
    }
}

/// Why a stream was not opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    #[error(transparent)]
    Topic(#[from] TopicError),
    #[error("a stream needs at least one topic")]
    NoTopic,
    #[error("a stream has at most {max_count} topics")]
    TooManyTopics { max_count: usize },
    #[error("`types` names event types of 1 to 256 bytes without control characters")]
    BadTypes,
    #[error(transparent)]
    Cursor(#[from] CursorError),
    /// As many streams are open as this instance may have. Try again later.
    #[error("this instance has as many streams as it may have")]
    AtCapacity,
    /// The instance is stopping. Try another, or later.
    #[error("this instance is stopping")]
    Draining,
    /// Redis is away. Try again later.
    #[error("Redis is away, so no stream can be opened at the moment")]
    BridgeDown,
    /// The application's follower graph or preferences cannot be had. Try again later.
    #[error("the follower graph cannot be had at the moment")]
    GraphDown,
}

/// Why an event was not brought to an author's followers. But for [`Self::Partly`], and where
/// [`PublishError`] says so, nobody has got it.
#[derive(Debug, thiserror::Error)]
pub enum FanOutError {
    #[error(transparent)]
    User(#[from] UserError),
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// Some followers may have got it. Repeat it with the same id, and all have, once.
    #[error("only some of the followers may have got it; repeat it with the same id: {0}")]
    Partly(#[source] Box<FanOutError>),
}

impl FanOutError {
    /// The code in an HTTP answer. Its meaning never changes.
    pub fn code(&self) -> &'static str {
        match self {
            Self::User(_) => "bad_user",
            Self::Publish(error) => error.code(),
            Self::Graph(error) => error.code(),
            Self::Partly(_) => "unconfirmed",
        }
    }
}

/// Why an open stream was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// No stream of this client is open; it may have reconnected under another id.
    #[error("no stream of this client is open")]
    UnknownStream,
    #[error("a stream has at most {max_count} topics")]
    TooManyTopics { max_count: usize },
    /// Redis is away, so that other instances cannot be asked. Nothing was changed.
    #[error("Redis is away, so no stream can be changed at the moment")]
    BridgeDown,
    /// Not every instance answered in time: the change may be in force. It may be made again.
    #[error("not all was changed in time; the change may be made again")]
    Unconfirmed,
}

impl ChangeError {
    /// The code in an HTTP answer. Its meaning never changes.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Topic(_) => "bad_topic",
            Self::UnknownStream => "unknown_stream",
            Self::TooManyTopics { .. } => "too_many_topics",
            Self::BridgeDown => "bridge_down",
            Self::Unconfirmed => "unconfirmed",
        }
    }
}

impl SubscribeError {
    /// The code in an HTTP answer. Its meaning never changes.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Topic(_) | Self::NoTopic => "bad_topic",
            Self::TooManyTopics { .. } => "too_many_topics",
            Self::BadTypes => "bad_types",
            Self::Cursor(_) => "bad_cursor",
            Self::AtCapacity => "at_capacity",
            Self::Draining => "draining",
            Self::BridgeDown => "bridge_down",
            Self::GraphDown => "graph_down",
        }
    }
}

/// Why followers or preferences could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    #[error(transparent)]
    User(#[from] UserError),
    /// More kinds than a user may mute, or one that is no event's type.
    #[error("a user mutes at most {max_count} kinds, of 1 to 256 bytes without control characters")]
    Preferences { max_count: usize },
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// It is stored, but not in force in every open feed. It may be made again.
    #[error("it is stored, but open feeds may lack it: {0}")]
    Feeds(#[from] ChangeError),
}

impl FollowError {
    /// The code in an HTTP answer. Its meaning never changes.
    pub fn code(&self) -> &'static str {
        match self {
            Self::User(_) => "bad_user",
            Self::Preferences { .. } => "bad_preferences",
            Self::Graph(error) => error.code(),
            Self::Feeds(_) => "unconfirmed",
        }
    }
}
