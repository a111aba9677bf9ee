//! The bridge of a hub on its own: each partition is its own sequencer and log, in memory.

use actix::Addr;
use futures_util::{FutureExt, future::BoxFuture};

use super::{Bridge, BridgeStatus};
use crate::{
    actors::partition::{Partition, Place, PublishEvent},
    domain::{event::Event, topic::Topic},
    error::PublishError,
    hub::Published,
};

/// Sends each event straight to its partition.
pub(crate) struct LocalBridge {
    partitions: Vec<Addr<Partition>>,
}

impl LocalBridge {
    /// `partitions` in order of their numbers; their count is a power of two.
    pub fn new(partitions: Vec<Addr<Partition>>) -> Self {
        Self { partitions }
    }
}

impl Bridge for LocalBridge {
    fn enqueue(
        &self,
        topic: Topic,
        event: Event,
        place: Place,
    ) -> BoxFuture<'static, Result<Published, PublishError>> {
        let partition = topic.partition(self.partitions.len() as u16);
        let message = PublishEvent { topic, event, place: Some(place) };
        let answer = self.partitions[usize::from(partition)].send(message);
        // The mailbox is gone only with the hub.
        answer.map(|answer| answer.unwrap_or(Err(PublishError::Draining))).boxed()
    }

    fn status(&self) -> BridgeStatus {
        BridgeStatus { kind: "local", is_up: true }
    }
}

#[cfg(test)]
mod tests {
    use crate::{Hub, bridge::contract};

    #[actix_web::test]
    async fn the_local_bridge_keeps_every_promise() {
        contract::all(&[Hub::start(contract::config()).unwrap()]).await;
    }
}
