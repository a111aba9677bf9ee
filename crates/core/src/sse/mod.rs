//! The bytes of an event stream (WHATWG HTML §9.2): what the hub writes, and what the
//! command-line client reads. Lines end in LF only, and nothing is written between events
//! but single comment lines without a blank line: some clients make an empty message of one.

pub mod control;
pub mod decode;
pub mod encode;

pub use control::{GapReason, ShutdownReason};
