//! The location of the logs of a hub's partitions, and the way from a log elsewhere to the
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

/// The location of the logs.
#[derive(Debug, Clone)]
pub(crate) enum LogSource {
    /// In the partitions, in memory.
    Memory { epoch: Epoch },
    /// Elsewhere: partitions are replicas.
    #[cfg_attr(not(feature = "redis"), expect(dead_code, reason = "only logs elsewhere need it"))]
    External(Arc<dyn Log>),
}

impl LogSource {
    /// The log elsewhere, if there is one.
    pub fn external(&self) -> Option<Arc<dyn Log>> {
        match self {
            Self::Memory { .. } => None,
            Self::External(log) => Some(log.clone()),
        }
    }

    /// The epoch of the present sequences; `None` before the first contact.
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
        // One a link: so past the mailbox's bound.
        self.0[usize::from(partition)].do_send(ApplyLogUpdates(vec![LogUpdate::LinkDown]));
    }
}
