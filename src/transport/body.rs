//! The actix-web body: works in any actix-web application, HTTP/2 and TLS included.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use actix_web::body::{BodySize, MessageBody};
use bytes::Bytes;

use crate::actors::connection::PipeReader;

/// A response body of unknown length. It ends with its stream.
pub(crate) struct EventStreamBody(PipeReader);

impl EventStreamBody {
    pub fn new(reader: PipeReader) -> Self {
        Self(reader)
    }
}

impl MessageBody for EventStreamBody {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Infallible>>> {
        self.0.poll_next(task).map(|bytes| bytes.map(Ok))
    }
}
