//! A raw stream: connection, reader and socket. The worker's run queue writes its output right after
//! the connection has run. The polls by its set do the rest: the head, a full socket, the rate
//! limit, the end, and the client's disconnect.

use std::{
    cell::{Cell, RefCell},
    io,
    os::fd::{AsRawFd, RawFd},
    rc::Rc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use fanfare_core::connection::{Next, Piece};
use tokio::net::TcpStream;

use super::{chunk::WriteChunk, gone::Ignored, sends, set::RawStreams, socket::StreamSocket};
use crate::{
    actors::connection::{DirectTransport, NewStream, Pipe, PipeReader},
    clock::now,
    transport::{Place, Progress, limit_in_flight, limit_queued},
};

/// Time between two looks at the last bytes of an ended stream: nothing reports their
/// acknowledgement.
pub(super) const CLOSE_CHECK: Duration = Duration::from_millis(200);

/// Chunks written by one poll: one reading client must not keep the worker from its other tasks.
const MAX_CHUNKS: usize = 32;

/// Writes a stream's output to its socket, until the stream ends or the client is gone. Idle, it
/// owns no buffer. Dropping it ends the stream.
pub(super) struct RawStream(Rc<RawSocket>);

/// The socket of a raw stream, shared by its set and the run queue. Bytes left to be sent with
/// others hold it open.
pub(super) struct RawSocket {
    state: RefCell<State>,
    set: Rc<RawStreams>,
    /// The number in the set.
    number: Cell<u32>,
    /// Whether the set is called already.
    is_called: Cell<bool>,
}

struct State {
    socket: StreamSocket,
    reader: PipeReader,
    /// The write not yet finished. Boxed, so an idle stream has a pointer only.
    unsent: Option<Box<WriteChunk>>,
    /// Whether bytes are left to be sent with others.
    is_left: bool,
    /// Whether such a send has failed.
    has_failed: bool,
    /// Whether the last byte is written.
    is_closing: bool,
    ignored: Ignored,
    progress: Progress,
    /// The place of the connection, returned when its socket closes.
    _place: Place,
}

/// Answers a request. Its head is still unread in the socket: sniffing only peeked. `place` is
/// dropped with the socket.
pub(crate) fn run_stream(socket: TcpStream, stream: NewStream, head: Bytes, place: Place) {
    let mut reader = stream.start();
    reader.watch();
    limit_queued(&socket);
    limit_in_flight(&socket);
    let run = || {
        let set = RawStreams::of_thread()?;
        let socket = StreamSocket::new(socket.into_std()?);
        set.clone().run(RawStream::new(socket, reader, head, place, set))
    };
    if let Err(error) = run() {
        // The client returns.
        tracing::warn!(%error, "stream refused");
    }
}

impl RawStream {
    fn new(
        socket: StreamSocket,
        reader: PipeReader,
        head: Bytes,
        place: Place,
        set: Rc<RawStreams>,
    ) -> Self {
        let state = State {
            socket,
            reader,
            unsent: Some(Box::new(WriteChunk::behind(head))),
            is_left: false,
            has_failed: false,
            is_closing: false,
            ignored: Ignored::new(),
            progress: Progress::default(),
            _place: place,
        };
        let (number, is_called) = (Cell::new(0), Cell::new(false));
        let socket = Rc::new(RawSocket { state: RefCell::new(state), set, number, is_called });
        socket.state.borrow().reader.write_directly(socket.clone(), sends::send_left);
        Self(socket)
    }

    /// Gives the stream its number in the set. Returns its socket.
    pub fn number(&self, number: u32) -> RawFd {
        self.0.number.set(number);
        self.0.state.borrow().socket.as_raw_fd()
    }

    pub fn socket(&self) -> Rc<RawSocket> {
        self.0.clone()
    }

    /// Takes news from the kernel.
    pub fn on_event(&self, has_bytes: bool, has_room: bool) {
        self.0.state.borrow_mut().socket.on_event(has_bytes, has_room);
    }
}

impl Drop for RawStream {
    fn drop(&mut self) {
        self.0.state.borrow().reader.close();
    }
}

impl RawSocket {
    /// Does everything possible now. Ready once the stream is over.
    pub fn poll(&self, task: &mut Context<'_>) -> Poll<()> {
        self.is_called.set(false);
        let state = &mut *self.state.borrow_mut();
        if state.has_failed || state.has_stalled() || state.socket.is_gone(&mut state.ignored) {
            return Poll::Ready(());
        }
        // An error or the end: either way the socket is closed, and the client can resume.
        state.poll_written(task).map(drop)
    }

    /// Asks for a poll.
    fn call(&self) {
        if !self.is_called.replace(true) {
            self.set.call(self.number.get());
        }
    }
}

impl RawSocket {
    /// Takes the result of a send together with others: the number of bytes taken by the kernel, or
    /// the error.
    pub fn on_sent(&self, bytes: &[u8], result: io::Result<usize>) {
        let state = &mut *self.state.borrow_mut();
        state.is_left = false;
        match result {
            Ok(count) if count == bytes.len() => return,
            Ok(count) => state.unsent = Some(Box::new(WriteChunk::rest(&bytes[count..]))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                state.unsent = Some(Box::new(WriteChunk::rest(bytes)));
            }
            Err(_) => state.has_failed = true,
        }
        self.call();
    }
}

impl DirectTransport for RawSocket {
    fn is_ready(&self, write_timeout: Duration, now: Instant) -> bool {
        self.state.borrow().is_ready(write_timeout, now)
    }

    fn write(self: Rc<Self>, pipe: &mut Pipe, first: Option<Piece>, now: Instant) {
        let state = &mut *self.state.borrow_mut();
        let write_timeout = pipe.write_timeout();
        if first.is_none() && !state.is_ready(write_timeout, now) {
            // The set goes on once the socket has room. A poll also finds out whether the client
            // has stalled.
            if state.progress.is_due(write_timeout, now) {
                self.call();
            }
            return;
        }
        let mut chunk = WriteChunk::default();
        first.into_iter().for_each(|piece| chunk.push(piece.bytes));
        let mut needs_poll = fill(&mut chunk, pipe, now);
        if !chunk.is_empty() {
            state.progress.on_write(now);
            if chunk.leave(&self, state.socket.as_raw_fd()) {
                state.is_left = true;
            } else if !matches!(chunk.write(&mut state.socket), Poll::Ready(Ok(()))) {
                // The rest, or the error, is for the poll.
                state.unsent = Some(Box::new(chunk));
                needs_poll = true;
            }
        }
        if needs_poll {
            self.call();
        }
    }
}

/// Fills a chunk with the pipe's output. Returns whether there is, or may be, something left for
/// the poll: more output, the end of the stream, or a wait for the rate limit.
fn fill(chunk: &mut WriteChunk, pipe: &mut Pipe, now: Instant) -> bool {
    while !pipe.is_idle() {
        if chunk.is_full() {
            return true;
        }
        match pipe.take(now) {
            Next::Write(piece) => chunk.push(piece.bytes),
            Next::Idle => return false,
            Next::Finished | Next::WaitUntil(_) => return true,
        }
    }
    false
}

impl State {
    fn is_ready(&self, write_timeout: Duration, now: Instant) -> bool {
        self.unsent.is_none()
            && !self.is_left
            && !self.has_failed
            && !self.is_closing
            && !self.progress.is_due(write_timeout, now)
    }

    /// Ready once everything is written and acknowledged, or a write has failed or timed out.
    fn poll_written(&mut self, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_closing {
            return self.poll_acknowledged(task);
        }
        for _ in 0..MAX_CHUNKS {
            // Bytes left to be sent with others come first.
            if self.is_left {
                return Poll::Pending;
            }
            // Take bytes only if the socket has room. Taken bytes count as sent: without this
            // check, a slow client's bytes would leave the outbox early, out of reach of
            // conflation.
            if !self.socket.may_have_room() {
                return self.poll_stalled(task);
            }
            let mut chunk = self.unsent.take().map(|chunk| *chunk).unwrap_or_default();
            let may_have_more = chunk.fill(&mut self.reader, task);
            if chunk.is_empty() {
                return Poll::Pending;
            }
            self.progress.on_write(now());
            if chunk.write(&mut self.socket)?.is_pending() {
                self.unsent = Some(Box::new(chunk));
                return self.poll_stalled(task);
            }
            if chunk.is_last() {
                // End the sending side before the close. The client's bytes are read: a close over
                // unread ones would reset the connection and could lose the last events.
                self.socket.end()?;
                self.is_closing = true;
                return self.poll_acknowledged(task);
            }
            if !may_have_more {
                return Poll::Pending;
            }
        }
        task.waker().wake_by_ref();
        Poll::Pending
    }

    /// For a full socket: ready once the client has stalled.
    fn poll_stalled(&mut self, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let at = self.progress.deadline(self.reader.write_timeout());
            ready!(self.reader.poll_until(at, task));
            if self.has_stalled() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
    }

    /// Ready once the client has acknowledged the last byte, or has stalled. Until then the socket
    /// counts as the client's: a closed one would keep its unread bytes in the kernel, uncounted.
    fn poll_acknowledged(&mut self, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !Progress::is_complete(&self.socket) {
            ready!(self.reader.poll_until(now() + CLOSE_CHECK, task));
            if self.has_stalled() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Whether the client has stalled. The stream then ends as slow.
    fn has_stalled(&mut self) -> bool {
        let has_stalled = self.progress.has_stalled(&self.socket, self.reader.write_timeout());
        if has_stalled {
            self.reader.end_as_slow();
        }
        has_stalled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With two counters 160 bytes, a size of the allocator; the next one is 192.
    #[test]
    #[cfg(target_pointer_width = "64")]
    fn a_raw_socket_is_one_small_block() {
        assert!(size_of::<RawSocket>() <= 144, "{}", size_of::<RawSocket>());
    }
}
