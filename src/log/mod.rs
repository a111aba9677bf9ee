//! The location of the partitions' logs, and the path of an external log's updates to the
//! partitions.

#[cfg(test)]
pub(crate) mod contract;

use std::sync::Arc;

use actix::Addr;
use fanfare_core::{
    cursor::Epoch,
    future::BoxFuture,
    log::{HubStopped, Log, LogUpdate, Replicas},
};
use futures_util::FutureExt;

use crate::actors::partition::{ApplyLogUpdates, Partition};

/// The location of the partitions' logs.
#[derive(Debug, Clone)]
pub(crate) enum LogSource {
    /// In memory, owned by the partitions.
    Memory { epoch: Epoch },
    /// Outside of the partitions, for example in Redis. The partitions are replicas.
    #[cfg_attr(not(feature = "redis"), expect(dead_code, reason = "only logs elsewhere need it"))]
    External(Arc<dyn Log>),
}

impl LogSource {
    /// The external log; `None` for logs in memory.
    pub fn external(&self) -> Option<Arc<dyn Log>> {
        match self {
            Self::Memory { .. } => None,
            Self::External(log) => Some(log.clone()),
        }
    }

    /// The epoch of the present sequences; `None` before the first contact with an external log.
    pub fn epoch(&self) -> Option<Epoch> {
        match self {
            Self::Memory { epoch } => Some(*epoch),
            Self::External(log) => log.epoch().map(Epoch::new),
        }
    }
}

/// The partition actors of a hub, in order of their numbers.
#[cfg_attr(not(feature = "redis"), expect(dead_code, reason = "no log is elsewhere"))]
pub(crate) struct PartitionReplicas(pub Vec<Addr<Partition>>);

impl Replicas for PartitionReplicas {
    fn apply(
        &self,
        partition: u16,
        updates: Vec<LogUpdate>,
    ) -> BoxFuture<'static, Result<(), HubStopped>> {
        let applied = self.0[usize::from(partition)].send(ApplyLogUpdates(updates));
        applied.map(|applied| applied.map_err(|_| HubStopped)).boxed()
    }

    fn link_down(&self, partition: u16) {
        // One per link, so it may pass the mailbox's bound.
        self.0[usize::from(partition)].do_send(ApplyLogUpdates(vec![LogUpdate::LinkDown]));
    }
}
