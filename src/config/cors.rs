//! `[cors]`: pages of other origins.

use std::time::Duration;

use serde::Deserialize;

use super::units;

/// The origins admitted besides the hub's own, and the headers of answers to their pages.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a [cors] section")]
#[non_exhaustive]
pub struct Cors {
    /// Origins allowed to read, publish and change things, exactly as browsers send them:
    /// `https://app.example`. The only entry `*` admits every origin, without credentials.
    #[serde(deserialize_with = "units::list")]
    pub origins: Vec<String>,
    /// Whether pages of these origins may send cookies.
    #[serde(deserialize_with = "units::switch")]
    pub credentials: bool,
    /// How long browsers keep the answer to a preflight request, at most 1 day.
    #[serde(deserialize_with = "units::duration")]
    pub max_age: Duration,
}

impl Cors {
    /// Whether every origin is admitted.
    pub(crate) fn is_any(&self) -> bool {
        self.origins.iter().any(|origin| origin == "*")
    }

    /// Whether an entry names this origin. A cookie counts only from such an origin: `*` names
    /// none.
    pub(crate) fn names(&self, origin: &str) -> bool {
        self.origins.iter().any(|named| named != "*" && named == origin)
    }
}
