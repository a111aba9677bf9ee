//! The seam between a connection and its transport: the connection fills the state, the transport
//! takes bytes from it. Both run on one thread, so nothing is locked, copied or sent.

use std::{
    cell::Cell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use bytes::Bytes;
use fanfare_core::{
    connection::{ConnectionState, Drained, Next, Piece, WorkerContext},
    sse::ShutdownReason,
};
use tokio::time::Sleep;

use super::{StreamHold, Worker, cell::ConnectionCell};
use crate::{
    actors::topic_manager::ContinueReplay,
    clock::{now, poll_sleep},
};

/// A transport that writes right after its connection has run, without a wake of its task.
pub(crate) trait DirectTransport {
    /// Whether output can leave now. It cannot if the client may have made no progress for
    /// `write_timeout`.
    fn is_ready(&self, write_timeout: Duration, now: Instant) -> bool;

    /// Writes this piece and further output of the pipe. A transport not ready leaves it there.
    fn write(self: Rc<Self>, pipe: &mut Pipe, first: Option<Piece>, now: Instant);
}

/// The transport's call for new output.
#[derive(Default)]
enum Call {
    #[default]
    None,
    Wake(Waker),
    Direct(Rc<dyn DirectTransport>),
    /// The stream was a poll and has its answer.
    Answered,
}

/// The state shared by connection and transport.
pub(crate) struct Pipe {
    pub(super) state: ConnectionState,
    call: Call,
    delivered: u64,
    worker: Rc<Worker>,
}

impl Pipe {
    pub fn new(state: ConnectionState, worker: Rc<Worker>) -> Self {
        Self { state, call: Call::None, delivered: 0, worker }
    }

    pub(super) fn worker(&self) -> &Worker {
        &self.worker
    }

    /// Runs `work` on the state, with the context of the worker.
    #[inline]
    pub fn change<R>(
        &mut self,
        work: impl FnOnce(&mut ConnectionState, &mut WorkerContext) -> R,
    ) -> R {
        work(&mut self.state, &mut self.worker.context.borrow_mut())
    }

    /// Wakes a transport waiting for output.
    pub fn wake(&mut self) {
        if let Call::Wake(waker) = &self.call {
            waker.wake_by_ref();
            self.call = Call::None;
        }
    }

    /// The direct transport, if it is one.
    pub fn direct(&self) -> Option<Rc<dyn DirectTransport>> {
        match &self.call {
            Call::Direct(transport) => Some(transport.clone()),
            Call::None | Call::Wake(_) | Call::Answered => None,
        }
    }

    /// Counts the changes of the state since it had these unsent bytes.
    #[inline]
    pub fn count_changes(&mut self, unsent_before: usize) {
        self.worker.metrics.count_unsent(unsent_before, self.state.unsent_bytes());
        self.worker.metrics.count_losses(&self.state.take_losses());
    }

    /// Whether the stream was a poll and has its answer.
    pub fn is_answered(&self) -> bool {
        matches!(self.call, Call::Answered)
    }

    /// The reason of the stream's end; `None` while it is open.
    pub fn ended(&self) -> Option<ShutdownReason> {
        self.state.ended()
    }

    /// The bytes not taken by the transport yet.
    pub fn unsent_bytes(&self) -> usize {
        self.state.unsent_bytes()
    }

    /// Whether there is certainly no output.
    pub fn is_idle(&self) -> bool {
        self.state.is_idle()
    }

    /// The time limit for a client without progress.
    pub fn write_timeout(&self) -> Duration {
        self.state.write_timeout()
    }

    /// Published events taken by the transport.
    pub fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Takes the next output. The worker records it at the end of its slice.
    #[inline]
    pub fn take(&mut self, now: Instant) -> Next {
        let next = self.state.next(&mut self.worker.context.borrow_mut(), now);
        if let Next::Write(piece) = &next {
            self.count_delivered(piece);
        }
        if let Some(Drained { stream, partitions }) = self.state.take_drained() {
            // One in flight for each partition of a stream: the next page comes only after it.
            self.worker.manager.do_send(ContinueReplay { stream, partitions });
        }
        next
    }

    /// Counts the events of a taken piece.
    #[inline]
    pub fn count_delivered(&mut self, piece: &Piece) {
        if piece.event_count > 0 {
            self.delivered += u64::from(piece.event_count);
            let Worker { tally, metrics, .. } = &*self.worker;
            tally.count(piece.event_count, piece.published_at, metrics);
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
    connection: Rc<ConnectionCell>,
    /// Made on first use: the rate limit delays an event, or the client's socket is full.
    sleep: Option<Pin<Box<Sleep>>>,
    /// Set by the client's socket once the client makes no progress.
    stalled: Option<Stalled>,
    /// Counts the stream as open, for `hub.max_connections` and for a drain, until the last byte.
    _held: StreamHold,
}

impl PipeReader {
    pub fn new(connection: Rc<ConnectionCell>, held: StreamHold) -> Self {
        Self { connection, sleep: None, stalled: None, _held: held }
    }

    #[cfg(test)]
    pub fn connection(&self) -> &Rc<ConnectionCell> {
        &self.connection
    }

    /// The next bytes to write, in one piece; `None` once the stream has ended. The transport calls
    /// this only with room in its socket: without calls, the outbox fills and its bound applies.
    pub fn poll_next(&mut self, task: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let sleep = &mut self.sleep;
        self.connection.with(|actor| {
            let pipe = &mut actor.pipe;
            let unsent_before = pipe.unsent_bytes();
            let next = loop {
                match pipe.take(now()) {
                    Next::Write(piece) => break Poll::Ready(Some(piece.bytes)),
                    Next::Finished => break Poll::Ready(None),
                    Next::Idle => break Poll::Pending,
                    Next::WaitUntil(at) => {
                        if poll_sleep(sleep, at, task).is_pending() {
                            break Poll::Pending;
                        }
                    }
                }
            };
            if next.is_pending() && !matches!(pipe.call, Call::Direct(_)) {
                pipe.call = Call::Wake(task.waker().clone());
            }
            pipe.count_changes(unsent_before);
            pipe.worker.tally.record(&pipe.worker.metrics);
            next
        })
    }

    /// Whether [`Self::poll_next`] would certainly have nothing, at lower cost. Always false for a
    /// transport woken for output: only `poll_next` registers its waker.
    pub fn has_nothing_more(&self) -> bool {
        self.connection
            .with(|actor| matches!(actor.pipe.call, Call::Direct(_)) && actor.pipe.is_idle())
    }

    /// Hands all later output to this transport, without waking its task. The run queue calls
    /// `send_left` at the end of each slice.
    pub fn write_directly(&self, transport: Rc<dyn DirectTransport>, send_left: fn()) {
        self.connection.with(|actor| {
            actor.pipe.call = Call::Direct(transport);
            actor.pipe.worker.queue.send_left_by(send_left);
        });
    }

    /// Whether the stream is open, and everything missed by the client is taken.
    pub fn is_caught_up(&self) -> bool {
        self.connection.with(|actor| actor.pipe.state.is_caught_up())
    }

    /// Whether the stream begins at the present, without a cursor.
    pub fn starts_now(&self) -> bool {
        self.connection.with(|actor| actor.starts_now())
    }

    /// The stream's cursor after all taken pieces. Empty before the opening.
    pub fn cursor(&self) -> String {
        self.connection.with(|actor| actor.pipe.state.cursor())
    }

    /// Ends the stream of a poll: its answer is complete, and later events come with the next poll.
    pub fn answer(&mut self) {
        self.connection.with(|actor| actor.pipe.call = Call::Answered);
        self.close();
    }

    /// Stops the connection, and forgets the transport.
    pub fn close(&self) {
        self.connection.close();
        let call = self.connection.with(|actor| std::mem::take(&mut actor.pipe.call));
        drop(call);
    }

    /// Leaves the write timeout to the transport.
    pub fn watch(&mut self) {
        self.connection.with(|actor| actor.pipe.state.watch());
    }

    /// Leaves the write timeout to the client's socket.
    pub fn watch_by(&mut self, stalled: Stalled) {
        self.stalled = Some(stalled);
        self.watch();
    }

    pub fn write_timeout(&self) -> Duration {
        self.connection.with(|actor| actor.pipe.write_timeout())
    }

    /// For a transport with a full socket: ready at this moment.
    pub fn poll_until(&mut self, at: Instant, task: &mut Context<'_>) -> Poll<()> {
        poll_sleep(&mut self.sleep, at, task)
    }

    /// Ends the stream without the client: it makes no progress.
    pub fn end_as_slow(&mut self) {
        self.connection.with(|actor| {
            let unsent_before = actor.pipe.unsent_bytes();
            actor.pipe.state.end(ShutdownReason::Slow, None);
            actor.pipe.count_changes(unsent_before);
            actor.pipe.wake();
        });
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
        self.close();
    }
}
