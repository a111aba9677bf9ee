//! The messages of the bridge actor.

use std::{collections::HashMap, sync::Arc, time::Duration};

use actix::Message;
use fanfare_core::{
    cluster::{HandleCall, InstanceAnswer, InstanceAnswers, InstanceCall},
    cursor::Epoch,
    error::{ChangeError, PublishError},
    log::{Acknowledgements, Append, LogRequest, Replicas},
    topic::Topic,
};
use tokio_util::sync::CancellationToken;

use crate::{
    publish_path::{LinkError, PublishPath},
    target::Endpoint,
};

/// Starts the links of these partitions.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct BeginBridge {
    pub replicas: Arc<dyn Replicas>,
    /// Ends the bridge.
    pub stop: CancellationToken,
}

/// Publishes of one partition, in order. Each gets its own answer.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct AppendToRedis {
    pub partition: u16,
    pub publishes: Vec<Append>,
}

/// A replica's requests. The bridge drops them if the link of this generation has ended.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct RequestFromRedis {
    pub partition: u16,
    pub generation: u64,
    pub requests: Vec<LogRequest>,
}

/// The replica of this partition was rebuilt and needs a new link.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ReconnectPartition(pub u16);

/// A link is up. The bridge answers with the acknowledged publishes of each partition.
#[derive(Message)]
#[rtype(result = "HashMap<u16, Acknowledgements>")]
pub(crate) struct LinkBegan {
    pub endpoint: Endpoint,
    pub generation: u64,
    pub path: PublishPath,
}

/// One partition of each link.
#[derive(Message)]
#[rtype(result = "Vec<u16>")]
pub(crate) struct QueryLinks;

/// Sets the handler of calls from all instances, this one included.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ServeCalls(pub Box<dyn HandleCall>);

/// Calls every instance, this one included.
#[derive(Message)]
#[rtype(result = "Result<InstanceAnswers, ChangeError>")]
pub(crate) struct CallInstances {
    pub partition: u16,
    /// The call as JSON.
    pub text: String,
    /// Time limit for the answers. `None` stands for `redis.timeout`, the upper bound in any case.
    pub limit: Option<Duration>,
}

/// A call from an instance.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct CallReceived {
    pub partition: u16,
    pub question: u64,
    /// The calling instance.
    pub instance: String,
    pub call: InstanceCall,
}

/// An instance's answer to a call of this instance.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct CallAnswered {
    pub question: u64,
    pub answer: InstanceAnswer,
}

/// Queries the last sequence of a topic: 0 if the log has none, `None` if Redis is unavailable.
#[derive(Message)]
#[rtype(result = "Option<u64>")]
pub(crate) struct QueryLastSequence(pub Topic);

/// Query the epoch and the last sequence of a partition. `None` while Redis is unavailable.
#[derive(Message)]
#[rtype(result = "Option<(Epoch, u64)>")]
pub(crate) struct QueryHead(pub u16);

/// Records the mode of a fan-out, unless a mode of this name is recorded already. Answers with the
/// mode recorded first: `true` for pull.
#[derive(Message)]
#[rtype(result = "Result<bool, PublishError>")]
pub(crate) struct RecordModeInRedis {
    /// The topic of the author's posts.
    pub posts: Topic,
    pub name: String,
    pub is_pull: bool,
}

/// A link ended, or failed to open.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct LinkEnded {
    pub endpoint: Endpoint,
    pub generation: u64,
    pub error: LinkError,
}
