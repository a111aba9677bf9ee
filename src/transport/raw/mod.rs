//! The raw stream: a stream on its bare socket, without the framework's buffers.
//!
//! Head sniffing decides with [`look`], without consuming a byte. Then [`RawStream`] is the whole
//! connection: it waits for the stream's bytes, for room in the socket, and for the client's
//! disconnect.

mod chunk;
mod gone;
mod head;
mod poll;
mod sends;
mod stream;

pub(crate) use head::{MAX_HEAD_BYTES, Sniffed, look};
pub(crate) use poll::RawPoll;
pub(crate) use sends::{batch as batch_sends, try_out as try_batched_sends};
pub(crate) use stream::RawStream;
