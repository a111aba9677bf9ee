//! The decisions of fanfare as plain code: topics, cursors, histories, policies, the bytes of
//! event streams, and the states of partition, replica, topic manager and connection.
//!
//! Nothing here names an actor, a socket, Redis, a file or a clock: time comes in as an
//! argument. The actors of the crate `fanfare` are shells around these states, and the model
//! test runs the same states.
//!
//! Applications depend on `fanfare`. The items here carry no promise of stability.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests start their own clock"))]

pub mod access;
pub mod algorithm;
pub mod batch;
pub mod budget;
pub mod cluster;
pub mod connection;
pub mod cursor;
pub mod error;
mod error_code;
pub mod event;
pub mod fan_out;
pub mod follow;
pub mod future;
pub mod history;
pub mod id_budget;
pub mod idempotency;
pub mod ids;
pub mod interest;
pub mod journal;
pub mod log;
pub mod outbox;
pub mod partition;
pub mod partition_log;
mod pattern_index;
pub mod pattern_set;
pub mod policy;
pub mod poll;
pub mod publish;
pub mod replays;
pub mod shared_names;
pub mod sse;
pub mod subscription;
#[cfg(test)]
mod testing;
pub mod timer_wheel;
pub mod topic;
pub mod topic_manager;
pub mod user;
pub mod wall_clock;
