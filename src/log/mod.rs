//! The location of the partitions' logs, and the path of an external log's updates to the
//! partitions.

#[cfg(test)]
pub(crate) mod contract;
#[cfg(feature = "log")]
mod disk;
#[cfg(feature = "log")]
mod recovery;
#[cfg(all(test, feature = "log"))]
mod tests;

use std::{sync::Arc, time::Duration};

use actix::Addr;
use fanfare_core::{
    cursor::Epoch,
    future::BoxFuture,
    log::{HubStopped, Log, LogUpdate, Replicas},
};
use futures_util::FutureExt;

#[cfg(feature = "log")]
pub(crate) use disk::{DiskLog, OpenLog};

use crate::{
    actors::partition::{ApplyLogUpdates, Partition},
    metrics::DiskGauges,
};

/// The location of the partitions' logs.
#[derive(Debug, Clone)]
pub(crate) enum LogSource {
    /// In memory, owned by the partitions.
    Memory { epoch: Epoch },
    /// On disk, behind the partitions.
    #[cfg(feature = "log")]
    Disk { epoch: Epoch, log: Arc<DiskLog> },
    /// Outside of the partitions, for example in Redis. The partitions are replicas.
    #[cfg_attr(not(feature = "redis"), expect(dead_code, reason = "only logs elsewhere need it"))]
    External(Arc<dyn Log>),
}

impl LogSource {
    /// Whether the log may keep a publish without an answer.
    pub fn outlives_hub(&self) -> bool {
        !matches!(self, Self::Memory { .. })
    }

    /// The state of a log on disk for a scrape.
    pub fn disk_gauges(&self) -> Option<DiskGauges> {
        match self {
            #[cfg(feature = "log")]
            Self::Disk { log, .. } => Some(log.gauges()),
            Self::Memory { .. } | Self::External(_) => None,
        }
    }

    /// Why the log has failed for good; `None` while it works.
    pub fn failure(&self) -> Option<Arc<str>> {
        match self {
            #[cfg(feature = "log")]
            Self::Disk { log, .. } => log.failure(),
            _ => None,
        }
    }

    /// A cursor's time can be later than the time of an event it does not cover, at most by this.
    pub fn time_margin(&self) -> Duration {
        match self {
            #[cfg(feature = "log")]
            Self::Disk { .. } => disk::COMMIT_MARGIN,
            _ => Duration::ZERO,
        }
    }

    /// Ends a log on disk after the last publish.
    pub fn close(&self) {
        #[cfg(feature = "log")]
        if let Self::Disk { log, .. } = self {
            log.close();
        }
    }

    /// The epoch of the present sequences; `None` before the first contact with an external log.
    pub fn epoch(&self) -> Option<Epoch> {
        match self {
            Self::Memory { epoch } => Some(*epoch),
            #[cfg(feature = "log")]
            Self::Disk { epoch, .. } => Some(*epoch),
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
