//! The future of a raw stream: connection, reader and socket in one task.

use std::{
    future::Future,
    io,
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::{MAX_HEAD_BYTES, chunk::WriteChunk};
use crate::actors::connection::{NewStream, PipeReader, RunningConnection};

/// Bytes read and dropped from a client beside the request's head. A stream's client has nothing to
/// send: past this bound it is broken or hostile, and its stream ends.
const MAX_IGNORED_BYTES: usize = 64 * 1024;

/// Runs a stream's connection and writes its output to the socket, until the stream ends or the
/// client is gone. Idle, it owns no buffer.
pub(crate) struct RawStream {
    socket: TcpStream,
    /// It may stop before the transport: the client may take the last bytes slowly.
    connection: RunningConnection,
    reader: PipeReader,
    /// The write not yet finished. Boxed, so an idle stream has a pointer only.
    unsent: Option<Box<WriteChunk>>,
    /// Bytes still read and dropped; the request's head comes first.
    ignores_bytes: usize,
}

impl RawStream {
    /// Answers a request. Its head is still unread in the socket: sniffing only peeked.
    pub fn new(socket: TcpStream, stream: NewStream, head: Bytes) -> Self {
        let NewStream { connection, reader } = stream;
        let unsent = Some(Box::new(WriteChunk::behind(head)));
        let ignores_bytes = MAX_HEAD_BYTES + MAX_IGNORED_BYTES;
        Self { socket, connection, reader, unsent, ignores_bytes }
    }

    /// Reads and drops the client's bytes. Ready once the client is gone or has sent too much. Only
    /// reading shows a disconnect while nothing is written.
    fn poll_gone(&mut self, task: &mut Context<'_>) -> Poll<()> {
        let mut buffer = [MaybeUninit::uninit(); MAX_HEAD_BYTES];
        loop {
            let mut buffer = ReadBuf::uninit(&mut buffer);
            let read = ready!(Pin::new(&mut self.socket).poll_read(task, &mut buffer));
            let count = buffer.filled().len();
            if read.is_err() || count == 0 || count > self.ignores_bytes {
                return Poll::Ready(());
            }
            self.ignores_bytes -= count;
        }
    }

    /// Ready once everything is written, or a write has failed or timed out.
    fn poll_written(&mut self, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            // Take bytes only if the socket has room. Taken bytes count as sent: without this
            // check, a slow client's bytes would leave the outbox early, out of reach of
            // conflation.
            if self.socket.poll_write_ready(task)?.is_pending() {
                return self.poll_given_up(task);
            }
            let mut chunk = self.unsent.take().map(|chunk| *chunk).unwrap_or_default();
            let may_have_more = chunk.fill(&mut self.reader, task);
            if chunk.is_empty() {
                return Poll::Pending;
            }
            if chunk.poll_write(&mut self.socket, task)?.is_pending() {
                self.unsent = Some(Box::new(chunk));
                return self.poll_given_up(task);
            }
            if chunk.is_last() {
                // End the sending side before the close. `poll_gone` has read the client's bytes:
                // a close over unread ones would reset the connection and could lose the last
                // events.
                return Pin::new(&mut self.socket).poll_shutdown(task);
            }
            if !may_have_more {
                return Poll::Pending;
            }
        }
    }

    /// Ready once the stream has ended and its client's time for the rest is over. A client of an
    /// open stream is not given up here: the outbox and the kernel's timeout bound it.
    fn poll_given_up(&mut self, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.reader.poll_given_up(task));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Future for RawStream {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<()> {
        // Run the connection first: its output is then in the reader, and this same poll writes
        // it. The reader of an own loop wakes nobody, so in the other order output would wait for
        // an unrelated wake.
        let _ = Pin::new(&mut self.connection).poll(task);
        if self.poll_gone(task).is_ready() {
            return Poll::Ready(());
        }
        // An error or the end: either way the socket is closed, and the client can resume.
        self.poll_written(task).map(drop)
    }
}
