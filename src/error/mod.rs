//! The errors of the library's calls. Each is an actix-web response: a handler may return it with
//! `?`. The hub's parts use the same errors without HTTP, from `fanfare_core::error`.

mod mirror;

use fanfare_core::{
    cursor::CursorError,
    error::{self as core, AccessError, ErrorCode, GraphError},
    event::EventError,
    topic::TopicError,
    user::UserError,
};

use self::mirror::mirror;

/// Why a hub did not start. Nothing of the hub is left running.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is invalid. The text has one line for each problem.
    #[error("invalid configuration:\n{0}")]
    Config(#[from] crate::config::ConfigProblems),
    /// The operating system refused a thread, or a thread ended before the start was complete.
    #[error("the hub's threads did not start: {0}")]
    Threads(#[from] std::io::Error),
    /// The log on disk is in use by another process, not writable, of another format, or unreadable.
    #[error("log.directory: {0}")]
    Log(String),
    /// A setting differs from the other instances of the cluster.
    #[error("{0}")]
    Cluster(#[from] fanfare_core::cluster::SettingConflict),
}

mirror! {
    /// Why the hub refused an event. The event is in no history and reaches no stream, except
    /// after [`Self::Internal`], [`Self::Unconfirmed`] and [`Self::LogFailed`].
    pub enum PublishError {
        /// Access control refused the caller.
        Access(error: AccessError),
        Topic(error: TopicError),
        Event(error: EventError),
        /// The event has more topics than the hub takes at once (`hub.max_topics_per_stream`), or
        /// more in one partition than there are publish permits (`publish.max_pending`).
        TooManyTopics { max_count: usize, max_pending: usize },
        NoTopic,
        /// No publish permit became free within `publish.max_wait`. Try again later.
        AtCapacity,
        /// The hub remembers too many ids of this publisher. Try again later, or publish without
        /// an id.
        TooManyIds,
        /// The instance is stopping. Try another instance, or later.
        Draining,
        /// Redis is unavailable. Try again later.
        BridgeDown,
        /// The connection to Redis failed before the answer: the event may be stored. Publish it
        /// again with the same id, and it is stored once.
        Unconfirmed,
        /// The disk of the log is full. Try again later.
        LogFull,
        /// The log on disk has failed, and takes nothing more until a restart. The event may be
        /// stored: publish it again with the same id after the restart, and it is stored once.
        LogFailed,
        /// A bug: the partition panicked and was rebuilt. The event may be stored.
        Internal,
    }
}

mirror! {
    /// Why the hub did not open a stream.
    pub enum SubscribeError {
        /// Access control refused the caller.
        Access(error: AccessError),
        Topic(error: TopicError),
        NoTopic,
        TooManyTopics { max_count: usize },
        TooManyPatterns { max_count: usize },
        TooManyTypes { max_count: usize },
        BadTypes,
        Cursor(error: CursorError),
        /// The client's address has all its streams open (`limits.streams`). Try again later.
        TooManyStreams,
        /// The stream limit of this instance is reached. Try again later.
        AtCapacity,
        /// The instance is stopping. Try another instance, or later.
        Draining,
        /// Redis is unavailable. Try again later.
        BridgeDown,
        /// The application's follow graph or preferences are unavailable. Try again later.
        GraphDown,
    }
}

mirror! {
    /// Why the hub did not change an open stream.
    pub enum ChangeError {
        /// Access control refused the caller.
        Access(error: AccessError),
        Topic(error: TopicError),
        /// No stream of this client is open. The client may have reconnected under another id.
        UnknownStream,
        TooManyTopics { max_count: usize },
        TooManyPatterns { max_count: usize },
        /// Too many changes of this stream wait already. Nothing was changed.
        AtCapacity,
        /// The topics of this stream change too fast (`stream.topic_changes_per_second`). Nothing was
        /// changed (`rate_limited`).
        TooFast,
        /// Redis is unavailable, so other instances cannot be asked. Nothing was changed.
        BridgeDown,
        /// Not every instance answered in time: the change may be in force. Repeating it is safe.
        Unconfirmed,
    }
}

/// Conversions from the errors of parts, for `?`.
macro_rules! from_parts {
    ($($name:ident::$variant:ident($part:ty)),*) => {$(
        impl From<$part> for $name {
            fn from(error: $part) -> Self {
                Self::$variant(error)
            }
        }
    )*};
}

from_parts!(
    PublishError::Topic(TopicError),
    PublishError::Event(EventError),
    SubscribeError::Topic(TopicError),
    SubscribeError::Cursor(CursorError),
    ChangeError::Topic(TopicError),
    ChangeError::Access(AccessError)
);

/// Why a fan-out failed. No follower got the event, except after [`Self::Partly`] and the
/// exceptions of [`PublishError`].
#[derive(Debug, thiserror::Error)]
pub enum FanOutError {
    #[error(transparent)]
    User(#[from] UserError),
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error("{0}")]
    Graph(#[from] GraphError),
    /// Some followers may have got the event. Repeat the fan-out with the same id: then each
    /// follower has it once.
    #[error("{0}")]
    Partly(core::FanOutError),
}

impl FanOutError {
    /// The stable code.
    pub fn error_code(&self) -> ErrorCode {
        match self {
            Self::User(_) => ErrorCode::BadUser,
            Self::Publish(error) => error.error_code(),
            Self::Graph(error) => error.error_code(),
            Self::Partly(error) => error.error_code(),
        }
    }
}

impl From<core::FanOutError> for FanOutError {
    fn from(error: core::FanOutError) -> Self {
        match error {
            core::FanOutError::User(error) => Self::User(error),
            core::FanOutError::Publish(error) => Self::Publish(error.into()),
            core::FanOutError::Graph(error) => Self::Graph(error),
            partly @ core::FanOutError::Partly(_) => Self::Partly(partly),
        }
    }
}

/// Why the hub did not read or change followers or preferences.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    #[error(transparent)]
    User(#[from] UserError),
    /// More kinds than a user may mute, or an invalid event type.
    #[error("{}", core::FollowError::Preferences { max_count: *max_count })]
    Preferences { max_count: usize },
    #[error("{0}")]
    Graph(#[from] GraphError),
    /// The change is stored, but not in force in every open feed. Repeating it is safe.
    #[error("the change is stored, but open feeds may lack it: {0}")]
    Feeds(#[source] ChangeError),
}

impl From<core::ChangeError> for FollowError {
    fn from(error: core::ChangeError) -> Self {
        Self::Feeds(error.into())
    }
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

impl From<core::FollowError> for FollowError {
    fn from(error: core::FollowError) -> Self {
        match error {
            core::FollowError::User(error) => Self::User(error),
            core::FollowError::Preferences { max_count } => Self::Preferences { max_count },
            core::FollowError::Graph(error) => Self::Graph(error),
            core::FollowError::Feeds(error) => Self::Feeds(error.into()),
        }
    }
}
