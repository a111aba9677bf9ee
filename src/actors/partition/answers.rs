//! Answers to publishes handed over together. They return in one piece, so the caller wakes once.

use std::{mem::take, sync::Arc};

use fanfare_core::log::PublishResult;
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Answers in the order of the publishes; `None` for a slot dropped without an answer.
pub(crate) type PublishResults = Vec<Option<PublishResult>>;

/// The slot of one publish's answer. Dropping it marks the answer as unknown.
#[derive(Debug)]
pub(crate) struct AnswerSlot {
    answers: Arc<Gathered>,
    index: usize,
}

impl AnswerSlot {
    pub fn send(self, result: PublishResult) {
        self.answers.results.lock()[self.index] = Some(result);
    }
}

/// Hands out the slots of answers, in order.
pub(crate) struct AnswerSlots {
    answers: Arc<Gathered>,
    next: usize,
}

impl AnswerSlots {
    /// Slots for `count` answers. The receiver resolves once all slots and this value are gone.
    pub fn new(count: usize) -> (Self, oneshot::Receiver<PublishResults>) {
        let (done, is_done) = oneshot::channel();
        let results = Mutex::new((0..count).map(|_| None).collect());
        (Self { answers: Arc::new(Gathered { results, done: Some(done) }), next: 0 }, is_done)
    }

    /// The next slot. At most `count` slots may be taken: a further one panics when sent.
    pub fn next(&mut self) -> AnswerSlot {
        let index = self.next;
        self.next += 1;
        AnswerSlot { answers: self.answers.clone(), index }
    }
}

/// The answers so far. The lock is held only to store one answer.
#[derive(Debug)]
struct Gathered {
    results: Mutex<PublishResults>,
    done: Option<oneshot::Sender<PublishResults>>,
}

impl Drop for Gathered {
    fn drop(&mut self) {
        if let Some(done) = self.done.take() {
            // The publisher may be gone: the answers are then dropped.
            let _ = done.send(take(self.results.get_mut()));
        }
    }
}

#[cfg(test)]
mod tests {
    use fanfare_core::error::PublishError;

    use super::*;

    #[test]
    fn answers_come_together_and_one_that_is_dropped_is_none() {
        let (mut answers, mut answered) = AnswerSlots::new(3);
        let [first, second, third] = [(); 3].map(|()| answers.next());
        drop(answers);
        third.send(Err(PublishError::AtCapacity));
        drop(second);
        assert!(answered.try_recv().is_err(), "the first is not answered");
        first.send(Err(PublishError::Draining));
        let results = answered.try_recv().unwrap();
        assert!(matches!(
            results[..],
            [Some(Err(PublishError::Draining)), None, Some(Err(PublishError::AtCapacity))]
        ));
    }
}
