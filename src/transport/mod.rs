//! Transports: the carriers of a stream's bytes. A transport takes bytes from the connection's
//! [`PipeReader`](crate::actors::connection::PipeReader) when its socket has room, ends with the
//! reader, and drops the reader when the client is gone. The connection is a task of its own, or
//! part of a transport with its own loop.

mod body;
mod raw;

use std::{any::Any, time::Duration};

pub(crate) use body::EventStreamBody;
pub(crate) use raw::{MAX_HEAD_BYTES, RawStream, Sniffed, look};
use socket2::SockRef;
use tokio::net::TcpStream;

pub(crate) use crate::actors::connection::{NewStream, PipeReader};

/// The kernel then ends an accepted connection without progress for this long.
pub(crate) fn limit_unsent(connection: &dyn Any, timeout: Duration) {
    if let Some(stream) = connection.downcast_ref::<TcpStream>()
        && let Err(error) = SockRef::from(stream).set_tcp_user_timeout(Some(timeout))
    {
        tracing::debug!(%error, "no timeout for unsent bytes");
    }
}
