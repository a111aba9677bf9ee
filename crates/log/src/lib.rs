//! The log on disk: segments, group commit, recovery, cleaning, checking and copying.
//!
//! The store knows bytes, lanes and sequences. Not here: the meaning of records, topics, policies,
//! and the decision about needed records.
//!
//! Applications depend on `fanfare`. The items here carry no promise of stability.

#![forbid(unsafe_code)]

mod cleaning;
mod copying;
mod directory;
mod error;
mod figures;
mod identity;
mod inspect;

mod ledger;
mod opening;
mod options;
mod queue;
mod reading;
mod record;
mod scan;
mod segment;
mod shared;
mod store;
mod tail;
mod writer;

pub use cleaning::Page;
pub use copying::{Copied, CopyError, copy};
pub use error::{OpenError, WriteError};
pub use figures::{Figures, Group};
pub use identity::epoch_of;
pub use inspect::{Checked, LaneFigures, check};
pub use opening::{LastStop, Opened, open};
pub use options::{Lane, Options, SyncMode};
pub use queue::Done;
pub use record::{Entry, MAX_PAYLOAD_BYTES, Record};
pub use scan::Damage;
pub use segment::SegmentId;
pub use shared::State;
pub use store::Store;

#[cfg(test)]
mod tests;
