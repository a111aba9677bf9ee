//! The disconnect of a client on its bare socket. Only reading shows a disconnect while nothing is
//! written.

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

/// The bytes still read and dropped from a client; the request's head comes first.
pub(super) struct Ignored {
    left_bytes: u32,
}

impl Ignored {
    pub fn new() -> Self {
        Self { left_bytes: (MAX_HEAD_BYTES + MAX_IGNORED_BYTES) as u32 }
    }

    /// Counts read bytes. Returns false for the end of the connection, and past the bound.
    pub fn take(&mut self, count: usize) -> bool {
        let left = u32::try_from(count).ok().and_then(|count| self.left_bytes.checked_sub(count));
        self.left_bytes = left.unwrap_or(0);
        count > 0 && left.is_some()
    }

    /// Ready once the client is gone or has sent too much.
    pub fn poll_gone(&mut self, socket: &mut TcpStream, task: &mut Context<'_>) -> Poll<()> {
        let mut buffer = [MaybeUninit::uninit(); MAX_HEAD_BYTES];
        loop {
            let mut buffer = ReadBuf::uninit(&mut buffer);
            let read = ready!(Pin::new(&mut *socket).poll_read(task, &mut buffer));
            if read.is_err() || !self.take(buffer.filled().len()) {
                return Poll::Ready(());
            }
        }
    }
}
