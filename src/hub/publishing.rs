//! Publishing: events are checked, get places in their partitions, and are handed over.

use std::{collections::BTreeMap, mem::take};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::{sync::OwnedSemaphorePermit, time::timeout};

use super::Shared;
use crate::{
    actors::partition::{Answers, Place, PublishEvent, PublishEvents, PublishResult},
    domain::{event::Event, topic::Topic},
    error::PublishError,
};

/// A checked publish.
pub(crate) struct Publish {
    topic: Topic,
    partition: u16,
    event: Event,
}

/// For each post what became of its events; of one that was refused as a whole, why.
pub(crate) type PublishAnswers = BoxFuture<'static, Vec<Vec<PublishResult>>>;

/// Events that go to their partitions together.
type Batches = BTreeMap<u16, Batch>;

struct Batch {
    events: Vec<PublishEvent>,
    places: OwnedSemaphorePermit,
}

/// Places for the events of one post, by partition.
type Places = BTreeMap<u16, OwnedSemaphorePermit>;

impl Shared {
    /// Checks a publish without taking anything.
    pub fn check(&self, topic: &str, event: Event) -> Result<Publish, PublishError> {
        let topic = Topic::parse(topic)?;
        event.validate(self.config.publish.max_payload)?;
        let partition = topic.partition(self.config.hub.partitions);
        Ok(Publish { topic, partition, event })
    }

    /// Waits for places for the events of each post and then hands them over, in their order;
    /// of a post all are refused or none. The future that comes back is the answers.
    ///
    /// Each partition is sent one message for all, unless places have to be waited for.
    pub async fn enqueue(&self, posts: Vec<Vec<Publish>>) -> PublishAnswers {
        let (mut answers, answered) = Answers::new(posts.iter().map(Vec::len).sum());
        let mut batches = Batches::new();
        let mut handed_over = Vec::with_capacity(posts.len());
        for post in posts {
            let places = match self.places_at_once(&post) {
                Some(places) => Ok(places),
                None => {
                    // Nothing is waited for while holding what others wait for.
                    self.hand_over(take(&mut batches));
                    self.places(&post).await
                }
            };
            handed_over.push(places.map(|places| {
                let count = post.len();
                gather(&mut batches, post, places, &mut answers);
                count
            }));
        }
        self.hand_over(batches);
        // A hub that ends while Redis is asked cannot say what became of the event.
        let unanswered = match self.config.redis.url.is_empty() {
            true => PublishError::Draining,
            false => PublishError::Unconfirmed,
        };
        drop(answers);
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

    fn hand_over(&self, batches: Batches) {
        for (partition, Batch { events, places }) in batches {
            let place = Some(Place::new(places));
            // Bounded by the places.
            self.partitions[usize::from(partition)].addr.do_send(PublishEvents { events, place });
        }
    }

    /// The places of a post, if they are to be had without waiting.
    fn places_at_once(&self, post: &[Publish]) -> Option<Places> {
        if self.is_draining() {
            return None;
        }
        let places = counts(post).map(|(partition, count)| {
            let all = self.partitions[usize::from(partition)].places.clone();
            Some((partition, all.try_acquire_many_owned(count).ok()?))
        });
        places.collect()
    }

    /// Waits for the places of a post.
    async fn places(&self, post: &[Publish]) -> Result<Places, PublishError> {
        let mut places = Places::new();
        // Always in the same order, and of a partition all at once: so no two publishers
        // wait for each other's places.
        for (partition, count) in counts(post) {
            if self.is_draining() {
                return Err(PublishError::Draining);
            }
            let all = self.partitions[usize::from(partition)].places.clone();
            let place = timeout(self.config.publish.max_wait, all.acquire_many_owned(count)).await;
            let place = place.map_err(|_| PublishError::AtCapacity)?;
            places.insert(partition, place.map_err(|_| PublishError::Draining)?);
        }
        Ok(places)
    }
}

/// How many events a post has for each partition, in the order of their numbers.
fn counts(post: &[Publish]) -> impl Iterator<Item = (u16, u32)> + use<> {
    let mut counts: BTreeMap<u16, u32> = BTreeMap::new();
    for publish in post {
        *counts.entry(publish.partition).or_default() += 1;
    }
    counts.into_iter()
}

fn gather(batches: &mut Batches, post: Vec<Publish>, places: Places, answers: &mut Answers) {
    for (partition, places) in places {
        match batches.get_mut(&partition) {
            Some(batch) => batch.places.merge(places),
            None => {
                batches.insert(partition, Batch { events: Vec::new(), places });
            }
        }
    }
    for Publish { topic, partition, event } in post {
        let batch = batches.get_mut(&partition).expect("it has places for every event");
        batch.events.push(PublishEvent { topic, event, answer: answers.next() });
    }
}
