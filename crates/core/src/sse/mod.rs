//! The bytes of an event stream (WHATWG HTML §9.2): encoding for the hub, decoding for the command.
//! The hub ends lines with LF only. Between events it writes only single comment lines without a
//! blank line: some clients turn a blank line into an empty message.

pub mod control;
pub mod decode;
pub mod encode;

pub use control::{GapReason, ShutdownReason};
