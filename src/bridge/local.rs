//! The bridge of a hub on its own: each partition is its own sequencer and log, in memory.

use actix::Addr;
use futures_util::{FutureExt, future::BoxFuture};

use super::{Bridge, BridgeStatus, InstanceAnswer, InstanceCall, TopicStatus};
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
    ) -> Option<BoxFuture<'static, Result<Vec<InstanceAnswer>, ChangeError>>> {
        None
    }

    fn topic_status(&self, topic: Topic) -> BoxFuture<'static, Option<TopicStatus>> {
        let partition = topic.partition(self.partitions.len() as u16);
        let answer = self.partitions[usize::from(partition)].send(AskTopic(topic));
        let status = answer.map(|answer| {
            let (subscribers, sequence) = answer.ok()?;
            let instances = usize::from(subscribers > 0);
            Some(TopicStatus { instances, subscribers, sequence })
        });
        status.boxed()
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
