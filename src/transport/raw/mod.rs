//! The raw stream: a stream on its bare socket, without the framework's buffers.
//!
//! Head sniffing decides with [`look`], without consuming a byte. Then `stream` has the whole
//! connection, and `set` all streams of the worker: it waits for room in their sockets, and for the
//! disconnects of their clients.

mod chunk;
mod gone;
mod head;
mod poll;
mod sends;
mod set;
mod socket;
mod stream;

pub(crate) use head::{MAX_HEAD_BYTES, Sniffed, look};
pub(crate) use poll::RawPoll;
pub(crate) use sends::{batch as batch_sends, try_out as try_batched_sends};
pub(crate) use set::prepare as prepare_streams;
pub(crate) use stream::run_stream;
