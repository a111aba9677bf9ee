//! What decides, as plain code: names, cursors, logs, batches, policies, outboxes.
//!
//! Nothing here names an actor, a socket, Redis or a clock: time comes in as an argument.

pub(crate) mod batch;
pub(crate) mod budget;
pub mod cursor;
pub mod event;
pub(crate) mod history;
pub(crate) mod interest;
pub(crate) mod outbox;
pub(crate) mod partition_log;
pub(crate) mod pattern_index;
pub mod policy;
pub(crate) mod relay;
pub(crate) mod remembered;
pub(crate) mod shared_topics;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod timer_wheel;
pub mod topic;
