//! The hub's methods for publishing.

use fanfare_core::{
    access::Grant, error::PublishError as Refused, event::Event, publish::Published,
};

use super::Hub;
use crate::{
    error::PublishError,
    publisher::{AfterRefusal, CheckedPost, PublishAnswers},
};

impl Hub {
    /// Publishes an event to a topic. Resolves once the event has its sequence and its place in
    /// history (with Redis: in Redis); delivery follows. Awaited publishes to one topic keep their
    /// order. An event with an id is stored once within `publish.idempotency_window`: a repeated
    /// publish gets the first answer.
    ///
    /// Dropping the future does not take back an event already handed to its partition.
    ///
    /// # Errors
    /// See [`PublishError`]. With all `publish.max_pending` publish permits of the partition in
    /// use, the call waits up to `publish.max_wait` and then fails with
    /// [`PublishError::AtCapacity`]. A refused event is not stored, except as [`PublishError`]
    /// says.
    pub async fn publish(
        &self,
        topic: impl AsRef<str>,
        event: Event,
    ) -> Result<Published, PublishError> {
        let publisher = &self.parts().publisher;
        Ok(publisher.publish(publisher.check(&[topic], event, &Grant::everything())?).await?)
    }

    /// Publishes events in order, each with its topic: faster than one call each. One answer for
    /// each event. After a refused event, all later ones get the same refusal: a repeated call with
    /// the refused ones keeps the order.
    pub async fn publish_all<T: AsRef<str>>(
        &self,
        events: impl IntoIterator<Item = (T, Event)>,
    ) -> Vec<Result<Published, PublishError>> {
        let publisher = &self.parts().publisher;
        let (mut refused, grant) = (None, Grant::everything());
        let mut posts = Vec::new();
        let mut count = 0;
        for (topic, event) in events {
            count += 1;
            match publisher.check(&[topic], event, &grant) {
                _ if refused.is_some() => {}
                Ok(post) => posts.push(post),
                Err(error) => refused = Some(error),
            }
        }
        let answers = publisher.enqueue(posts, AfterRefusal::Stop).await.await;
        let mut answers: Vec<_> = answers.into_iter().flatten().collect();
        let refused = refused.unwrap_or(Refused::Internal);
        answers.resize(count, Err(refused));
        answers.into_iter().map(|answer| Ok(answer?)).collect()
    }

    /// Publishes an event without waiting for room. Unlike [`Self::publish`] it needs no `await`:
    /// the event is handed over when this returns. The returned future has the answer; dropping it
    /// does not take back the event.
    ///
    /// # Errors
    /// As [`Self::publish`]; [`PublishError::AtCapacity`] at once if no publish permit is free.
    pub fn try_publish(
        &self,
        topic: impl AsRef<str>,
        event: Event,
    ) -> Result<impl Future<Output = Result<Published, PublishError>> + Send + 'static, PublishError>
    {
        let publisher = &self.parts().publisher;
        let answer =
            publisher.try_publish(publisher.check(&[topic], event, &Grant::everything())?)?;
        Ok(async { Ok(answer.await?) })
    }

    /// Checks a publish. It takes no permit and publishes nothing.
    pub(crate) fn check(
        &self,
        topics: &[String],
        event: Event,
        grant: &Grant,
    ) -> Result<CheckedPost, Refused> {
        self.parts().publisher.check(topics, event, grant)
    }

    /// Publishes one event of one topic from a request on a worker.
    pub(crate) async fn publish_checked(&self, post: CheckedPost) -> Result<Published, Refused> {
        self.parts().publisher.publish_on_worker(post).await
    }

    /// Acquires permits and hands the events of a request on a worker over, see [`Publisher::enqueue`].
    pub(crate) async fn enqueue(
        &self,
        posts: Vec<CheckedPost>,
        after_refusal: AfterRefusal,
    ) -> PublishAnswers {
        self.parts().publisher.enqueue_on_worker(posts, after_refusal).await
    }
}
