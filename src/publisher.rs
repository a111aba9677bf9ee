//! Publishing: checks events, acquires publish permits, and hands the events to partitions.

use std::{
    collections::{BTreeMap, HashSet},
    mem::take,
    sync::Arc,
    time::Duration,
};

use actix::Addr;
use fanfare_core::{
    access::Grant,
    error::PublishError,
    event::Event,
    interest::Topics,
    log::PublishResult,
    policy::Policies,
    publish::{Published, SharedEvent},
    topic::Topic,
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
    actors::{
        courier::{self, Parcel},
        partition::{
            AnswerQueue, AnswerSlots, Partition, PartitionQueues, PublishEvent, PublishEvents,
            PublishPermit,
        },
    },
    config::Publish as PublishLimits,
    hops::hop,
    lifecycle::Lifecycle,
};

/// A checked event and its topics, each once. All topics accept the event, or none.
pub(crate) struct CheckedPost {
    topics: Topics,
    event: Arc<SharedEvent>,
}

impl CheckedPost {
    pub fn topics(&self) -> &[Topic] {
        &self.topics
    }
}

/// Data of one event covered by its topics' own permits. Larger data takes further permits, so
/// `publish.max_pending` bounds the bytes in flight too.
const BYTES_PER_PERMIT: usize = 4 * 1024;

/// The fate of the posts after a refused one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AfterRefusal {
    /// They are published.
    Continue,
    /// They get the same refusal.
    Stop,
}

/// When events leave for their partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaving {
    Now,
    /// With all messages of the thread's turn.
    AtTurnEnd,
}

/// The answers to the topics of each post. A post refused as a whole has one answer.
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
    queues: PartitionQueues,
    limits: PublishLimits,
    policies: Arc<Policies>,
    max_topics: usize,
    lifecycle: Arc<Lifecycle>,
    /// The answer if the hub ends before a partition answers.
    unanswered: PublishError,
}

