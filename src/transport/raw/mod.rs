//! The raw stream: a stream's bytes on the bare socket, without the framework's buffers.
//!
//! Who may have one is decided by a look at the request's head, of which nothing is read
//! before ([`look`]). Then [`RawStream`] is all that there is: it waits for the stream's
//! bytes, for room in the socket, and for the client to go away.

mod chunk;
mod head;
mod stream;

pub(crate) use head::{MAX_HEAD_BYTES, Sniffed, look};
pub(crate) use stream::RawStream;
