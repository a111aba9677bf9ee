//! Answers to publishes handed over together. They return in one piece, so the caller wakes once.

use std::{cell::RefCell, mem::take, sync::Arc};

use fanfare_core::log::PublishResult;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::super::courier::{self, Parcel};

thread_local! {
    static ANSWERS: RefCell<Option<AnswerQueue>> = const { RefCell::new(None) };
}

/// Answers taken from a queue at once.
const MAX_TAKEN: usize = 256;

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

/// All answers to publishes handed over together, and their receiver.
pub(crate) struct Answered {
    results: PublishResults,
    done: oneshot::Sender<PublishResults>,
}

impl Answered {
    fn tell(self) {
        // The publisher may be gone: the answers are then dropped.
        let _ = self.done.send(self.results);
    }
}

/// The queue of answers for one thread: answers arriving together wake the thread once, and on it, each wakes its
/// publisher.
#[derive(Debug, Clone)]
pub(crate) struct AnswerQueue(mpsc::UnboundedSender<Answered>);

impl AnswerQueue {
    /// The queue of this thread; the first call starts it. The thread must have a runtime of its own, and run it until
    /// the answers have come.
    pub fn of_thread() -> Self {
        ANSWERS.with_borrow_mut(|queue| match queue {
            Some(queue) if !queue.0.is_closed() => queue.clone(),
            queue => queue.insert(Self::start()).clone(),
        })
    }

    fn start() -> Self {
        let (sender, mut queue) = mpsc::unbounded_channel();
        actix_rt::spawn(async move {
            let mut taken = Vec::new();
            while queue.recv_many(&mut taken, MAX_TAKEN).await > 0 {
                taken.drain(..).for_each(Answered::tell);
            }
        });
        Self(sender)
    }

    /// Sends answers to the thread. Their publishes have permits, which bound the queue.
    pub fn send(&self, answered: Answered) {
        if let Err(mpsc::error::SendError(answered)) = self.0.send(answered) {
            answered.tell();
        }
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
        (Self::by(None, count, done), is_done)
    }

    /// The same for a publisher on a thread with this queue.
    pub fn for_thread(
        queue: AnswerQueue,
        count: usize,
    ) -> (Self, oneshot::Receiver<PublishResults>) {
        let (done, is_done) = oneshot::channel();
        (Self::by(Some(queue), count, done), is_done)
    }

    fn by(queue: Option<AnswerQueue>, count: usize, done: oneshot::Sender<PublishResults>) -> Self {
        let results = Mutex::new((0..count).map(|_| None).collect());
        Self { answers: Arc::new(Gathered { results, done: Some(done), queue }), next: 0 }
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
    /// The queue of the publisher's thread.
    queue: Option<AnswerQueue>,
}

impl Drop for Gathered {
    fn drop(&mut self) {
        let Some(done) = self.done.take() else { return };
        let answered = Answered { results: take(self.results.get_mut()), done };
        match self.queue.take() {
            Some(queue) => courier::post(Parcel::Answer(queue, answered)),
            None => answered.tell(),
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
