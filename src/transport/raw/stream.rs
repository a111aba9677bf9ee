//! A stream on its socket.

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

/// Bytes accepted from a client beside the request's head. A client of a stream has nothing to
/// send: past this bound it is broken or hostile.
const MAX_IGNORED_BYTES: usize = 64 * 1024;

/// Runs a stream's connection and writes its output to its socket, until one of the two ends. Idle,
/// it owns no buffer.
pub(crate) struct RawStream {
    socket: TcpStream,
    /// It may stop before the transport, if the client takes the rest slowly.
    connection: RunningConnection,
    reader: PipeReader,
    /// Bytes not taken by the socket.
    unsent: Option<Box<WriteChunk>>,
    /// Bytes the client may still send; the request's head comes first.
    ignores_bytes: usize,
}

impl RawStream {
    /// The answer to a request with its head still unread in the socket.
    pub fn new(socket: TcpStream, stream: NewStream, head: Bytes) -> Self {
        let NewStream { connection, reader } = stream;
        let unsent = Some(Box::new(WriteChunk::behind(head)));
        let ignores_bytes = MAX_HEAD_BYTES + MAX_IGNORED_BYTES;
        Self { socket, connection, reader, unsent, ignores_bytes }
    }

    /// Reads and drops the client's bytes. Ready once the client is gone, or sends too much.
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

    /// Ready once all is written, or cannot be.
    fn poll_written(&mut self, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            // Bytes taken from the stream count as sent: so take them only with room.
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
                // Behind this, closing the socket ends the connection and resets nothing.
                return Pin::new(&mut self.socket).poll_shutdown(task);
            }
            if !may_have_more {
                return Poll::Pending;
            }
        }
    }

    /// Ready once the stream has ended and its client takes nothing of the rest.
    fn poll_given_up(&mut self, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.reader.poll_given_up(task));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Future for RawStream {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<()> {
        // Its output for the client is then in the reader.
        let _ = Pin::new(&mut self.connection).poll(task);
        if self.poll_gone(task).is_ready() {
            return Poll::Ready(());
        }
        // However it ended, the socket is closed and the client can resume.
        self.poll_written(task).map(drop)
    }
}
