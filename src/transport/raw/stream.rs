//! The future of a raw stream: connection, reader and socket in one task.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use tokio::{io::AsyncWrite, net::TcpStream};

use super::{
    chunk::WriteChunk,
    gone::Listener,
    sends::{self, Sent, Ticket},
};
use crate::{
    actors::connection::{NewStream, PipeReader, RunningConnection},
    clock::now,
    transport::{Progress, limit_in_flight, limit_queued},
};

/// Time between two looks at the last bytes of an ended stream: nothing reports their
/// acknowledgement.
pub(super) const CLOSE_CHECK: Duration = Duration::from_millis(200);

/// Runs a stream's connection and writes its output to the socket, until the stream ends or the
/// client is gone. Idle, it owns no buffer.
pub(crate) struct RawStream {
    socket: TcpStream,
    /// It may stop before the transport: the client may take the last bytes slowly.
    connection: RunningConnection,
    reader: PipeReader,
    /// The write not yet finished. Boxed, so an idle stream has a pointer only.
    unsent: Option<Box<WriteChunk>>,
    /// The last write, if it was left to be sent with others.
    left: Option<Ticket>,
    /// Whether small writes are left to be sent with others.
    batches: bool,
    listener: Listener,
    /// Whether the last byte is written.
    is_closing: bool,
    progress: Progress,
}

impl RawStream {
    /// Answers a request. Its head is still unread in the socket: sniffing only peeked.
    /// With `batches`, small writes of a turn are sent together.
    pub fn new(socket: TcpStream, stream: NewStream, head: Bytes, batches: bool) -> Self {
        let NewStream { connection, mut reader } = stream;
        reader.watch();
        limit_queued(&socket);
        limit_in_flight(&socket);
        let unsent = Some(Box::new(WriteChunk::behind(head)));
        let (listener, progress) = (Listener::new(), Progress::default());
        Self {
            socket,
            connection,
            reader,
            unsent,
            left: None,
            batches,
            listener,
            is_closing: false,
            progress,
        }
    }

    /// Ready once the write left to be sent with others is sent. A rest of it is the next write.
    fn poll_left(&mut self, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(ticket) = self.left else { return Poll::Ready(Ok(())) };
        match sends::ask(ticket, task) {
            Sent::Waiting => return Poll::Pending,
            Sent::All => {}
            Sent::Rest(bytes) => self.unsent = Some(Box::new(WriteChunk::rest(bytes))),
            Sent::Failed(kind) => return Poll::Ready(Err(kind.into())),
        }
        self.left = None;
        Poll::Ready(Ok(()))
    }

    /// Ready once everything is written and acknowledged, or a write has failed or timed out.
    fn poll_written(&mut self, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_closing {
            return self.poll_acknowledged(task);
        }
        loop {
            ready!(self.poll_left(task))?;
            // Take bytes only if the socket has room. Taken bytes count as sent: without this
            // check, a slow client's bytes would leave the outbox early, out of reach of
            // conflation.
            if self.socket.poll_write_ready(task)?.is_pending() {
                return self.poll_stalled(task);
            }
            let mut chunk = self.unsent.take().map(|chunk| *chunk).unwrap_or_default();
            let may_have_more = chunk.fill(&mut self.reader, task);
            if chunk.is_empty() {
                return Poll::Pending;
            }
            self.progress.on_write();
            if self.batches
                && let Some(ticket) = chunk.leave(&self.socket, task)
            {
                self.left = Some(ticket);
                if may_have_more {
                    continue;
                }
                return Poll::Pending;
            }
            if chunk.poll_write(&mut self.socket, task)?.is_pending() {
                self.unsent = Some(Box::new(chunk));
                return self.poll_stalled(task);
            }
            if chunk.is_last() {
                // End the sending side before the close. The listener has read the client's bytes:
                // a close over unread ones would reset the connection and could lose the last
                // events.
                ready!(Pin::new(&mut self.socket).poll_shutdown(task))?;
                self.is_closing = true;
                return self.poll_acknowledged(task);
            }
            if !may_have_more {
                return Poll::Pending;
            }
        }
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

impl Drop for RawStream {
    fn drop(&mut self) {
        if let Some(ticket) = self.left {
            sends::forget(ticket);
        }
    }
}

impl Future for RawStream {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<()> {
        if self.has_stalled() {
            return Poll::Ready(());
        }
        // Then run the connection: its output is then in the reader, and this same poll writes
        // it. The reader of an own loop wakes nobody, so in the other order output would wait for
        // an unrelated wake.
        let _ = Pin::new(&mut self.connection).poll(task);
        let this = &mut *self;
        if this.listener.poll_gone(&mut this.socket, task).is_ready() {
            return Poll::Ready(());
        }
        // An error or the end: either way the socket is closed, and the client can resume.
        self.poll_written(task).map(drop)
    }
}
