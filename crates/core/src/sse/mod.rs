//! The bytes of an event stream (WHATWG HTML §9.2), as the hub writes and the command reads them.
//! Lines end in LF only. Between events the hub writes only single comment lines without a blank
//! line: some clients turn a blank line into an empty message.

pub mod control;
pub mod decode;
pub mod encode;

pub use control::{GapReason, ShutdownReason};
