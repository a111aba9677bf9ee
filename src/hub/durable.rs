//! The parts of a hub over a log on disk: its partitions, followers and revocations.

use std::sync::Arc;

use fanfare_core::{
    access::RevocationStore,
    partition::{PartitionSpec, PartitionState},
};
use tokio_util::sync::CancellationToken;

use super::builder::{Backend, Partitions, Stores};
use crate::{
    cluster::LocalCluster,
    config::Config,
    error::StartError,
    follow::memory::MemoryFollows,
    log::{DiskLog, LogSource, OpenLog},
    metrics::Metrics,
    revocations::Revocations,
    tables::TableLog,
    threads::start_alone,
};

/// An open log, and the hub's tables from it.
pub(super) struct Durable {
    open: OpenLog,
    tables: Arc<TableLog>,
    follows: Arc<MemoryFollows>,
}

impl Durable {
    /// Opens the log of the configuration, if it has one, and reads it.
    ///
    /// # Errors
    /// [`StartError::Log`]: the log is in use, not writable, or of another format.
    pub fn open(
        config: &Config,
        template: &PartitionSpec,
        metrics: &Arc<Metrics>,
        revocations: &Arc<Revocations>,
        stop: &CancellationToken,
    ) -> Result<Option<Self>, StartError> {
        if !config.log.is_on() {
            return Ok(None);
        }
        let (open, recovered) =
            DiskLog::open(&config.log, config.hub.partitions, template, metrics)?;
        let last_sequence = open.log.last_table_sequence();
        let (tables, content) =
            TableLog::new(open.log.store().clone(), last_sequence, recovered, revocations.clone());
        let kept = tables.clone();
        // It also runs beside an application's own graph: it answers the cleaning.
        let follows = move || MemoryFollows::start(content, Some(kept));
        let follows = Arc::new(start_alone("fanfare-follow", stop, follows)?);
        Ok(Some(Self { open, tables, follows }))
    }

    /// The stores of followers and preferences.
    pub fn stores(&self) -> Stores {
        (self.follows.clone(), self.follows.clone())
    }

    pub fn revocations(&self) -> Arc<dyn RevocationStore> {
        self.tables.clone()
    }

    /// Starts the partitions.
    pub fn start(
        self,
        config: &Config,
        template: &PartitionSpec,
        metrics: &Arc<Metrics>,
        stop: &CancellationToken,
    ) -> Result<Backend, StartError> {
        let OpenLog { log, epoch, partitions } = self.open;
        let mut recovered = partitions.into_iter();
        let journaled = |_| {
            let partition = recovered.next().expect("one for each partition");
            PartitionState::Journaled(Box::new(partition))
        };
        let partitions = Partitions::of(config, template, metrics, journaled);
        let (partitions, queues) = partitions.writing(&log).start(config, stop)?;
        let tables = self.tables.page_handler(&self.follows);
        log.start_cleaning(partitions.clone(), tables)?;
        let log = LogSource::Disk { epoch, log };
        Ok(Backend { partitions, queues, log, cluster: Arc::new(LocalCluster::default()) })
    }
}
