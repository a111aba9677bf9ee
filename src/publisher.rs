//! Publishing: checks events, acquires publish permits, and hands the events to partitions.

use std::{collections::BTreeMap, mem::take, sync::Arc, time::Duration};

use actix::Addr;
use fanfare_core::{
    error::PublishError, event::Event, log::PublishResult, publish::Published, topic::Topic,
};
use futures_util::{
    FutureExt,
    future::{BoxFuture, join_all},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::{
    actors::partition::{AnswerSlots, Partition, PublishEvent, PublishEvents, PublishPermit},
    config::Publish as PublishLimits,
    lifecycle::Lifecycle,
};

/// A checked publish.
pub(crate) struct CheckedPublish {
    topic: Topic,
    partition: u16,
    event: Event,
}

/// The answers to the events of each post. A post refused as a whole has one answer.
pub(crate) type PublishAnswers = BoxFuture<'static, Vec<Vec<PublishResult>>>;

/// Events for one partition, sent together.
struct PartitionBatch {
    events: Vec<PublishEvent>,
    permits: OwnedSemaphorePermit,
}

type PartitionBatches = BTreeMap<u16, PartitionBatch>;

/// The permits of one post, by partition.
type Permits = BTreeMap<u16, OwnedSemaphorePermit>;

/// A partition's address and its publish permits.
pub(crate) struct PartitionHandle {
    pub addr: Addr<Partition>,
    /// `publish.max_pending` permits. An event holds one until every worker has taken it.
    permits: Arc<Semaphore>,
}

/// Checks events and hands them to the partitions of a hub.
pub(crate) struct Publisher {
    partitions: Vec<PartitionHandle>,
    limits: PublishLimits,
    lifecycle: Arc<Lifecycle>,
    /// The answer if the hub ends before a partition answers.
    unanswered: PublishError,
}

impl Publisher {
    /// `partitions` in order of their numbers.
    pub fn new(
        partitions: &[Addr<Partition>],
        limits: PublishLimits,
        lifecycle: Arc<Lifecycle>,
        has_external_log: bool,
    ) -> Self {
        let handle = |addr: &Addr<Partition>| PartitionHandle {
            addr: addr.clone(),
            permits: Arc::new(Semaphore::new(limits.max_pending)),
        };
        Self {
            partitions: partitions.iter().map(handle).collect(),
            limits,
            lifecycle,
            // A log elsewhere may have stored the event before the hub ended.
            unanswered: match has_external_log {
                true => PublishError::Unconfirmed,
                false => PublishError::Draining,
            },
        }
    }

    pub fn partition_count(&self) -> u16 {
        self.partitions.len() as u16
    }

    /// The partition with this number. Panics on an unknown number.
    pub fn partition(&self, number: u16) -> &Addr<Partition> {
        &self.partitions[usize::from(number)].addr
    }

    /// Whether all partitions run.
    pub fn is_running(&self) -> bool {
        self.partitions.iter().all(|partition| partition.addr.connected())
    }

    /// Checks an event's fields and size.
    pub fn validate(&self, event: &Event) -> Result<(), PublishError> {
        Ok(event.validate(self.limits.max_payload)?)
    }

    /// Checks a publish. It takes no permit and publishes nothing.
    pub fn check(&self, topic: &str, event: Event) -> Result<CheckedPublish, PublishError> {
        let topic = Topic::parse(topic)?;
        self.validate(&event)?;
        Ok(self.checked(topic, event))
    }

    fn checked(&self, topic: Topic, event: Event) -> CheckedPublish {
        let partition = topic.partition(self.partition_count());
        CheckedPublish { topic, partition, event }
    }

    /// Publishes one event and waits for its answer.
    pub async fn publish(&self, publish: CheckedPublish) -> PublishResult {
        let answers = self.enqueue(vec![vec![publish]]).await.await;
        answers.into_iter().flatten().next().ok_or(PublishError::Internal)?
    }

    /// Publishes one event to a topic known to be valid.
    pub async fn publish_to(&self, topic: Topic, event: Event) -> Result<Published, PublishError> {
        self.validate(&event)?;
        self.publish(self.checked(topic, event)).await
    }

    /// Acquires permits for each post and then hands its events over, in order; the events of a
    /// post are accepted or refused together. The returned future resolves to the answers.
    ///
    /// Each partition gets one message for all posts, unless a post must wait for permits.
    pub async fn enqueue(&self, posts: Vec<Vec<CheckedPublish>>) -> PublishAnswers {
        let (mut answers, answered) = AnswerSlots::new(posts.iter().map(Vec::len).sum());
        let mut batches = PartitionBatches::new();
        let mut handed_over = Vec::with_capacity(posts.len());
        for post in posts {
            let permits = match self.permits_at_once(&post) {
                Some(permits) => Ok(permits),
                None => {
                    // Hand over the earlier posts before waiting: two publishers holding permits
                    // and waiting for each other's would deadlock.
                    self.hand_over(take(&mut batches));
                    self.permits(&post).await
                }
            };
            handed_over.push(permits.map(|permits| {
                let count = post.len();
                gather(&mut batches, post, permits, &mut answers);
                count
            }));
        }
        self.hand_over(batches);
        // The receiver resolves only after all slots and `answers` are gone.
        drop(answers);
        let unanswered = self.unanswered.clone();
        let answers = answered.map(move |results| {
            let mut results = results.unwrap_or_default().into_iter();
            let mut next = || results.next().flatten().unwrap_or_else(|| Err(unanswered.clone()));
            let answers = handed_over.into_iter().map(|handed_over| match handed_over {
                Ok(count) => (0..count).map(|_| next()).collect(),
                Err(refused) => vec![Err(refused)],
            });
            answers.collect()
        });
        answers.boxed()
    }

    fn hand_over(&self, batches: PartitionBatches) {
        for (partition, PartitionBatch { events, permits }) in batches {
            let permit = Some(PublishPermit::new(permits));
            // The permits bound the mailbox, so this message may pass the mailbox's own bound.
            self.partition(partition).do_send(PublishEvents { events, permit });
        }
    }

    /// The permits of a post, if all are free at once. `None` while draining: the waiting way then
    /// refuses.
    fn permits_at_once(&self, post: &[CheckedPublish]) -> Option<Permits> {
        if self.lifecycle.is_draining() {
            return None;
        }
        let permits = counts(post).map(|(partition, count)| {
            let all = self.partitions[usize::from(partition)].permits.clone();
            Some((partition, all.try_acquire_many_owned(count).ok()?))
        });
        permits.collect()
    }

    /// Waits for the permits of a post.
    async fn permits(&self, post: &[CheckedPublish]) -> Result<Permits, PublishError> {
        let mut permits = Permits::new();
        // Every post acquires in the order of the partitions, and all permits of a partition at
        // once. With any other order two posts could wait for each other.
        for (partition, count) in counts(post) {
            if self.lifecycle.is_draining() {
                return Err(PublishError::Draining);
            }
            let acquired = self.acquire(partition, count, Some(self.limits.max_wait)).await?;
            permits.insert(partition, acquired);
        }
        Ok(permits)
    }

    async fn acquire(
        &self,
        partition: u16,
        count: u32,
        max_wait: Option<Duration>,
    ) -> Result<OwnedSemaphorePermit, PublishError> {
        let all = self.partitions[usize::from(partition)].permits.clone();
        let permits = all.acquire_many_owned(count);
        let permits = match max_wait {
            Some(max_wait) => {
                timeout(max_wait, permits).await.map_err(|_| PublishError::AtCapacity)?
            }
            None => permits.await,
        };
        permits.map_err(|_| PublishError::Draining)
    }

    /// Waits for the permits of a fan-out's chunk in one partition. With `may_refuse` it gives up
    /// after `publish.max_wait`. A chunk larger than `publish.max_pending` takes all permits.
    pub async fn fan_out_permits(
        &self,
        partition: u16,
        count: usize,
        may_refuse: bool,
    ) -> Result<PublishPermit, PublishError> {
        let count = count.min(self.limits.max_pending) as u32;
        let max_wait = may_refuse.then_some(self.limits.max_wait);
        Ok(PublishPermit::new(self.acquire(partition, count, max_wait).await?))
    }

    /// Waits until every worker has taken every event, then refuses publishes. An event in flight
    /// holds a permit, so acquiring all permits of a partition proves it has none in flight.
    pub async fn drain(&self) {
        let all = u32::try_from(self.limits.max_pending).unwrap_or(u32::MAX);
        join_all(self.partitions.iter().map(async |partition| {
            let _all = partition.permits.acquire_many(all).await;
            partition.permits.close();
        }))
        .await;
    }

    /// Refuses all later publishes, also ones waiting for permits.
    pub fn close(&self) {
        self.partitions.iter().for_each(|partition| partition.permits.close());
    }

    /// Takes all permits of a partition, for tests of a full hub.
    #[cfg(test)]
    pub async fn take_all_permits(&self, partition: u16) -> OwnedSemaphorePermit {
        let permits = &self.partitions[usize::from(partition)].permits;
        let count = permits.available_permits() as u32;
        permits.clone().acquire_many_owned(count).await.expect("not draining")
    }
}

/// The number of a post's events in each partition, ascending.
fn counts(post: &[CheckedPublish]) -> impl Iterator<Item = (u16, u32)> + use<> {
    let mut counts: BTreeMap<u16, u32> = BTreeMap::new();
    for publish in post {
        *counts.entry(publish.partition).or_default() += 1;
    }
    counts.into_iter()
}

fn gather(
    batches: &mut PartitionBatches,
    post: Vec<CheckedPublish>,
    permits: Permits,
    answers: &mut AnswerSlots,
) {
    for (partition, permits) in permits {
        match batches.get_mut(&partition) {
            Some(batch) => batch.permits.merge(permits),
            None => {
                batches.insert(partition, PartitionBatch { events: Vec::new(), permits });
            }
        }
    }
    for CheckedPublish { topic, partition, event } in post {
        let batch = batches.get_mut(&partition).expect("it has permits for every event");
        batch.events.push(PublishEvent { topic, event, answer: answers.next() });
    }
}
