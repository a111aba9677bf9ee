//! Errors for callers to match on. Each names its stable [`ErrorCode`].

use std::error::Error;

pub use crate::error_code::ErrorCode;

use crate::{cursor::CursorError, event::EventError, topic::TopicError, user::UserError};

/// Defines the public accessor of all errors.
macro_rules! codes {
    ($($error:ty),*) => {$(
        impl $error {
            /// The code in an HTTP answer. Its meaning never changes.
            pub fn code(&self) -> &'static str {
                self.error_code().as_str()
            }
        }
    )*};
}

codes!(
    AccessError,
    PublishError,
    SubscribeError,
    FanOutError,
    ChangeError,
    FollowError,
    GraphError
);

/// Why access control refused a request. It never says whether a topic exists.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// The request has no valid token or cookie. `reason` is a word for metrics and logs.
    #[error("a valid token is needed")]
    Unauthenticated { reason: &'static str },
    /// The caller lacks the grant. `names` are the topics of the request without it.
    #[error("not granted{}", listed(names))]
    Forbidden { names: Vec<String> },
    /// The application's decision is unavailable. Try again later.
    #[error("the application's decision is unavailable")]
    Down,
}

/// Names listed in a message; an answer over HTTP has all of them.
const MAX_LISTED: usize = 10;

fn listed(names: &[String]) -> String {
    let shown = names.iter().take(MAX_LISTED).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len() {
        0 => String::new(),
        count if count > MAX_LISTED => format!(": {shown}, … ({count} in all)"),
        _ => format!(": {shown}"),
    }
}

impl AccessError {
    /// The stable code.
    pub fn error_code(&self) -> ErrorCode {
        match self {
            Self::Unauthenticated { .. } => ErrorCode::Unauthenticated,
            Self::Forbidden { .. } => ErrorCode::Forbidden,
            Self::Down => ErrorCode::AccessDown,
        }
    }

    /// The word in metrics and logs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unauthenticated { reason } => reason,
            Self::Forbidden { .. } => "forbidden",
            Self::Down => "access_down",
        }
    }

    /// The request has no token, and anonymous callers lack the grant.
    pub fn no_token() -> Self {
        Self::Unauthenticated { reason: "no_token" }
    }
}

