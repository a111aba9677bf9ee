//! `[poll]`: the bound on the answer to one poll.

use serde::Deserialize;

use super::units;

/// The bound on the answer to one poll.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a [poll] section")]
#[non_exhaustive]
pub struct Poll {
    /// Bytes of one answer, 4 KiB to 1 PiB. A larger single event is an answer alone.
    #[serde(deserialize_with = "units::size")]
    pub max_bytes: usize,
}
