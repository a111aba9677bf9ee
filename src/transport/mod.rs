//! Transports write a stream's bytes to its client. A transport takes bytes from the connection's
//! [`PipeReader`](crate::actors::connection::PipeReader) when its socket has room, ends with the
//! reader, and drops the reader after the client's disconnect. The connection wakes its task for
//! output. A raw stream is not woken: it writes right after its connection has run.

mod body;
mod poll;
mod progress;
mod raw;
mod watched_socket;

use std::{any::Any, rc::Rc, time::Duration};

pub(crate) use body::EventStreamBody;
pub(crate) use poll::{PollReader, PollSpec};
use progress::Progress;
pub(crate) use raw::{
    MAX_HEAD_BYTES, RawPoll, Sniffed, batch_sends, look, prepare_streams, run_stream,
    try_batched_sends,
};
use socket2::SockRef;
use tokio::net::TcpStream;
pub(crate) use watched_socket::WatchedSocket;

pub(crate) use crate::actors::connection::{NewStream, PipeReader, Stalled};
use crate::addresses::{OfConnection, Share};

/// The connections counted by a server.
pub(crate) trait CountedConnections {
    /// A connection is closed.
    fn end_one(&self);
}

/// The place of a connection among all of a server, and its share of its client's address. Dropping
/// it returns both.
pub(crate) struct Place {
    among: Rc<dyn CountedConnections>,
    _share: Option<Share<OfConnection>>,
}

impl Place {
    pub fn new(among: Rc<dyn CountedConnections>, share: Option<Share<OfConnection>>) -> Self {
        Self { among, _share: share }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.among.end_one();
    }
}

/// Bytes in the kernel not yet sent to the client. Enough to keep a fast client busy between two
/// polls; an unread stream holds no more. All other unread bytes are in the outbox, in reach of its
/// bound and of conflation.
const MAX_QUEUED_BYTES: u32 = 32 * 1024;

/// The send buffer of a raw stream; the kernel takes it twice for its own needs. It bounds the bytes
/// on their way to a client: 128 KiB per round trip, and as much for a client acknowledging nothing.
const SEND_BUFFER_BYTES: usize = 128 * 1024;

/// Limits the bytes in the kernel not yet sent to the client (`TCP_NOTSENT_LOWAT`).
pub(crate) fn limit_queued(socket: &TcpStream) {
    if let Err(error) = SockRef::from(socket).set_tcp_notsent_lowat(MAX_QUEUED_BYTES) {
        tracing::debug!(%error, "no limit of unsent bytes");
    }
}

/// Limits the bytes sent and not yet acknowledged by the client. The kernel otherwise takes up to
/// 4 MiB (`net.ipv4.tcp_wmem`).
pub(crate) fn limit_in_flight(socket: &TcpStream) {
    if let Err(error) = SockRef::from(socket).set_send_buffer_size(SEND_BUFFER_BYTES) {
        tracing::debug!(%error, "no limit of bytes in flight");
    }
}

/// Limits a connection of an application's own server. The kernel ends it after `timeout` with
/// unacknowledged bytes (`TCP_USER_TIMEOUT`), also if its client reads, but slowly. A connection not
/// over plain TCP is left alone.
pub(crate) fn limit_unsent(connection: &dyn Any, timeout: Duration) {
    if let Some(stream) = connection.downcast_ref::<TcpStream>() {
        limit_queued(stream);
        if let Err(error) = SockRef::from(stream).set_tcp_user_timeout(Some(timeout)) {
            tracing::debug!(%error, "no timeout for unsent bytes");
        }
    }
}
