//! Publishes for a log, each with its reply.

use std::{any::Any, fmt, sync::Arc};

use crate::{
    error::PublishError,
    fan_out::{FanOutPublish, FannedOut},
    publish::{Published, SharedEvent},
    topic::Topic,
};

/// The answer to one publish.
pub type PublishResult = Result<Published, PublishError>;

/// A publish permit. The log returns it, by dropping it, with the answer.
pub type Permit = Arc<dyn Any + Send + Sync>;

/// The return path of one answer. Dropped unused, it reports the missing answer to the publisher.
pub struct Reply<T>(Box<dyn FnOnce(T) + Send>);

impl<T> Reply<T> {
    pub fn new(answer: impl FnOnce(T) + Send + 'static) -> Self {
        Self(Box::new(answer))
    }

    pub fn send(self, answer: T) {
        (self.0)(answer);
    }
}

impl<T> fmt::Debug for Reply<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reply")
    }
}

/// A publish for one topic, or for many.
#[derive(Debug)]
pub enum Append {
    Event(AppendEvent),
    FanOut(AppendFanOut),
}

/// One event for one topic.
#[derive(Debug)]
pub struct AppendEvent {
    pub topic: Topic,
    pub event: Arc<SharedEvent>,
    /// The number of this instance's streams listening for the event.
    pub receivers: usize,
    pub permit: Option<Permit>,
    pub answer: Reply<PublishResult>,
}

/// One event for many topics.
#[derive(Debug)]
pub struct AppendFanOut {
    pub fan_out: Arc<FanOutPublish>,
    pub topics: Vec<Topic>,
    pub permit: Option<Permit>,
    pub answer: Reply<Result<FannedOut, PublishError>>,
}
