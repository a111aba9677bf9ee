//! A user's name, and the user's topics.

use std::{fmt, sync::Arc};

use serde::Serialize;

use crate::topic::{MAX_TOPIC_BYTES, Topic, TopicError};

/// Prefix of the topic for a user's own notifications, without the user.
const NOTIFICATIONS: &str = "notifications:";

/// Prefix of the topic for pulled posts, without the author.
const POSTS: &str = "posts:";

/// Longest name of a user, in bytes of UTF-8: both topics have room for it.
pub const MAX_USER_BYTES: usize = MAX_TOPIC_BYTES - NOTIFICATIONS.len();

/// A user's name: 1 to [`MAX_USER_BYTES`] bytes, otherwise by the rules of a topic's
/// segments. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct User(Arc<str>);

impl User {
    /// Checks a name.
    ///
    /// # Errors
    /// It is empty, too long, or breaks a rule of topic names (`bad_user`).
    pub fn parse(name: &str) -> Result<Self, UserError> {
        if name.len() > MAX_USER_BYTES {
            return Err(UserError::TooLong(name.len()));
        }
        Topic::parse(name).map_err(UserError::Name)?;
        Ok(Self(name.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A hash of the name, the same in every instance: FNV-1a of 64 bits.
    pub fn hash64(&self) -> u64 {
        let bytes = self.0.as_bytes().iter();
        bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        })
    }

    /// The topic of the user's own notifications, `notifications:<user>`.
    pub fn notifications(&self) -> Topic {
        self.topic(NOTIFICATIONS)
    }

    /// The topic of an author's pulled posts, `posts:<author>`.
    pub fn posts(&self) -> Topic {
        self.topic(POSTS)
    }

    fn topic(&self, prefix: &str) -> Topic {
        Topic::parse(&format!("{prefix}{}", self.0)).expect("MAX_USER_BYTES leaves room for it")
    }
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a user's name is refused (`bad_user`).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    #[error("a user's name has at most {MAX_USER_BYTES} bytes, this one has {0}")]
    TooLong(usize),
    #[error("the user of a caller must not have a colon")]
    Segments,
    #[error("a user's name must follow the rules of topic names: {0}")]
    Name(TopicError),
}
