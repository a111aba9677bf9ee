//! The courier of a thread carries messages to other threads at the end of the thread's turn, behind all tasks ready by
//! then. A message sent at once would wake its thread by a system call of its own: for one publish, once for the
//! partition, once for the manager and once for the answer.
//!
//! A thread without a courier sends at once.

use std::{
    cell::RefCell,
    future::poll_fn,
    mem::{replace, take},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

use actix::Recipient;

use super::partition::{AnswerQueue, Answered, Deliver, PartitionQueues, PublishEvents};
use crate::hops::hop;

thread_local! {
    static COURIER: RefCell<Option<Courier>> = const { RefCell::new(None) };
}

/// A message on its way to another thread. Each has a bound of its own: permits, or one in flight.
pub(crate) enum Parcel {
    Publish(PartitionQueues, u16, PublishEvents),
    Answer(AnswerQueue, Answered),
    Deliver(Arc<Recipient<Deliver>>, Deliver),
}

impl Parcel {
    fn deliver(self) {
        match self {
            Self::Publish(queues, partition, events) => queues.publish(partition, events),
            Self::Answer(queue, answered) => queue.send(answered),
            Self::Deliver(manager, Deliver { partition, deliveries, in_flight }) => {
                hop!("sent to worker");
                // `in_flight` bounds this message. The partition notices a dead manager later.
                manager.do_send(Deliver { partition, deliveries, in_flight });
            }
        }
    }
}

struct Courier {
    parcels: Vec<Parcel>,
    waker: Option<Waker>,
    /// Until the end of the courier's runtime.
    is_running: Arc<AtomicBool>,
}

/// Marks the courier as ended when its runtime drops the task.
struct Running(Arc<AtomicBool>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Starts the courier of this thread, unless it runs. The thread must have a runtime of its own.
pub(crate) fn start() {
    let is_running = Arc::new(AtomicBool::new(true));
    let left = COURIER.with_borrow_mut(|courier| match courier {
        Some(courier) if courier.is_running.load(Ordering::Relaxed) => None,
        courier => {
            let is_running = is_running.clone();
            let new = Courier { parcels: Vec::new(), waker: None, is_running };
            Some(courier.replace(new).map(|old| old.parcels).unwrap_or_default())
        }
    });
    let Some(left) = left else { return };
    left.into_iter().for_each(Parcel::deliver);
    let running = Running(is_running);
    actix_rt::spawn(async move {
        let _running = running;
        let mut carried = Vec::new();
        poll_fn(|task| poll_carry(&mut carried, task)).await
    });
}

/// Delivers all parcels. Never ready.
fn poll_carry(carried: &mut Vec<Parcel>, task: &Context<'_>) -> Poll<()> {
    COURIER.with_borrow_mut(|courier| {
        let Some(courier) = courier else { return };
        match &mut courier.waker {
            Some(waker) => waker.clone_from(task.waker()),
            waker => *waker = Some(task.waker().clone()),
        }
        // The room is kept for the next turn.
        *carried = replace(&mut courier.parcels, take(carried));
    });
    carried.drain(..).for_each(Parcel::deliver);
    Poll::Pending
}

/// Gives a message to the courier of this thread.
pub(crate) fn post(parcel: Parcel) {
    let refused = COURIER.try_with(|courier| match &mut *courier.borrow_mut() {
        Some(courier) if courier.is_running.load(Ordering::Relaxed) => {
            courier.parcels.push(parcel);
            if let (1, Some(waker)) = (courier.parcels.len(), &courier.waker) {
                waker.wake_by_ref();
            }
            None
        }
        _ => Some(parcel),
    });
    // While the thread ends, its messages are dropped.
    if let Ok(Some(parcel)) = refused {
        parcel.deliver();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{sync::oneshot, task::yield_now, time::timeout};

    use super::*;
    use crate::actors::partition::AnswerSlots;

    fn answer_now(
        queue: AnswerQueue,
    ) -> oneshot::Receiver<Vec<Option<fanfare_core::log::PublishResult>>> {
        let (answers, answered) = AnswerSlots::for_thread(queue, 0);
        drop(answers);
        answered
    }

    #[actix_web::test]
    async fn messages_leave_at_the_end_of_the_turn_and_without_a_courier_at_once() {
        let queue = AnswerQueue::of_thread();
        assert!(answer_now(queue.clone()).await.is_ok(), "sent at once");
        start();
        yield_now().await;
        let (mut first, mut second) = (answer_now(queue.clone()), answer_now(queue));
        COURIER.with_borrow(|courier| assert_eq!(courier.as_ref().unwrap().parcels.len(), 2));
        assert!(first.try_recv().is_err() && second.try_recv().is_err());
        let both = async { (first.await.is_ok(), second.await.is_ok()) };
        assert_eq!(timeout(Duration::from_secs(5), both).await, Ok((true, true)));
    }

    #[test]
    fn a_courier_of_an_ended_runtime_is_replaced() {
        for _ in 0..2 {
            actix_web::rt::System::new().block_on(async {
                start();
                yield_now().await;
                let answered = answer_now(AnswerQueue::of_thread());
                assert!(timeout(Duration::from_secs(5), answered).await.unwrap().is_ok());
            });
            let (answers, answered) = AnswerSlots::new(0);
            drop(answers);
            assert!(answered.blocking_recv().is_ok(), "sent at once: its runtime has ended");
        }
    }
}
