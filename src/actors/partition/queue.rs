//! The queues of publishes from other threads: one for each thread of partitions, not one for each partition. Publishes
//! arriving together wake the thread once; on it, each goes into the mailbox of its partition.

use std::sync::Arc;

use actix::Addr;
use tokio::sync::mpsc;

use super::{
    Partition,
    messages::{DeliveriesTaken, PublishEvents},
};

/// Messages taken from the queue at once.
const MAX_TAKEN: usize = 256;

/// A message for a partition of the thread. Each has a bound of its own, so the queue needs none.
enum Queued {
    Publish(PublishEvents),
    Taken(DeliveriesTaken),
}

/// The queue of one thread.
#[derive(Debug, Clone)]
pub(crate) struct PartitionQueue(mpsc::UnboundedSender<(u16, Queued)>);

impl PartitionQueue {
    /// Starts the queue of this thread for its partitions. It runs as long as the thread.
    pub fn start(partitions: Vec<(u16, Addr<Partition>)>) -> Self {
        let (sender, mut queue) = mpsc::unbounded_channel();
        tokio::task::spawn_local(async move {
            let mut taken = Vec::new();
            while queue.recv_many(&mut taken, MAX_TAKEN).await > 0 {
                taken.drain(..).for_each(|(number, queued)| pass_on(&partitions, number, queued));
            }
        });
        Self(sender)
    }

    fn send(&self, partition: u16, queued: Queued) {
        // Without the thread the hub has stopped. A dropped publish tells its publisher.
        let _ = self.0.send((partition, queued));
    }
}

fn pass_on(partitions: &[(u16, Addr<Partition>)], number: u16, queued: Queued) {
    let Some((_, partition)) = partitions.iter().find(|(own, _)| *own == number) else { return };
    match queued {
        // The permits bound the mailbox, so this message may pass the mailbox's own bound.
        Queued::Publish(PublishEvents { events, permit }) => {
            partition.do_send(PublishEvents { events, permit });
        }
        Queued::Taken(DeliveriesTaken) => partition.do_send(DeliveriesTaken),
    }
}

/// The queues of all partitions of a hub.
#[derive(Debug, Clone)]
pub(crate) struct PartitionQueues(Arc<[PartitionQueue]>);

impl PartitionQueues {
    /// The queues of all threads: partition `p` is on thread `p % queues.len()`.
    pub fn new(queues: Vec<PartitionQueue>) -> Self {
        Self(queues.into())
    }

    pub fn publish(&self, partition: u16, events: PublishEvents) {
        self.of(partition).send(partition, Queued::Publish(events));
    }

    /// Tells a partition that a manager has taken its deliveries.
    pub fn tell_taken(&self, partition: u16) {
        self.of(partition).send(partition, Queued::Taken(DeliveriesTaken));
    }

    fn of(&self, partition: u16) -> &PartitionQueue {
        &self.0[usize::from(partition) % self.0.len()]
    }
}
