//! The bytes of an event stream (WHATWG HTML §9.2): what the hub writes, and what the
//! command-line client reads. Lines end in LF only, and nothing is written between events
//! but single comment lines without a blank line: some clients make an empty message of one.

pub(crate) mod control;
#[cfg(feature = "cli")]
pub(crate) mod decode;
pub(crate) mod encode;

pub(crate) use control::{GapReason, ShutdownReason};
