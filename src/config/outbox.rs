//! `[outbox]`: the bound on a stream's unread bytes, and the action at the bound.

use fanfare_core::policy::SlowConsumer;
use serde::Deserialize;

use super::units;

/// The bound on a stream's unread bytes.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an [outbox] section")]
#[non_exhaustive]
pub struct Outbox {
    /// Unread bytes of one stream, 4 KiB to 1 PiB.
    #[serde(deserialize_with = "units::size")]
    pub max_bytes: usize,
    /// The action for a stream past `max_bytes`.
    #[serde(deserialize_with = "units::word")]
    pub slow_consumer: SlowConsumer,
}
