//! The raw stream: a stream's bytes on the bare socket, without the framework's buffers.
//!
//! Head sniffing decides by [`look`], without consuming a byte. Then [`RawStream`] is everything:
//! it waits for the stream's bytes, for room in the socket, and for the client's disconnect.

mod chunk;
mod head;
mod stream;

pub(crate) use head::{MAX_HEAD_BYTES, Sniffed, look};
pub(crate) use stream::RawStream;
