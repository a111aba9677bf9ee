//! The seam between a connection and its transport: the connection fills the state, the transport
//! takes bytes from it. Both run on one thread, so nothing is locked, copied or sent.

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::Rc,
    sync::atomic::Ordering,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use actix::Addr;
use bytes::Bytes;
use fanfare_core::{
    connection::{ConnectionState, Drained, Next, Piece, WorkerContext},
    sse::ShutdownReason,
};
use tokio::time::Sleep;

use super::{Connection, StreamHold, Worker, messages::CloseTransport};
use crate::{
    actors::topic_manager::ContinueReplay,
    clock::{now, poll_sleep},
};

/// The state shared by connection and transport.
pub(crate) struct Pipe {
    state: ConnectionState,
    /// The waker of a transport waiting for bytes.
    waker: Option<Waker>,
    is_closed: bool,
    /// Whether the stream was a poll and has its answer.
    is_answered: bool,
    delivered: u64,
    worker: Rc<Worker>,
}

impl Pipe {
    pub fn new(state: ConnectionState, worker: Rc<Worker>) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Self {
            state,
            waker: None,
            is_closed: false,
            is_answered: false,
            delivered: 0,
            worker,
        }))
    }

    /// Changes the state for the connection, and wakes the transport.
    #[inline]
    pub fn change<R>(
        &mut self,
        change: impl FnOnce(&mut ConnectionState, &mut WorkerContext) -> R,
    ) -> R {
        let before = self.state.unsent_bytes();
        let result = change(&mut self.state, &mut self.worker.context.borrow_mut());
        self.worker.metrics.count_unsent(before, self.state.unsent_bytes());
        self.worker.metrics.count_losses(&self.state.take_losses());
        self.waker.take().into_iter().for_each(Waker::wake);
        result
    }

    /// Whether the transport is gone.
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Whether the stream was a poll and has its answer.
    pub fn is_answered(&self) -> bool {
        self.is_answered
    }

    /// The reason of the stream's end; `None` while it is open.
    pub fn ended(&self) -> Option<ShutdownReason> {
        self.state.ended()
    }

    /// The bytes not taken by the transport yet.
    pub fn unsent_bytes(&self) -> usize {
        self.state.unsent_bytes()
    }

    /// Published events taken by the transport.
    pub fn delivered(&self) -> u64 {
        self.delivered
    }

    #[inline]
    fn take(&mut self, now: Instant) -> Next {
        let before = self.state.unsent_bytes();
        let next = self.state.next(&mut self.worker.context.borrow_mut(), now);
        self.worker.metrics.count_unsent(before, self.state.unsent_bytes());
        if let Next::Write(piece) = &next {
            self.count_delivered(piece, now);
        }
        if let Some(Drained { stream, partitions }) = self.state.take_drained() {
            // One in flight for each partition of a stream: the next page comes only after it.
            self.worker.manager.do_send(ContinueReplay { stream, partitions });
        }
        next
    }

    fn count_delivered(&mut self, piece: &Piece, now: Instant) {
        if piece.event_count == 0 {
            return;
        }
        self.delivered += u64::from(piece.event_count);
        self.worker.metrics.delivered.fetch_add(u64::from(piece.event_count), Ordering::Relaxed);
        if let Some(published_at) = piece.published_at {
            self.worker.metrics.record_latency(now.saturating_duration_since(published_at));
        }
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.worker.metrics.count_unsent(self.state.unsent_bytes(), 0);
    }
}

/// The transport's end of the pipe. Dropping it stops the connection: the client is gone.
pub(crate) struct PipeReader {
    pipe: Rc<RefCell<Pipe>>,
    /// The connection's address. `None` if the transport runs the connection in its own task: it
    /// then polls the reader after the connection and needs no waker.
    connection: Option<Addr<Connection>>,
    /// Made on first use: the rate limit delays an event, or the client's socket is full.
    sleep: Option<Pin<Box<Sleep>>>,
    /// Set by the client's socket once the client makes no progress.
    stalled: Option<Stalled>,
    /// Counts the stream as open, for `hub.max_connections` and for a drain, until the last byte.
    _held: StreamHold,
}

