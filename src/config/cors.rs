//! `[cors]`: pages of other origins.

use serde::Deserialize;

use super::units;

/// The origins admitted besides the hub's own.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a [cors] section")]
pub struct Cors {
    /// Origins allowed to publish and change things, exactly as browsers send them:
    /// `https://app.example`.
    #[serde(deserialize_with = "units::list")]
    pub origins: Vec<String>,
}
