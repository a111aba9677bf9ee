//! The hub's own events: `connected`, `gap`, `live`, `shutdown`.

use serde::{Deserialize, Serialize};

use crate::{partition_log::MissedReason, sse::encode::control_event, topic::Topic};

/// Why events are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum GapReason {
    /// History does not reach back to the client's cursor.
    History,
    /// The cursor is of another epoch.
    Epoch,
    /// The client read too slowly, and the outbox dropped its oldest events.
    Slow,
    /// The stream's rate limit was exceeded for too long.
    Rate,
}

impl From<MissedReason> for GapReason {
    fn from(reason: MissedReason) -> Self {
        match reason {
            MissedReason::History => Self::History,
            MissedReason::Epoch => Self::Epoch,
        }
    }
}

/// Why the hub ends a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ShutdownReason {
    /// The instance stops, or rebuilds a part the stream depends on.
    Drain,
    /// The instance has no room for the stream.
    Capacity,
    /// The stream reached its maximum lifetime.
    Lifetime,
    /// The client read too slowly; it can resume.
    Slow,
    /// The token of the stream has ended.
    Token,
    /// An operator or the application ended the stream.
    Kicked,
    /// A later use of the stream's ticket took its place.
    Replaced,
    /// The token of the stream was revoked.
    Revoked,
}

impl ShutdownReason {
    /// Whether the stream ends without its pending output.
    pub fn drops_output(self) -> bool {
        match self {
            Self::Drain | Self::Capacity | Self::Lifetime => false,
            Self::Slow | Self::Token | Self::Kicked | Self::Replaced | Self::Revoked => true,
        }
    }

    /// The word used in events, metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Drain => "drain",
            Self::Capacity => "capacity",
            Self::Lifetime => "lifetime",
            Self::Slow => "slow",
            Self::Token => "token",
            Self::Kicked => "kicked",
            Self::Replaced => "replaced",
            Self::Revoked => "revoked",
        }
    }
}

/// The first event of every stream.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Connected<'a> {
    pub client_id: &'a str,
    /// Milliseconds since 1970.
    pub timestamp: u64,
    /// Topics and patterns as spelt by the client.
    pub topics: &'a [&'a str],
    pub resumed: bool,
}

impl Connected<'_> {
    pub fn encode(&self, id: &str) -> String {
        control_event("connected", id, self)
    }
}

/// The client missed events, and the hub cannot replay them.
#[derive(Serialize)]
pub struct Gap<'a> {
    pub reason: GapReason,
    pub partitions: &'a [u16],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub topics: &'a [&'a str],
}

impl Gap<'_> {
    pub fn encode(&self, id: &str) -> String {
        control_event("gap", id, self)
    }
}

/// The client has the whole snapshot, and now gets live events.
#[derive(Serialize)]
pub struct Live {}

impl Live {
    pub fn encode(&self, id: &str) -> String {
        control_event("live", id, self)
    }
}

/// The names of topics, for [`Gap::topics`].
pub fn names<'a>(topics: impl IntoIterator<Item = &'a Topic>) -> Vec<&'a str> {
    topics.into_iter().map(Topic::as_str).collect()
}

/// The token of the stream ends soon.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Renew {
    /// The remaining time.
    pub expires_ms: u64,
}

impl Renew {
    pub fn encode(&self, id: &str) -> String {
        control_event("renew", id, self)
    }
}

/// The hub ends the stream.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shutdown {
    pub reason: ShutdownReason,
    /// The waiting time before a reconnect.
    pub reconnect_ms: u64,
}

impl Shutdown {
    pub fn encode(&self, id: &str) -> String {
        control_event("shutdown", id, self)
    }
}
