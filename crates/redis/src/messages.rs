//! The messages of the bridge actor.

use std::{collections::HashMap, sync::Arc, time::Duration};

use actix::Message;
use fanfare_core::{
    cluster::{HandleCall, InstanceAnswer, InstanceAnswers, InstanceCall},
    error::{ChangeError, PublishError},
    log::{Acknowledged, Append, LogRequest, Replicas},
    topic::Topic,
};
use tokio_util::sync::CancellationToken;

use crate::{
    publish_path::{LinkError, PublishPath},
    target::Endpoint,
};

/// Begins to link these partitions.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct BeginBridge {
    pub replicas: Arc<dyn Replicas>,
    /// Ends the bridge.
    pub stop: CancellationToken,
}

/// Publishes of one partition, in order; each is answered by itself.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct AppendToRedis {
    pub partition: u16,
    pub publishes: Vec<Append>,
}

/// A replica's requests for the link of that generation.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct RequestFromRedis {
    pub partition: u16,
    pub generation: u64,
    pub requests: Vec<LogRequest>,
}

/// A mirror was built anew and knows of no link.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ReconnectPartition(pub u16);

/// A link works. Answered with the last acknowledged publish of each partition.
#[derive(Message)]
#[rtype(result = "HashMap<u16, Acknowledged>")]
pub(crate) struct LinkBegan {
    pub endpoint: Endpoint,
    pub generation: u64,
    pub path: PublishPath,
}

/// The handler of calls, those of this instance included.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ServeCalls(pub Box<dyn HandleCall>);

/// Has every instance execute a call.
#[derive(Message)]
#[rtype(result = "Result<InstanceAnswers, ChangeError>")]
pub(crate) struct CallInstances {
    pub partition: u16,
    /// The call as JSON.
    pub text: String,
    /// How long to wait, if it is not to be as long as for Redis.
    pub limit: Option<Duration>,
}

/// An instance asks.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct CallReceived {
    pub partition: u16,
    pub question: u64,
    /// The calling instance.
    pub instance: String,
    pub call: InstanceCall,
}

/// An instance has answered.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct CallAnswered {
    pub question: u64,
    pub answer: InstanceAnswer,
}

/// Query the last sequence of a topic. `None` if Redis is unavailable.
#[derive(Message)]
#[rtype(result = "Option<u64>")]
pub(crate) struct QueryLastSequence(pub Topic);

/// Was a fan-out of this name a pull before? If there was none, it is now as said here.
#[derive(Message)]
#[rtype(result = "Result<bool, PublishError>")]
pub(crate) struct RecordModeInRedis {
    /// The topic of the author's posts.
    pub posts: Topic,
    pub name: String,
    pub is_pull: bool,
}

/// A link has ended, or never began.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct LinkEnded {
    pub endpoint: Endpoint,
    pub generation: u64,
    pub error: LinkError,
}
