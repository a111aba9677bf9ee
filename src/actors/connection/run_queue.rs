//! The run queue of a worker: connections with mail, in the order of their mail. One task runs them
//! in slices of a bounded number; between two slices, the worker's other tasks run.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, VecDeque},
    future::poll_fn,
    rc::{Rc, Weak},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use fanfare_core::ids::StreamId;
use tokio::task::yield_now;

use super::{cell::ConnectionCell, tally::Tally};
use crate::{actors::catch, clock::now, hops::hop, metrics::WorkerMetrics};

/// Connections run in one slice: about a millisecond of sends.
const SLICE: usize = 256;

/// A slice with more work for a connection, as after a storm of returning clients, ends after this time.
const SLICE_TIME: Duration = Duration::from_millis(2);

/// Connections between two looks at the time.
const LOOK: usize = 16;

enum Step {
    Run(Rc<ConnectionCell>),
    /// Work to do once all connections before it have run.
    Then(Box<dyn FnOnce()>),
}

/// Connections with mail.
#[derive(Default)]
pub(crate) struct RunQueue {
    steps: RefCell<VecDeque<Step>>,
    waker: Cell<Option<Waker>>,
    /// New connections, until their manager has them.
    newcomers: RefCell<HashMap<StreamId, Rc<ConnectionCell>>>,
    /// Sends the bytes left by the transports of a slice.
    send_left: Cell<Option<fn()>>,
}

impl RunQueue {
    /// Starts the queue of this thread. It runs as long as somebody has it.
    pub fn start(metrics: Arc<WorkerMetrics>, tally: Rc<Tally>) -> Rc<Self> {
        let queue = Rc::new(Self::default());
        let weak = Rc::downgrade(&queue);
        actix_rt::spawn(async move {
            while poll_fn(|task| Self::poll_filled(&weak, task)).await {
                let Some(queue) = weak.upgrade() else { return };
                queue.run_slice();
                tally.record(&metrics);
                let is_empty = queue.steps.borrow().is_empty();
                drop(queue);
                if !is_empty {
                    // Also looks for new bytes from sockets.
                    yield_now().await;
                }
            }
        });
        queue
    }

    /// Ready once the queue has steps, with false once nobody has it.
    fn poll_filled(queue: &Weak<Self>, task: &Context<'_>) -> Poll<bool> {
        let Some(queue) = queue.upgrade() else { return Poll::Ready(false) };
        if queue.steps.borrow().is_empty() {
            queue.waker.set(Some(task.waker().clone()));
            return Poll::Pending;
        }
        Poll::Ready(true)
    }

    /// Sets the function to call at the end of each slice.
    pub fn send_left_by(&self, send_left: fn()) {
        self.send_left.set(Some(send_left));
    }

    /// Keeps a new connection for its manager.
    pub fn introduce(&self, stream: StreamId, connection: Rc<ConnectionCell>) {
        self.newcomers.borrow_mut().insert(stream, connection);
    }

    /// The new connection of this stream.
    pub fn newcomer(&self, stream: StreamId) -> Option<Rc<ConnectionCell>> {
        self.newcomers.borrow_mut().remove(&stream)
    }

    /// Forgets all new connections: their manager has stopped.
    pub fn forget_newcomers(&self) {
        self.newcomers.take();
    }

    pub fn push(&self, connection: Rc<ConnectionCell>) {
        self.push_step(Step::Run(connection));
    }

    /// Calls `work` once all connections queued before have run.
    pub fn then(&self, work: impl FnOnce() + 'static) {
        if self.steps.borrow().is_empty() {
            return work();
        }
        self.push_step(Step::Then(Box::new(work)));
    }

    fn push_step(&self, step: Step) {
        self.steps.borrow_mut().push_back(step);
        self.waker.take().into_iter().for_each(Waker::wake);
    }

    fn run_slice(&self) {
        let start = now();
        hop!("slice begun");
        for number in 1..=SLICE {
            let step = self.steps.borrow_mut().pop_front();
            match step {
                Some(Step::Run(connection)) => connection.run(start),
                Some(Step::Then(work)) => work(),
                None => break,
            }
            if number.is_multiple_of(LOOK) && now().saturating_duration_since(start) > SLICE_TIME {
                break;
            }
        }
        if let Some(send_left) = self.send_left.get() {
            catch("connection", send_left);
        }
        hop!("slice sent");
    }
}

impl Drop for RunQueue {
    fn drop(&mut self) {
        self.waker.take().into_iter().for_each(Waker::wake);
    }
}
