//! The disconnect of a client on its bare socket.

use std::{
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, ReadBuf},
    net::TcpStream,
};

use super::MAX_HEAD_BYTES;

/// Bytes read and dropped from a client beside the request's head. The client of a stream has
/// nothing to send: past this bound it is broken or hostile, and its stream ends.
const MAX_IGNORED_BYTES: usize = 64 * 1024;

/// Reads and drops the client's bytes. Only reading shows a disconnect while nothing is written.
pub(super) struct Listener {
    /// Bytes still read and dropped; the request's head comes first.
    ignores_bytes: u32,
}

impl Listener {
    pub fn new() -> Self {
        Self { ignores_bytes: (MAX_HEAD_BYTES + MAX_IGNORED_BYTES) as u32 }
    }

    /// Ready once the client is gone or has sent too much.
    pub fn poll_gone(&mut self, socket: &mut TcpStream, task: &mut Context<'_>) -> Poll<()> {
        let mut buffer = [MaybeUninit::uninit(); MAX_HEAD_BYTES];
        loop {
            let mut buffer = ReadBuf::uninit(&mut buffer);
            let read = ready!(Pin::new(&mut *socket).poll_read(task, &mut buffer));
            // At most the buffer's 8 KiB.
            let count = buffer.filled().len() as u32;
            if read.is_err() || count == 0 || count > self.ignores_bytes {
                return Poll::Ready(());
            }
            self.ignores_bytes -= count;
        }
    }
}
