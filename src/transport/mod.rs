//! What carries a stream's bytes. A transport takes them from the connection's
//! [`PipeReader`](crate::actors::connection::PipeReader) when its socket has room, ends
//! when the reader says so, and drops the reader when the client is gone. That is all there
//! is to know for one more.

mod body;

pub(crate) use body::EventStreamBody;
