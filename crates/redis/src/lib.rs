//! Log, cluster and follow store over Redis. Sequence, log and push are one atomic script call
//! a publish. Links, one to each node, carry the requests and updates of replicas.
//!
//! | from | to | message | bound |
//! |---|---|---|---|
//! | hub | bridge | `BeginBridge`, `ServeCalls` | one |
//! | partition | bridge | `AppendToRedis` | each event holds a publish permit, `publish.max_pending` a partition |
//! | partition | bridge | `RequestFromRedis` | one a turn of the partition; its requests are for streams (bounded) or for catching up (one) |
//! | partition | bridge | `ReconnectPartition` | one a panic of the partition |
//! | link | partition | updates, through the trait Replicas | one in flight; later updates wait in the link, 64 MiB, then the link ends and catches up later |
//! | link | bridge | `LinkBegan`, `LinkEnded` | one of each a link |
//! | link | bridge | `CallAnswered` | one an instance and call |
//! | link | bridge | `CallReceived` | as many as other instances have in flight, 1,024 each |
//! | hub | bridge | `CallInstances`, `RecordModeInRedis`, `QueryLastSequence`, `QueryHead`, `QueryLinks` | one a request; 1,024 calls in flight |

#![forbid(unsafe_code)]

mod actor;
mod agreement;
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
mod signature;
mod target;

pub use redis_log::RedisLog;
pub use settings::{CountPublished, RedisSpec};
pub use target::{Endpoint, Target, TargetError};
