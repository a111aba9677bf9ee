//! The bridge of a hub on its own: each partition is its own sequencer and log, in memory.

use std::time::Duration;

use actix::Addr;
use futures_util::{FutureExt, future::BoxFuture};

use super::{Bridge, BridgeStatus, InstanceAnswers, InstanceCall};
use crate::{
    actors::partition::{AskTopic, Partition, SettleFanOut},
    domain::{cursor::Epoch, topic::Topic},
    error::{ChangeError, PublishError},
};

/// Asks the partitions.
pub(crate) struct LocalBridge {
    partitions: Vec<Addr<Partition>>,
    epoch: Epoch,
}

impl LocalBridge {
    /// `partitions` in order of their numbers; their count is a power of two.
    pub fn new(partitions: Vec<Addr<Partition>>, epoch: Epoch) -> Self {
        Self { partitions, epoch }
    }
}

impl Bridge for LocalBridge {
    fn status(&self) -> BridgeStatus {
        BridgeStatus { kind: "local", is_up: true, instance: None, reconnects: 0, lag_ms: 0.0 }
    }

    fn epoch(&self) -> Option<u64> {
        Some(self.epoch.number())
    }

    fn settle(
        &self,
        posts: Topic,
        name: String,
        is_pull: bool,
    ) -> BoxFuture<'static, Result<bool, PublishError>> {
        let partition = posts.partition(self.partitions.len() as u16);
        let settle = SettleFanOut { name: name.into(), is_pull };
        let answer = self.partitions[usize::from(partition)].send(settle);
        answer.map(|answer| answer.unwrap_or(Err(PublishError::Draining))).boxed()
    }

    fn call_all(
        &self,
        _: u16,
        _: &InstanceCall,
        _: Option<Duration>,
    ) -> Option<BoxFuture<'static, Result<InstanceAnswers, ChangeError>>> {
        None
    }

    fn last_sequence(&self, topic: Topic) -> BoxFuture<'static, Option<u64>> {
        let partition = topic.partition(self.partitions.len() as u16);
        let answer = self.partitions[usize::from(partition)].send(AskTopic(topic));
        answer.map(|answer| answer.ok().map(|(_, sequence)| sequence)).boxed()
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
