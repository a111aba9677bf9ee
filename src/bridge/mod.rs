//! The seam to other instances: who gives events their sequence, keeps their log, and brings
//! them to every instance.
//!
//! Every bridge promises:
//! 1. **Order.** Events enqueued for one partition, one after the other, get ascending
//!    sequences in that order.
//! 2. **Taken means kept.** An answer `Ok` comes only once the event has its sequence and is
//!    in the log: a stream that resumes from before it gets it.
//! 3. **Refused means not taken**, but for [`PublishError::Internal`]: the event reaches no
//!    stream and is in no log.
//! 4. **Once.** Each partition of each instance is handed each event at most once, in
//!    sequence order.
//! 5. **Idempotence.** Within the window, an id that was taken on a topic is answered as the
//!    first time, and nothing is delivered.
//! 6. **No wait on clients.** However slow streams are, a publish is answered.
//!
//! The tests in `contract` hold every bridge to them.

#[cfg(test)]
mod contract;
mod local;

use futures_util::future::BoxFuture;

pub(crate) use local::LocalBridge;

use crate::{
    actors::partition::Place,
    domain::{event::Event, topic::Topic},
    error::PublishError,
    hub::Published,
};

/// Whether and how this instance is linked to others.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct BridgeStatus {
    pub kind: &'static str,
    #[serde(rename = "up")]
    pub is_up: bool,
}

/// See the module's promises.
pub(crate) trait Bridge: Send + Sync {
    /// Hands an event over. The order of calls counts, not that of the futures' polls; the
    /// event is published whether or not the future is polled to its end.
    fn enqueue(
        &self,
        topic: Topic,
        event: Event,
        place: Place,
    ) -> BoxFuture<'static, Result<Published, PublishError>>;

    /// How the bridge fares.
    fn status(&self) -> BridgeStatus;
}