impl Publisher {
    /// `partitions` in order of their numbers.
    pub fn new(
        partitions: &[Addr<Partition>],
        queues: PartitionQueues,
        limits: PublishLimits,
        policies: Arc<Policies>,
        max_topics: usize,
        lifecycle: Arc<Lifecycle>,
        has_external_log: bool,
    ) -> Self {
        let handle = |addr: &Addr<Partition>| PartitionHandle {
            addr: addr.clone(),
            permits: Arc::new(Semaphore::new(limits.max_pending)),
        };
        Self {
            partitions: partitions.iter().map(handle).collect(),
            queues,
            limits,
            policies,
            max_topics,
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

    /// Checks an event, and the names and grants of its topics. It takes no permit and publishes nothing.
    pub fn check(
        &self,
        names: &[impl AsRef<str>],
        event: Event,
        grant: &Grant,
    ) -> Result<CheckedPost, PublishError> {
        if names.is_empty() {
            return Err(PublishError::NoTopic);
        }
        if names.len() > self.max_topics {
            return Err(self.too_many_topics());
        }
        let topics = names.iter().map(|name| Topic::parse(name.as_ref()));
        let mut topics = topics.collect::<Result<Topics, _>>()?;
        remove_duplicates(&mut topics);
        grant.check_publish(&topics)?;
        self.validate(&event)?;
        event.check_policies(&topics, &self.policies)?;
        let event = Arc::new(SharedEvent::new(event, topics.len()));
        let post = CheckedPost { topics, event };
        let may_exceed = post.topics.len() > self.limits.max_pending;
        if may_exceed && self.counts(&post).values().any(|count| *count > self.limits.max_pending) {
            return Err(self.too_many_topics());
        }
        Ok(post)
    }

    fn too_many_topics(&self) -> PublishError {
        let (max_count, max_pending) = (self.max_topics, self.limits.max_pending);
        PublishError::TooManyTopics { max_count, max_pending }
    }

    /// Publishes one event and waits for its answer.
    pub async fn publish(&self, post: CheckedPost) -> PublishResult {
        let answers = self.enqueue(vec![post], AfterRefusal::Continue).await.await;
        answers.into_iter().flatten().next().ok_or(PublishError::Internal)?
    }

    /// The same for an event of one topic, on a worker: without the lists of [`Self::enqueue`]. The event leaves at the
    /// end of the worker's turn.
    pub async fn publish_on_worker(&self, post: CheckedPost) -> PublishResult {
        let (partition, permits) = match self.single_permits(&post) {
            Some(permits) => permits,
            None => self.permits(&post).await?.pop_first().ok_or(PublishError::Internal)?,
        };
        courier::start();
        let (mut answers, answered) = AnswerSlots::for_thread(AnswerQueue::of_thread(), 1);
        let CheckedPost { topics, event } = post;
        let publish = |topic| PublishEvent { topic, event, answer: answers.next() };
        let events = topics.into_iter().next().map(publish).into_iter().collect();
        let permit = Some(PublishPermit::new(permits));
        let events = PublishEvents { events, permit };
        hop!("checked");
        courier::post(Parcel::Publish(self.queues.clone(), partition, events));
        drop(answers);
        let answer = answered.await.ok().and_then(|results| results.into_iter().next().flatten());
        hop!("answered");
        answer.unwrap_or_else(|| Err(self.unanswered.clone()))
    }

    /// The permits of an event of one topic, if they are free at once.
    fn single_permits(&self, post: &CheckedPost) -> Option<(u16, OwnedSemaphorePermit)> {
        let [topic] = &post.topics[..] else { return None };
        if self.lifecycle.is_draining() {
            return None;
        }
        let partition = topic.partition(self.partition_count());
        let count = self.permits_of(post, 1);
        let all = self.partitions[usize::from(partition)].permits.clone();
        Some((partition, all.try_acquire_many_owned(count).ok()?))
    }

    /// Publishes one event to a topic known to be valid.
    pub async fn publish_to(&self, topic: Topic, event: Event) -> Result<Published, PublishError> {
        self.validate(&event)?;
        event.check_policies(std::slice::from_ref(&topic), &self.policies)?;
        let event = Arc::new(event.into());
        self.publish(CheckedPost { topics: [topic].into_iter().collect(), event }).await
    }

    /// Hands one event over if its permits are free at once. The future resolves to its answer.
    pub fn try_publish(
        &self,
        post: CheckedPost,
    ) -> Result<BoxFuture<'static, PublishResult>, PublishError> {
        let full = || match self.lifecycle.is_draining() {
            true => PublishError::Draining,
            false => PublishError::AtCapacity,
        };
        let permits = self.permits_at_once(&post).ok_or_else(full)?;
        let (mut answers, answered) = AnswerSlots::new(post.topics.len());
        let mut batches = PartitionBatches::new();
        self.gather(&mut batches, post, permits, &mut answers);
        self.hand_over(batches, Leaving::Now);
        drop(answers);
        let unanswered = self.unanswered.clone();
        let first = |results: Vec<Option<PublishResult>>| results.into_iter().next().flatten();
        let answer = answered
            .map(move |results| first(results.unwrap_or_default()).unwrap_or(Err(unanswered)));
        Ok(answer.boxed())
    }

    /// Acquires permits for each post and then hands its event over, in order; the topics of a
    /// post are accepted or refused together. The returned future resolves to the answers.
    ///
    /// Each partition gets one message for all posts, unless a post must wait for permits.
    pub async fn enqueue(
        &self,
        posts: Vec<CheckedPost>,
        after_refusal: AfterRefusal,
    ) -> PublishAnswers {
        self.enqueue_leaving(posts, after_refusal, Leaving::Now).await
    }

    /// The same on a worker: the events leave at the end of its turn, and its answers come together.
    pub async fn enqueue_on_worker(
        &self,
        posts: Vec<CheckedPost>,
        after_refusal: AfterRefusal,
    ) -> PublishAnswers {
        courier::start();
        self.enqueue_leaving(posts, after_refusal, Leaving::AtTurnEnd).await
    }

    async fn enqueue_leaving(
        &self,
        posts: Vec<CheckedPost>,
        after_refusal: AfterRefusal,
        leaving: Leaving,
    ) -> PublishAnswers {
        let topic_count = posts.iter().map(|post| post.topics.len()).sum();
        let (mut answers, answered) = match leaving {
            Leaving::Now => AnswerSlots::new(topic_count),
            Leaving::AtTurnEnd => AnswerSlots::for_thread(AnswerQueue::of_thread(), topic_count),
        };
        let mut batches = PartitionBatches::new();
        let mut handed_over: Vec<Result<usize, PublishError>> = Vec::with_capacity(posts.len());
        for post in posts {
            if after_refusal == AfterRefusal::Stop
                && let Some(Err(refusal)) = handed_over.last()
            {
                handed_over.push(Err(refusal.clone()));
                continue;
            }
            let permits = match self.permits_at_once(&post) {
                Some(permits) => Ok(permits),
                None => {
                    // Hand over the earlier posts before waiting: two publishers holding permits
                    // and waiting for each other's would deadlock.
                    self.hand_over(take(&mut batches), leaving);
                    self.permits(&post).await
                }
            };
            handed_over.push(permits.map(|permits| {
                let count = post.topics.len();
                self.gather(&mut batches, post, permits, &mut answers);
                count
            }));
        }
        self.hand_over(batches, leaving);
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

    fn hand_over(&self, batches: PartitionBatches, leaving: Leaving) {
        for (partition, PartitionBatch { events, permits }) in batches {
            let events = PublishEvents { events, permit: Some(PublishPermit::new(permits)) };
            match leaving {
                Leaving::Now => self.queues.publish(partition, events),
                Leaving::AtTurnEnd => {
                    courier::post(Parcel::Publish(self.queues.clone(), partition, events));
                }
            }
        }
    }

    /// The permits of a post, if all are free at once. `None` while draining: the waiting way then
    /// refuses.
    fn permits_at_once(&self, post: &CheckedPost) -> Option<Permits> {
        if self.lifecycle.is_draining() {
            return None;
        }
        self.try_acquire(self.permit_counts(post), None).ok()
    }

    /// Acquires permits of each partition, without waiting. `held` has the permits of one of them.
    /// On failure it names the first partition without enough free permits; all are returned.
    fn try_acquire(
        &self,
        counts: BTreeMap<u16, u32>,
        mut held: Option<(u16, OwnedSemaphorePermit)>,
    ) -> Result<Permits, u16> {
        let permits = counts.into_iter().map(|(partition, count)| {
            if let Some((_, permits)) = held.take_if(|(held, _)| *held == partition) {
                return Ok((partition, permits));
            }
            let all = self.partitions[usize::from(partition)].permits.clone();
            let permits = all.try_acquire_many_owned(count).map_err(|_| partition)?;
            Ok((partition, permits))
        });
        permits.collect()
    }

    /// Waits for the permits of a post, at most `publish.max_wait` for all partitions together. It
    /// waits for one partition at a time and holds no permit meanwhile: a post waiting for a busy
    /// partition must not take the permits of the others.
    async fn permits(&self, post: &CheckedPost) -> Result<Permits, PublishError> {
        let counts = self.permit_counts(post);
        let wait = async {
            let mut busy = *counts.keys().next().ok_or(PublishError::NoTopic)?;
            loop {
                if self.lifecycle.is_draining() {
                    return Err(PublishError::Draining);
                }
                let held = self.acquire(busy, counts[&busy], None).await?;
                match self.try_acquire(counts.clone(), Some((busy, held))) {
                    Ok(permits) => return Ok(permits),
                    Err(partition) => busy = partition,
                }
            }
        };
        let result = timeout(self.limits.max_wait, wait).await;
        result.unwrap_or(Err(PublishError::AtCapacity))
    }

    /// The number of a post's topics in each partition.
    fn counts(&self, post: &CheckedPost) -> BTreeMap<u16, usize> {
        let mut counts = BTreeMap::new();
        for topic in &post.topics {
            *counts.entry(topic.partition(self.partition_count())).or_default() += 1;
        }
        counts
    }

    /// The permits needed in each partition: one for each topic, and more for large data, at most
    /// all.
    fn permit_counts(&self, post: &CheckedPost) -> BTreeMap<u16, u32> {
        let counts = self.counts(post).into_iter();
        counts.map(|(number, count)| (number, self.permits_of(post, count))).collect()
    }

    /// The permits of this many topics of a post in one partition.
    fn permits_of(&self, post: &CheckedPost, count: usize) -> u32 {
        let for_data = post.event.event().data.as_str().len() / BYTES_PER_PERMIT;
        (count + for_data).min(self.limits.max_pending) as u32
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

    fn gather(
        &self,
        batches: &mut PartitionBatches,
        post: CheckedPost,
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
        for topic in post.topics {
            let partition = topic.partition(self.partition_count());
            let batch = batches.get_mut(&partition).expect("it has permits for every topic");
            let (event, answer) = (post.event.clone(), answers.next());
            batch.events.push(PublishEvent { topic, event, answer });
        }
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

fn remove_duplicates(topics: &mut Topics) {
    if topics.len() > 1 {
        let mut seen = HashSet::with_capacity(topics.len());
        topics.retain(|topic| seen.insert(topic.clone()));
    }
}