/// Why the hub refused an event. The event is in no history and reaches no stream, except
/// after [`Self::Internal`], [`Self::Unconfirmed`] and [`Self::LogFailed`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    #[error(transparent)]
    Access(#[from] AccessError),
    #[error(transparent)]
    Topic(#[from] TopicError),
    #[error(transparent)]
    Event(#[from] EventError),
    /// The event has more topics than the hub takes at once (`hub.max_topics_per_stream`), or more
    /// in one partition than there are publish permits (`publish.max_pending`).
    #[error("a publish has at most {max_count} topics, in one partition at most {max_pending}")]
    TooManyTopics { max_count: usize, max_pending: usize },
    #[error("an event needs a topic")]
    NoTopic,
    /// No publish permit became free within `publish.max_wait`. Try again later.
    #[error("too many publishes are in flight")]
    AtCapacity,
    /// The hub remembers too many ids of this publisher. Try again later, or publish without an id.
    #[error("too many ids of this publisher are remembered: publish again later, or without an id")]
    TooManyIds,
    /// The instance is stopping. Try another instance, or later.
    #[error("this instance is stopping")]
    Draining,
    /// Redis is unavailable. Try again later.
    #[error("Redis is unavailable: nothing can be published now")]
    BridgeDown,
    /// The connection to Redis failed before the answer: the event may be stored. Publish it
    /// again with the same id, and it is stored once.
    #[error("Redis did not answer: the event may be stored; publish it again with the same id")]
    Unconfirmed,
    /// The disk of the log is full. Try again later.
    #[error("the disk of the log is full: nothing can be published now")]
    LogFull,
    /// The log on disk has failed, and takes nothing more until a restart. The event may be stored:
    /// publish it again with the same id after the restart, and it is stored once.
    #[error("the log on disk has failed: nothing can be published until a restart")]
    LogFailed,
    /// A bug: the partition panicked and was rebuilt. The event may be stored.
    #[error("the hub failed to publish the event")]
    Internal,
}

impl PublishError {
    /// The stable code.
    pub fn error_code(&self) -> ErrorCode {
        match self {
            Self::Access(error) => error.error_code(),
            Self::Topic(_) | Self::NoTopic => ErrorCode::BadTopic,
            Self::TooManyTopics { .. } => ErrorCode::TooManyTopics,
            Self::Event(EventError::PayloadTooLarge { .. }) => ErrorCode::PayloadTooLarge,
            Self::Event(EventError::NotKeyed) => ErrorCode::NotKeyed,
            Self::Event(_) => ErrorCode::BadEvent,
            Self::AtCapacity => ErrorCode::AtCapacity,
            Self::TooManyIds => ErrorCode::TooManyIds,
            Self::Draining => ErrorCode::Draining,
            Self::BridgeDown => ErrorCode::BridgeDown,
            Self::Unconfirmed => ErrorCode::Unconfirmed,
            Self::LogFull => ErrorCode::LogFull,
            Self::LogFailed => ErrorCode::LogFailed,
            Self::Internal => ErrorCode::Internal,
        }
    }
}

/// Why the hub did not open a stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    #[error(transparent)]
    Access(#[from] AccessError),
    #[error(transparent)]
    Topic(#[from] TopicError),
    #[error("a stream needs at least one topic")]
    NoTopic,
    #[error("a stream has at most {max_count} topics")]
    TooManyTopics { max_count: usize },
    #[error("a stream has at most {max_count} patterns")]
    TooManyPatterns { max_count: usize },
    #[error("a stream has at most {max_count} types")]
    TooManyTypes { max_count: usize },
    #[error("`types` names event types of 1 to 256 bytes without control characters")]
    BadTypes,
    #[error(transparent)]
    Cursor(#[from] CursorError),
    /// The client's address has all its streams open (`limits.streams`). Try again later.
    #[error("too many streams of this address")]
    TooManyStreams,
    /// The stream limit of this instance is reached. Try again later.
    #[error("stream limit reached")]
    AtCapacity,
    /// The instance is stopping. Try another instance, or later.
    #[error("this instance is stopping")]
    Draining,
    /// Redis is unavailable. Try again later.
    #[error("Redis is unavailable: no stream can be opened now")]
    BridgeDown,
    /// The application's follow graph or preferences are unavailable. Try again later.
    #[error("follow graph unavailable")]
    GraphDown,
}

impl SubscribeError {
    /// The stable code.
    pub fn error_code(&self) -> ErrorCode {
        match self {
            Self::Access(error) => error.error_code(),
            Self::Topic(_) | Self::NoTopic => ErrorCode::BadTopic,
            Self::TooManyTopics { .. } => ErrorCode::TooManyTopics,
            Self::TooManyPatterns { .. } => ErrorCode::TooManyPatterns,
            Self::TooManyTypes { .. } => ErrorCode::TooManyTypes,
            Self::BadTypes => ErrorCode::BadTypes,
            Self::Cursor(_) => ErrorCode::BadCursor,
            Self::TooManyStreams => ErrorCode::TooManyStreams,
            Self::AtCapacity => ErrorCode::AtCapacity,
            Self::Draining => ErrorCode::Draining,
            Self::BridgeDown => ErrorCode::BridgeDown,
            Self::GraphDown => ErrorCode::GraphDown,
        }
    }
}

/// Why a fan-out failed. No follower got the event, except after [`Self::Partly`] and the
/// exceptions of [`PublishError`].
#[derive(Debug, thiserror::Error)]
pub enum FanOutError {
    #[error(transparent)]
    User(#[from] UserError),
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// Some followers may have got the event. Repeat the fan-out with the same id: then each
    /// follower has it once.
    #[error("some followers may have got the event; repeat the fan-out with the same id: {0}")]
    Partly(#[source] Box<FanOutError>),
}

impl FanOutError {
    /// The stable code.
    pub fn error_code(&self) -> ErrorCode {
        match self {
            Self::User(_) => ErrorCode::BadUser,
            Self::Publish(error) => error.error_code(),
            Self::Graph(error) => error.error_code(),
            Self::Partly(_) => ErrorCode::Unconfirmed,
        }
    }
}

/// Why the hub did not change an open stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    #[error(transparent)]
    Access(#[from] AccessError),
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// No stream of this client is open. The client may have reconnected under another id.
    #[error("no stream of this client is open")]
    UnknownStream,
    #[error("a stream has at most {max_count} topics")]
    TooManyTopics { max_count: usize },
    #[error("a stream has at most {max_count} patterns")]
    TooManyPatterns { max_count: usize },
    /// Too many changes of this stream wait already. Nothing was changed (`at_capacity`).
    #[error("too many changes of this stream are in progress")]
    AtCapacity,
    /// The topics of this stream change too fast (`stream.topic_changes_per_second`). Nothing was
    /// changed (`rate_limited`).
    #[error("the topics of this stream change too fast (stream.topic_changes_per_second)")]
    TooFast,
    /// Redis is unavailable, so other instances cannot be asked. Nothing was changed.
    #[error("Redis is unavailable: no stream can be changed now")]
    BridgeDown,
    /// Not every instance answered in time: the change may be in force. Repeating it is safe.
    #[error("not every instance confirmed the change in time; repeat it")]
    Unconfirmed,
}

impl ChangeError {
    /// The stable code.
    pub fn error_code(&self) -> ErrorCode {
        match self {
            Self::Access(error) => error.error_code(),
            Self::Topic(_) => ErrorCode::BadTopic,
            Self::UnknownStream => ErrorCode::UnknownStream,
            Self::TooManyTopics { .. } => ErrorCode::TooManyTopics,
            Self::TooManyPatterns { .. } => ErrorCode::TooManyPatterns,
            Self::AtCapacity => ErrorCode::AtCapacity,
            Self::TooFast => ErrorCode::RateLimited,
            Self::BridgeDown => ErrorCode::BridgeDown,
            Self::Unconfirmed => ErrorCode::Unconfirmed,
        }
    }
}

/// Why reading or changing a graph or the preferences failed. Repeating a change is safe: it is
/// stored once.
#[derive(Debug, thiserror::Error)]
pub enum GraphError {
    /// Redis is unavailable; nothing was changed (`bridge_down`).
    #[error("Redis is unavailable")]
    BridgeDown,
    /// The connection to Redis failed before the answer; the change may be stored (`unconfirmed`).
    #[error("Redis did not answer: the change may be stored; repeat it")]
    Unconfirmed,
    /// The disk of the log is full; nothing was changed (`log_full`).
    #[error("the disk of the log is full: nothing can be changed now")]
    LogFull,
    /// The log on disk has failed; the change may be stored (`log_failed`).
    #[error("the log on disk has failed: nothing can be changed until a restart")]
    LogFailed,
    /// The application's own store failed; the change may be stored (`graph_down`).
    #[error("follow graph unavailable")]
    Unavailable(#[source] Box<dyn Error + Send + Sync>),
    /// `after` is not the end of a page of this list (`bad_page`).
    #[error("`after` is not the end of a page of this list")]
    BadPage,
}

impl GraphError {
    /// The stable code.
    pub fn error_code(&self) -> ErrorCode {
        match self {
            Self::BridgeDown => ErrorCode::BridgeDown,
            Self::Unconfirmed => ErrorCode::Unconfirmed,
            Self::LogFull => ErrorCode::LogFull,
            Self::LogFailed => ErrorCode::LogFailed,
            Self::Unavailable(_) => ErrorCode::GraphDown,
            Self::BadPage => ErrorCode::BadPage,
        }
    }
}

/// Why the hub did not read or change followers or preferences.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    #[error(transparent)]
    User(#[from] UserError),
    /// More kinds than a user may mute, or an invalid event type.
    #[error("a user mutes at most {max_count} kinds, of 1 to 256 bytes without control characters")]
    Preferences { max_count: usize },
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The change is stored, but not in force in every open feed. Repeating it is safe.
    #[error("the change is stored, but open feeds may lack it: {0}")]
    Feeds(#[from] ChangeError),
}

impl FollowError {
    /// The stable code.
    pub fn error_code(&self) -> ErrorCode {
        match self {
            Self::User(_) => ErrorCode::BadUser,
            Self::Preferences { .. } => ErrorCode::BadPreferences,
            Self::Graph(error) => error.error_code(),
            Self::Feeds(_) => ErrorCode::Unconfirmed,
        }
    }
}

impl From<GraphError> for SubscribeError {
    fn from(error: GraphError) -> Self {
        match error {
            GraphError::BridgeDown | GraphError::Unconfirmed => Self::BridgeDown,
            _ => Self::GraphDown,
        }
    }
}
