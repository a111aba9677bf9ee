//! Reading request bodies within bounds: whole, or line by line.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use actix_web::web::{Bytes, BytesMut, Payload};
use fanfare_core::error::ErrorCode;
use futures_util::{Stream, StreamExt, ready};
use serde::{Deserialize, de::Error as _};
use tokio::time::timeout;

use super::refusal::Refusal;

/// Longest body of a subscription: room for 10,000 quoted topics of 256 bytes.
pub(crate) const MAX_SUBSCRIPTION_BYTES: usize = 4 * 1024 * 1024;

/// Room for a body of a publish that is not NDJSON: an array of many events.
const ARRAY_BYTES: usize = 16 * 1024 * 1024;

/// Room for an event's other fields, quoted.
const FIELDS_BYTES: usize = 16 * 1024;

/// Longest line of NDJSON: a payload with every byte escaped, and the other fields.
pub(crate) fn max_line_bytes(max_payload: usize) -> usize {
    max_payload.saturating_mul(6) + FIELDS_BYTES
}

/// Longest body of a publish that is not NDJSON.
pub(crate) fn max_body_bytes(max_payload: usize) -> usize {
    max_line_bytes(max_payload).max(ARRAY_BYTES)
}

/// Time limit for a whole body.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Reads a whole body of at most `max_bytes`, within [`READ_TIMEOUT`].
pub(crate) async fn read(payload: Payload, max_bytes: usize) -> Result<Bytes, Refusal> {
    timeout(READ_TIMEOUT, read_all(payload, max_bytes)).await.unwrap_or_else(|_| {
        let message = "the body did not arrive in time";
        Err(Refusal::new(ErrorCode::BodyTimeout, message))
    })
}

async fn read_all(mut payload: Payload, max_bytes: usize) -> Result<Bytes, Refusal> {
    let mut body = BytesMut::new();
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|error| broken(&error))?;
        if body.len() + chunk.len() > max_bytes {
            return Err(too_large(max_bytes));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// Reads a JSON object. A list is refused: serde would take it for a struct's fields.
pub(crate) fn object<'a, T: Deserialize<'a>>(json: &'a [u8]) -> serde_json::Result<T> {
    match json.trim_ascii_start().first() {
        Some(b'[') => Err(serde_json::Error::custom("expected a JSON object")),
        _ => serde_json::from_slice(json),
    }
}

/// A line of a body, or the refusal to read it.
pub(crate) struct BodyLine {
    /// From 1.
    pub number: u64,
    pub bytes: Result<Bytes, Refusal>,
}

/// The lines of a body. Empty lines are counted and skipped. Nothing is read after an overlong
/// line: the start of the next line is unknown.
pub(crate) struct BodyLines {
    payload: Payload,
    /// Lines before the next.
    count: u64,
    buffer: BytesMut,
    /// Bytes at the front without a line end.
    searched: usize,
    max_line_bytes: usize,
    is_finished: bool,
}

impl BodyLines {
    pub fn new(payload: Payload, max_line_bytes: usize) -> Self {
        let buffer = BytesMut::new();
        Self { payload, count: 0, buffer, searched: 0, max_line_bytes, is_finished: false }
    }

    fn take_line(&mut self) -> Option<Bytes> {
        loop {
            let end = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n');
            let Some(end) = end else {
                self.searched = self.buffer.len();
                return None;
            };
            let line = self.buffer.split_to(self.searched + end + 1).freeze();
            self.searched = 0;
            if !line.trim_ascii().is_empty() {
                return Some(line);
            }
            self.count += 1;
        }
    }

    /// The last line, without a line end.
    fn take_rest(&mut self) -> Option<Bytes> {
        let rest = self.buffer.split().freeze();
        self.searched = 0;
        (!rest.trim_ascii().is_empty()).then_some(rest)
    }

    /// Stops reading the body.
    fn refuse(&mut self, refusal: Refusal) -> Result<Bytes, Refusal> {
        self.is_finished = true;
        self.buffer.clear();
        self.searched = 0;
        Err(refusal)
    }
}

impl Stream for BodyLines {
    type Item = BodyLine;

    fn poll_next(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let bytes = loop {
            if let Some(line) = self.take_line() {
                if line.len() <= self.max_line_bytes {
                    break Ok(line);
                }
                // A long line may arrive in one piece, past the check of the buffer below.
                let refusal = too_large(self.max_line_bytes);
                break self.refuse(refusal);
            }
            if self.buffer.len() > self.max_line_bytes {
                let refusal = too_large(self.max_line_bytes);
                break self.refuse(refusal);
            }
            if self.is_finished {
                match self.take_rest() {
                    Some(rest) => break Ok(rest),
                    None => return Poll::Ready(None),
                }
            }
            match ready!(self.payload.poll_next_unpin(task)) {
                Some(Ok(chunk)) => self.buffer.extend_from_slice(&chunk),
                Some(Err(error)) => break self.refuse(broken(&error)),
                None => self.is_finished = true,
            }
        };
        self.count += 1;
        Poll::Ready(Some(BodyLine { number: self.count, bytes }))
    }
}

fn too_large(max_bytes: usize) -> Refusal {
    let message = format!("a body or line here has at most {max_bytes} bytes");
    Refusal::new(ErrorCode::PayloadTooLarge, message)
}

fn broken(error: &actix_web::error::PayloadError) -> Refusal {
    Refusal::new(ErrorCode::BadBody, error.to_string())
}
