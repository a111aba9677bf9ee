//! One write to the socket: shared slices, framed as one chunk of HTTP's chunked coding (RFC 9112
//! §7.1).

use std::{
    io::{self, IoSlice},
    os::fd::RawFd,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use smallvec::SmallVec;

use super::{sends, socket::StreamSocket, stream::RawSocket};
use crate::actors::connection::PipeReader;

/// Bytes filling one write. More would gain little, and taken bytes count as sent.
const ENOUGH_BYTES: usize = 16 * 1024;

/// Slices of one write, far below the kernel's bound (`IOV_MAX`, 1,024 on Linux).
const MAX_PIECES: usize = 16;

/// Up to this size, a write is copied and sent with others: cheaper than passing the kernel slices.
const MAX_COPIED_BYTES: usize = 512;

/// Room for a `usize` in hexadecimal and a line end.
const MAX_SIZE_BYTES: usize = 2 * size_of::<usize>() + 2;

/// One write, or the rest of it.
#[derive(Debug, Default)]
pub(super) struct WriteChunk {
    /// Bytes before the chunk: the response's head, or the rest of an earlier write.
    head: Bytes,
    pieces: SmallVec<[Bytes; 4]>,
    /// The length of all pieces.
    size_bytes: usize,
    /// Whether the stream ends after this write.
    is_last: bool,
    /// Bytes already taken by the socket, framing included.
    written_bytes: usize,
    /// Whether `head` is the rest of an earlier write. The socket was full: take no more bytes
    /// before it has room.
    is_rest: bool,
}

impl WriteChunk {
    /// A write beginning with the response's head.
    pub fn behind(head: Bytes) -> Self {
        Self { head, ..Self::default() }
    }

    /// The rest of an earlier write.
    pub fn rest(bytes: &[u8]) -> Self {
        Self { head: Bytes::copy_from_slice(bytes), is_rest: true, ..Self::default() }
    }

    pub fn is_last(&self) -> bool {
        self.is_last
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.head.is_empty() && self.pieces.is_empty() && !self.is_last
    }

    /// Whether the write has enough bytes.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.size_bytes >= ENOUGH_BYTES || self.pieces.len() >= MAX_PIECES
    }

    /// Adds a piece.
    #[inline]
    pub fn push(&mut self, piece: Bytes) {
        self.size_bytes += piece.len();
        self.pieces.push(piece);
    }

    /// Takes the stream's available bytes, once. Returns whether the stream may have more.
    pub fn fill(&mut self, reader: &mut PipeReader, task: &mut Context<'_>) -> bool {
        // A chunk partly written must keep its size: its size line may be on the wire already.
        if self.is_last || self.is_rest || !self.pieces.is_empty() {
            return true;
        }
        while !self.is_full() {
            match reader.poll_next(task) {
                Poll::Ready(Some(piece)) => self.push(piece),
                Poll::Ready(None) => {
                    self.is_last = true;
                    return true;
                }
                Poll::Pending => return false,
            }
            if reader.has_nothing_more() {
                return false;
            }
        }
        true
    }

    /// Leaves a small write, not the last one, to be sent with others of this turn. Returns whether
    /// it did.
    #[inline]
    pub fn leave(&self, stream: &Rc<RawSocket>, socket: RawFd) -> bool {
        let mut room = [0; MAX_SIZE_BYTES];
        let framing = Framing::of(self, &mut room);
        let is_small = framing.total_bytes(self) <= MAX_COPIED_BYTES;
        if is_small {
            sends::leave(stream.clone(), socket, |to| self.copy(&framing, to));
        }
        is_small
    }

    /// Copies all bytes of the write. An iterator over its parts would take longer than the copy.
    #[inline]
    fn copy(&self, framing: &Framing<'_>, to: &mut Vec<u8>) {
        if !self.head.is_empty() {
            to.extend_from_slice(&self.head);
        }
        to.extend_from_slice(framing.size);
        self.pieces.iter().for_each(|piece| to.extend_from_slice(piece));
        to.extend_from_slice(framing.behind);
    }

    /// Writes the chunk to its end. A later call continues after the bytes already written. Pending
    /// for a full socket.
    pub fn write(&mut self, socket: &mut StreamSocket) -> Poll<io::Result<()>> {
        let mut room = [0; MAX_SIZE_BYTES];
        let framing = Framing::of(self, &mut room);
        let total_bytes = framing.total_bytes(self);
        let mut written_bytes = self.written_bytes;
        let slices = self.parts(&framing).map(IoSlice::new);
        let slices: SmallVec<[IoSlice<'_>; MAX_PIECES + 3]> = slices.collect();
        let result = poll_write_all(&mut written_bytes, total_bytes, |written| {
            let mut slices = slices.clone();
            let mut left = &mut slices[..];
            IoSlice::advance_slices(&mut left, written);
            socket.write(left)
        });
        drop(slices);
        self.written_bytes = written_bytes;
        result
    }

    /// All bytes of the write, in order.
    fn parts<'a>(&'a self, framing: &Framing<'a>) -> impl Iterator<Item = &'a [u8]> {
        let pieces = self.pieces.iter().map(|piece| &piece[..]);
        [&self.head[..], framing.size].into_iter().chain(pieces).chain([framing.behind])
    }
}

/// The bytes of the chunked coding around the pieces of a write.
struct Framing<'a> {
    size: &'a [u8],
    behind: &'static [u8],
}

impl<'a> Framing<'a> {
    fn of(chunk: &WriteChunk, room: &'a mut [u8; MAX_SIZE_BYTES]) -> Self {
        // A chunk of size 0 would end the response, so a write without pieces has no size line.
        match (chunk.pieces.is_empty(), chunk.is_last) {
            (true, false) => Self { size: b"", behind: b"" },
            (true, true) => Self { size: b"", behind: b"0\r\n\r\n" },
            (false, false) => Self { size: size_line(chunk.size_bytes, room), behind: b"\r\n" },
            (false, true) => {
                Self { size: size_line(chunk.size_bytes, room), behind: b"\r\n0\r\n\r\n" }
            }
        }
    }

    fn total_bytes(&self, chunk: &WriteChunk) -> usize {
        chunk.head.len() + self.size.len() + chunk.size_bytes + self.behind.len()
    }
}

/// Calls `write` with the number of bytes already written, until all are written.
fn poll_write_all(
    written_bytes: &mut usize,
    total_bytes: usize,
    mut write: impl FnMut(usize) -> Poll<io::Result<usize>>,
) -> Poll<io::Result<()>> {
    while *written_bytes < total_bytes {
        match ready!(write(*written_bytes))? {
            0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            written => *written_bytes += written,
        }
    }
    Poll::Ready(Ok(()))
}

/// The size line before a chunk's bytes. `format!` would be too slow for every write.
fn size_line(bytes: usize, room: &mut [u8; MAX_SIZE_BYTES]) -> &[u8] {
    let mut left = bytes;
    let mut first = MAX_SIZE_BYTES - 2;
    room[first..].copy_from_slice(b"\r\n");
    loop {
        first -= 1;
        room[first] = b"0123456789abcdef"[left % 16];
        left /= 16;
        if left == 0 {
            return &room[first..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_hexadecimal() {
        for bytes in [0, 1, 15, 16, 255, 4096, usize::MAX] {
            let line = format!("{bytes:x}\r\n");
            assert_eq!(size_line(bytes, &mut [0; MAX_SIZE_BYTES]), line.as_bytes());
        }
    }
}