impl PipeReader {
    pub fn new(pipe: Rc<RefCell<Pipe>>, held: StreamHold) -> Self {
        Self { pipe, connection: None, sleep: None, stalled: None, _held: held }
    }

    /// Marks the connection as a task of its own: it then wakes the transport for new bytes.
    pub fn attach(&mut self, connection: Addr<Connection>) {
        self.connection = Some(connection);
    }

    #[cfg(test)]
    pub fn connection(&self) -> Option<&Addr<Connection>> {
        self.connection.as_ref()
    }

    /// The next bytes to write, in one piece; `None` once the stream has ended. The transport calls
    /// this only with room in its socket: without calls, the outbox fills and its bound applies.
    pub fn poll_next(&mut self, task: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut pipe = self.pipe.borrow_mut();
        loop {
            match pipe.take(now()) {
                Next::Write(piece) => return Poll::Ready(Some(piece.bytes)),
                Next::Finished => return Poll::Ready(None),
                Next::Idle => break,
                Next::WaitUntil(at) => {
                    if poll_sleep(&mut self.sleep, at, task).is_pending() {
                        break;
                    }
                }
            }
        }
        if self.connection.is_some() {
            pipe.waker = Some(task.waker().clone());
        }
        Poll::Pending
    }

    /// Whether [`Self::poll_next`] would certainly have nothing, at lower cost. Always false for a
    /// connection with a task of its own: only `poll_next` registers the waker.
    pub fn has_nothing_more(&self) -> bool {
        self.connection.is_none() && self.pipe.borrow().state.is_idle()
    }

    /// Whether the stream is open, and everything missed by the client is taken.
    pub fn is_caught_up(&self) -> bool {
        self.pipe.borrow().state.is_caught_up()
    }

    /// The stream's cursor after all taken pieces. Empty before the opening.
    pub fn cursor(&self) -> String {
        self.pipe.borrow().state.cursor()
    }

    /// Ends the stream of a poll: its answer is complete, and later events come with the next poll.
    pub fn answer(&mut self) {
        let mut pipe = self.pipe.borrow_mut();
        (pipe.is_answered, pipe.is_closed) = (true, true);
        drop(pipe);
        self.close_connection();
    }

    fn close_connection(&self) {
        // A full mailbox refuses the message. The actor then runs soon anyway, and checks
        // `is_closed`.
        if let Some(connection) = &self.connection {
            let _ = connection.try_send(CloseTransport);
        }
    }

    /// Leaves the write timeout to the transport.
    pub fn watch(&mut self) {
        self.pipe.borrow_mut().state.watch();
    }

    /// Leaves the write timeout to the client's socket.
    pub fn watch_by(&mut self, stalled: Stalled) {
        self.stalled = Some(stalled);
        self.watch();
    }

    pub fn write_timeout(&self) -> Duration {
        self.pipe.borrow().state.write_timeout()
    }

    /// For a transport with a full socket: ready at this moment.
    pub fn poll_until(&mut self, at: Instant, task: &mut Context<'_>) -> Poll<()> {
        poll_sleep(&mut self.sleep, at, task)
    }

    /// Ends the stream without the client: it makes no progress.
    pub fn end_as_slow(&mut self) {
        self.pipe.borrow_mut().change(|state, _| state.end(ShutdownReason::Slow, None));
    }
}

/// Whether a client makes no progress. The client's socket and its stream share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stalled(Rc<Cell<bool>>);

impl Stalled {
    pub fn set(&self) {
        self.0.set(true);
    }

    fn is_set(&self) -> bool {
        self.0.get()
    }
}

impl Drop for PipeReader {
    fn drop(&mut self) {
        if self.stalled.as_ref().is_some_and(Stalled::is_set) {
            self.end_as_slow();
        }
        self.pipe.borrow_mut().is_closed = true;
        self.close_connection();
    }
}
