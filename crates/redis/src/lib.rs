//! The bridge over Redis: sequence, log and relay are in Redis, one atomic script call a
//! publish; what mirrors ask and are told goes over links, one to each node.
//!
//! | from | to | message | bound |
//! |---|---|---|---|
//! | hub | bridge | `BeginBridge` | one |
//! | partition | bridge | `PublishInRedis` | each event holds its place, `publish.max_pending` a partition |
//! | partition | bridge | `AskRedis` | one a turn of the partition; what is asked is for streams, which are bounded, or one catching up |
//! | link | partition | `TakeNews` | one unanswered; what comes meanwhile waits in the link, 64 MiB, past which the link ends and catches up later |
//! | link | bridge | `LinkBegan`, `LinkEnded` | one of each a link |
//! | bridge | partition | `TakeNews` (a link has ended) | one a link |
//! | link | bridge | `CallAnswered` | one an instance and call |
//! | link | bridge | `CallReceived` | as many as other instances have under way, 1,024 each |
//! | hub | bridge | `CallInstances`, `SettleInRedis`, `AskLastSequence` | one a request; 1,024 calls under way |

#![forbid(unsafe_code)]

mod actor;
mod clock;
pub mod follow;
mod instance_rpc;
mod link;
mod message;
mod messages;
mod pending_replies;
mod publish_path;
mod publish_queue;
mod queries;
mod redis_log;
mod script;
mod settings;
mod target;

pub use redis_log::RedisLog;
pub use settings::{CountPublished, RedisSpec};
pub use target::{Endpoint, Target, TargetError};
