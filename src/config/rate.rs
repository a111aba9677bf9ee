//! The form of a rate limit: `{ events_per_second = 100, burst = 200 }`.

use fanfare_core::policy::Rate;
use serde::{Deserialize, Deserializer};

use super::units;

/// The keys of a [`Rate`].
#[derive(Deserialize)]
#[serde(
    remote = "Rate",
    deny_unknown_fields,
    expecting = "a rate like { events_per_second = 100, burst = 200 }"
)]
pub(super) struct RateTable {
    #[serde(deserialize_with = "units::count")]
    events_per_second: u32,
    #[serde(deserialize_with = "units::count")]
    burst: u32,
}

/// An optional rate.
pub(super) fn given<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Rate>, D::Error> {
    RateTable::deserialize(from).map(Some)
}
