//! `[admin]`: the operators' listener of `fanfare serve`.

use std::net::SocketAddr;

use serde::Deserialize;

use super::units;

/// A listener for operators only.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an [admin] section")]
#[non_exhaustive]
pub struct Admin {
    /// Its address and port; `None` (an empty text) for no such listener.
    #[serde(deserialize_with = "units::given_address")]
    pub listen: Option<SocketAddr>,
}
