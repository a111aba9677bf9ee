//! The socket of the framework's connections in [`Server`](crate::Server): plain TCP with the write
//! timeout. Only a client acknowledging nothing is ended.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Sleep,
};

use super::{Progress, limit_queued};
use crate::{
    actors::connection::Stalled,
    clock::{now, poll_sleep},
    hops::hop,
};

/// A client's socket with a time limit for writes without progress.
pub(crate) struct WatchedSocket {
    socket: TcpStream,
    /// Bytes read before, and not yet by the framework.
    read: Bytes,
    progress: Progress,
    write_timeout: Duration,
    /// Made once the socket is full.
    sleep: Option<Pin<Box<Sleep>>>,
    stalled: Stalled,
}

impl WatchedSocket {
    pub fn new(socket: TcpStream, read: Bytes, write_timeout: Duration) -> Self {
        limit_queued(&socket);
        let (progress, stalled) = (Progress::default(), Stalled::default());
        Self { socket, read, progress, write_timeout, sleep: None, stalled }
    }

    /// For the stream on this connection, to know the reason of its end.
    pub fn stalled(&self) -> Stalled {
        self.stalled.clone()
    }

    /// Writes, unless the client has stalled.
    fn poll_progress(
        &mut self,
        task: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut TcpStream>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if self.has_stalled() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        self.progress.on_write(now());
        match write(Pin::new(&mut self.socket), task) {
            Poll::Pending => self.poll_stalled(task),
            written => written,
        }
    }

    /// Ready once the client has stalled.
    fn poll_stalled(&mut self, task: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            let at = self.progress.deadline(self.write_timeout);
            ready!(poll_sleep(&mut self.sleep, at, task));
            if self.has_stalled() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
    }

    fn has_stalled(&mut self) -> bool {
        let has_stalled = self.progress.has_stalled(&self.socket, self.write_timeout);
        if has_stalled {
            self.stalled.set();
        }
        has_stalled
    }
}

impl AsyncRead for WatchedSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.read.is_empty() {
            let count = self.read.len().min(buffer.remaining());
            buffer.put_slice(&self.read.split_to(count));
            return Poll::Ready(Ok(()));
        }
        let read = Pin::new(&mut self.socket).poll_read(task, buffer);
        if read.is_ready() {
            hop!("read");
        }
        read
    }
}

impl AsyncWrite for WatchedSocket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_progress(task, |socket, task| socket.poll_write(task, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_progress(task, |socket, task| socket.poll_write_vectored(task, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(task)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(task)
    }
}
