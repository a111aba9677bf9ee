//! The socket of a raw stream: non-blocking, with the readiness told by the worker's socket set. No
//! system call is made for a socket known to have nothing, or no room.

use std::{
    io::{self, IoSlice, Write},
    mem::MaybeUninit,
    net::{Shutdown, TcpStream},
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    task::Poll,
};

use socket2::SockRef;

use super::gone::Ignored;

/// A socket, and its last known readiness. The set tells each change once.
pub(super) struct StreamSocket {
    socket: TcpStream,
    may_have_bytes: bool,
    may_have_room: bool,
}

impl StreamSocket {
    /// A new socket has room. The set tells its first bytes.
    pub fn new(socket: TcpStream) -> Self {
        Self { socket, may_have_bytes: false, may_have_room: true }
    }

    pub fn on_event(&mut self, has_bytes: bool, has_room: bool) {
        self.may_have_bytes |= has_bytes;
        self.may_have_room |= has_room;
    }

    /// Whether the socket may have room for bytes.
    pub fn may_have_room(&self) -> bool {
        self.may_have_room
    }

    /// Reads and drops the client's bytes. Returns whether the client is gone or has sent too much.
    pub fn is_gone(&mut self, ignored: &mut Ignored) -> bool {
        let mut buffer = [MaybeUninit::uninit(); super::MAX_HEAD_BYTES];
        while self.may_have_bytes {
            match SockRef::from(&self.socket).recv(&mut buffer) {
                Ok(count) if ignored.take(count) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.may_have_bytes = false;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => return true,
            }
        }
        false
    }

    /// Writes a part of the slices. Pending for a full socket.
    pub fn write(&mut self, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        while self.may_have_room {
            match (&self.socket).write_vectored(slices) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.may_have_room = false;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return Poll::Ready(result),
            }
        }
        Poll::Pending
    }

    /// Ends the sending side.
    pub fn end(&self) -> io::Result<()> {
        self.socket.shutdown(Shutdown::Write)
    }
}

impl AsFd for StreamSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for StreamSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}
