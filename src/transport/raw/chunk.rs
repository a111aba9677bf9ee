//! What goes to the socket at once: shared slices between the few bytes of HTTP's chunked
//! coding (RFC 9112 §7.1).

use std::{
    io::{self, IoSlice, Write},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use smallvec::SmallVec;
use tokio::{io::AsyncWrite, net::TcpStream};

use crate::actors::connection::PipeReader;

/// Bytes after which no more are taken for one write: what is taken counts as sent.
const ENOUGH_BYTES: usize = 16 * 1024;

/// Slices of one write, far below what the kernel takes.
const MAX_PIECES: usize = 16;

/// A `usize` in hexadecimal, and a line end.
const MAX_SIZE_BYTES: usize = 2 * size_of::<usize>() + 2;

/// One write, or what is left of it.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    /// The response's head, if it goes before.
    head: Bytes,
    /// The chunk's size, as it is written.
    size: SmallVec<[u8; MAX_SIZE_BYTES]>,
    pieces: SmallVec<[Bytes; 4]>,
    /// Whether the stream ends behind it.
    is_last: bool,
    /// How much of it the socket has.
    written_bytes: usize,
}

impl Chunk {
    /// A write that begins with the response's head.
    pub fn behind(head: Bytes) -> Self {
        Self { head, ..Self::default() }
    }

    pub fn is_last(&self) -> bool {
        self.is_last
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.head.is_empty() && self.pieces.is_empty() && !self.is_last
    }

    /// Takes what the stream has, unless this has been done. Returns whether it may have more.
    pub fn fill(&mut self, reader: &mut PipeReader, task: &mut Context<'_>) -> bool {
        if self.is_last || !self.pieces.is_empty() {
            return true;
        }
        let mut bytes = 0;
        let mut may_have_more = true;
        while bytes < ENOUGH_BYTES && self.pieces.len() < MAX_PIECES {
            match reader.poll_next(task) {
                Poll::Ready(Some(piece)) => {
                    bytes += piece.len();
                    self.pieces.push(piece);
                }
                Poll::Ready(None) => {
                    self.is_last = true;
                    break;
                }
                Poll::Pending => {
                    may_have_more = false;
                    break;
                }
            }
        }
        if !self.pieces.is_empty() {
            self.size = size_line(bytes);
        }
        may_have_more
    }

    /// Writes it to its end.
    pub fn poll_write(
        &mut self,
        socket: &mut TcpStream,
        task: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut slices = self.slices();
            let mut left = &mut slices[..];
            IoSlice::advance_slices(&mut left, self.written_bytes);
            if left.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let written = ready!(Pin::new(&mut *socket).poll_write_vectored(task, left))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            drop(slices);
            self.written_bytes += written;
        }
    }

    fn slices(&self) -> SmallVec<[IoSlice<'_>; 8]> {
        let behind: &[u8] = match (self.pieces.is_empty(), self.is_last) {
            (true, false) => b"",
            (true, true) => b"0\r\n\r\n",
            (false, false) => b"\r\n",
            (false, true) => b"\r\n0\r\n\r\n",
        };
        let pieces = self.pieces.iter().map(|piece| &piece[..]);
        let slices = [&self.head[..], &self.size[..]].into_iter().chain(pieces).chain([behind]);
        slices.filter(|slice| !slice.is_empty()).map(IoSlice::new).collect()
    }
}

/// The line before a chunk's bytes.
fn size_line(bytes: usize) -> SmallVec<[u8; MAX_SIZE_BYTES]> {
    let mut line = [0; MAX_SIZE_BYTES];
    let mut room = &mut line[..];
    write!(room, "{bytes:x}\r\n").expect("a number has two digits a byte at most");
    let length = MAX_SIZE_BYTES - room.len();
    SmallVec::from_slice(&line[..length])
}
