//! Transports write a stream's bytes to its client. A transport takes bytes from the connection's
//! [`PipeReader`](crate::actors::connection::PipeReader) when its socket has room, ends with the
//! reader, and drops the reader after the client's disconnect. The connection runs as a task of its
//! own, or inside a transport with its own loop.

mod body;
mod raw;

use std::{any::Any, time::Duration};

pub(crate) use body::EventStreamBody;
pub(crate) use raw::{MAX_HEAD_BYTES, RawStream, Sniffed, look};
use socket2::SockRef;
use tokio::net::TcpStream;

pub(crate) use crate::actors::connection::{NewStream, PipeReader};

/// Makes the kernel end a connection after `timeout` without progress of its unsent bytes
/// (`TCP_USER_TIMEOUT`). A connection not over plain TCP is left alone.
pub(crate) fn limit_unsent(connection: &dyn Any, timeout: Duration) {
    if let Some(stream) = connection.downcast_ref::<TcpStream>()
        && let Err(error) = SockRef::from(stream).set_tcp_user_timeout(Some(timeout))
    {
        tracing::debug!(%error, "no timeout for unsent bytes");
    }
}
