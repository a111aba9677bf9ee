//! Reading request bodies within bounds: whole, or line by line.

use std::{
    future::{Future, poll_fn},
    ops::Deref,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use actix_web::{
    HttpRequest,
    web::{Bytes, BytesMut, Payload},
};
use fanfare_core::error::{ErrorCode, PublishError};
use futures_util::{Stream, StreamExt, ready};
use serde::{Deserialize, de::Error as _};
use tokio::{
    task::{JoinError, spawn_blocking},
    time::{Instant, Sleep, sleep, timeout},
};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::refusal::Refusal;
use crate::{
    hub::Hub,
    request_budget::{RequestBytes, Room},
};

/// Longest body of a subscription, in decoded bytes: room for 10,000 topics of 256 bytes, quoted.
const MAX_SUBSCRIPTION_BYTES: usize = 4 * 1024 * 1024;

/// An escaped character of JSON (`\u00e9`) has up to this many bytes for one decoded byte.
const MAX_ESCAPE: usize = 6;

/// Reads the body of a subscription. Its limit counts decoded bytes: some libraries escape every
/// letter outside of ASCII.
pub(crate) async fn read_subscription(
    hub: &Hub,
    request: &HttpRequest,
    payload: Payload,
) -> Result<Body, Refusal> {
    let body = read(hub, request, payload, MAX_ESCAPE * MAX_SUBSCRIPTION_BYTES).await?;
    if body.len() <= MAX_SUBSCRIPTION_BYTES {
        return Ok(body);
    }
    let check = |json: &[u8]| match decoded_bytes(json) {
        ..=MAX_SUBSCRIPTION_BYTES => Ok(()),
        _ => Err(too_large(MAX_SUBSCRIPTION_BYTES)),
    };
    body.decode(check).await.map(|(body, ())| body)
}

/// The length of JSON with each escape counted as one byte.
fn decoded_bytes(json: &[u8]) -> usize {
    let (mut rest, mut count) = (json, 0);
    while let Some((first, tail)) = rest.split_first() {
        let skipped = match (first, tail.first()) {
            (b'\\', Some(b'u')) => 5,
            (b'\\', Some(_)) => 1,
            _ => 0,
        };
        rest = tail.get(skipped..).unwrap_or_default();
        count += 1;
    }
    count
}

/// Bodies up to this size are decoded by the worker: in some hundred microseconds.
const MAX_DECODED_BY_WORKER: usize = 64 * 1024;

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

/// A whole body. Its bytes count in the hub's budget until it is dropped.
pub(crate) struct Body {
    bytes: BytesMut,
    held: RequestBytes,
}

impl Deref for Body {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        without_mark(&self.bytes)
    }
}

impl Body {
    /// Decodes the body. A large one is decoded on a thread for blocking work, the large bodies of a
    /// hub one after the other: the worker goes on with its other requests and streams. The
    /// returned body counts in the budget as long as the caller keeps it.
    pub async fn decode<T: Send + 'static>(
        self,
        decode: impl FnOnce(&[u8]) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<(Self, T), Refusal> {
        if self.len() <= MAX_DECODED_BY_WORKER {
            let decoded = decode(&self)?;
            return Ok((self, decoded));
        }
        let turn = self.held.decoding_turn().await;
        let decoded = spawn_blocking(move || {
            // Kept also if the request is dropped meanwhile.
            let _turn = turn;
            let decoded = decode(&self)?;
            Ok((self, decoded))
        });
        let failed = |error: JoinError| Err(Refusal::new(ErrorCode::Internal, error.to_string()));
        decoded.await.unwrap_or_else(failed)
    }

    /// Counts further memory needed for the request.
    pub fn reserve(&self, bytes: usize) -> Result<(), Refusal> {
        self.held.add(bytes);
        check_room(&self.held)
    }
}

/// Reads a whole body of at most `max_bytes`, within [`READ_TIMEOUT`].
pub(crate) async fn read(
    hub: &Hub,
    request: &HttpRequest,
    payload: Payload,
    max_bytes: usize,
) -> Result<Body, Refusal> {
    until_received().await;
    let held = account(hub, request);
    let late = |_| Err(body_timeout("the body did not arrive in time"));
    timeout(READ_TIMEOUT, read_all(payload, max_bytes, held)).await.unwrap_or_else(late)
}

/// Waits until the framework has handed over the bytes received with the head: it does so after the first look at the
/// handler. A small body then needs no timer.
pub(crate) async fn until_received() {
    let mut has_waited = false;
    poll_fn(|task| {
        if std::mem::replace(&mut has_waited, true) {
            return Poll::Ready(());
        }
        task.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

async fn read_all(
    mut payload: Payload,
    max_bytes: usize,
    held: RequestBytes,
) -> Result<Body, Refusal> {
    let mut body = Body { bytes: BytesMut::new(), held };
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|error| broken(&error))?;
        if body.bytes.len() + chunk.len() > max_bytes {
            return Err(too_large(max_bytes));
        }
        body.reserve(chunk.len())?;
        body.bytes.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// JSON without a byte order mark. RFC 8259 §8.1 lets a reader ignore the mark, and some editors
/// and shells write it.
fn without_mark(json: &[u8]) -> &[u8] {
    json.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(json)
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

impl BodyLine {
    /// The bytes of the line.
    pub fn len(&self) -> usize {
        self.bytes.as_ref().map_or(0, Bytes::len)
    }
}

/// The lines of a body. Empty lines are counted and skipped. Nothing is read after an overlong
/// line: the start of the next line is unknown. An idle body ends after `publish.max_idle`, and at
/// the hub's drain.
pub(crate) struct BodyLines {
    payload: Payload,
    held: Arc<RequestBytes>,
    max_idle: Duration,
    /// The end of an idle body.
    idle: Pin<Box<Sleep>>,
    drain: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Lines before the next.
    count: u64,
    buffer: BytesMut,
    /// Bytes at the front without a line end.
    searched: usize,
    max_line_bytes: usize,
    is_finished: bool,
}

impl BodyLines {
    pub fn new(hub: &Hub, request: &HttpRequest, payload: Payload, max_line_bytes: usize) -> Self {
        let parts = hub.parts();
        let max_idle = parts.config.publish.max_idle;
        Self {
            payload,
            held: Arc::new(account(hub, request)),
            max_idle,
            idle: Box::pin(sleep(max_idle)),
            drain: Box::pin(parts.lifecycle.drain.clone().cancelled_owned()),
            count: 0,
            buffer: BytesMut::new(),
            searched: 0,
            max_line_bytes,
            is_finished: false,
        }
    }

    /// The account of the request, for its answers.
    pub fn held(&self) -> Arc<RequestBytes> {
        self.held.clone()
    }

    /// Reads on, unless the request is idle or over the budget.
    fn poll_chunk(&mut self, task: &mut Context<'_>) -> Poll<Option<Result<Bytes, Refusal>>> {
        if let Err(refusal) = check_room(&self.held) {
            return Poll::Ready(Some(Err(refusal)));
        }
        if let Poll::Ready(chunk) = self.payload.poll_next_unpin(task) {
            self.idle.as_mut().reset(Instant::now() + self.max_idle);
            return Poll::Ready(chunk.map(|chunk| chunk.map_err(|error| broken(&error))));
        }
        if self.drain.as_mut().poll(task).is_ready() {
            return Poll::Ready(Some(Err(PublishError::Draining.into())));
        }
        ready!(self.idle.as_mut().poll(task));
        Poll::Ready(Some(Err(body_timeout("the body was idle for too long"))))
    }

    fn take_line(&mut self) -> Option<Bytes> {
        loop {
            let end = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n');
            let Some(end) = end else {
                self.searched = self.buffer.len();
                return None;
            };
            let line = self.split(self.searched + end + 1);
            if !line.trim_ascii().is_empty() {
                return Some(line);
            }
            self.count += 1;
        }
    }

    /// The last line, without a line end.
    fn take_rest(&mut self) -> Option<Bytes> {
        let rest = self.split(self.buffer.len());
        (!rest.trim_ascii().is_empty()).then_some(rest)
    }

    /// Stops reading the body.
    fn refuse(&mut self, refusal: Refusal) -> Result<Bytes, Refusal> {
        self.is_finished = true;
        let _rest = self.split(self.buffer.len());
        Err(refusal)
    }

    /// Takes bytes out of the buffer. A line in work counts with its publish.
    fn split(&mut self, count: usize) -> Bytes {
        self.searched = 0;
        self.held.subtract(count);
        self.buffer.split_to(count).freeze()
    }

    /// Drops a byte order mark before the first line.
    fn skip_mark(&mut self) {
        if self.count == 0
            && self.searched == 0
            && without_mark(&self.buffer).len() < self.buffer.len()
        {
            let _mark = self.split(self.buffer.len() - without_mark(&self.buffer).len());
        }
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
            match ready!(self.poll_chunk(task)) {
                Some(Ok(chunk)) => {
                    self.held.add(chunk.len());
                    self.buffer.extend_from_slice(&chunk);
                    self.skip_mark();
                }
                Some(Err(refusal)) => break self.refuse(refusal),
                None => self.is_finished = true,
            }
        };
        self.count += 1;
        Poll::Ready(Some(BodyLine { number: self.count, bytes }))
    }
}

/// The account for the bytes of a request.
fn account(hub: &Hub, request: &HttpRequest) -> RequestBytes {
    let parts = hub.parts();
    parts.requests.request(parts.addresses.bytes(request.peer_addr(), request.headers()))
}

fn check_room(held: &RequestBytes) -> Result<(), Refusal> {
    match held.room() {
        Room::Free => Ok(()),
        Room::HubFull => {
            let message = "requests and unread answers in flight exceed `hub.max_request_bytes`";
            Err(Refusal::new(ErrorCode::AtCapacity, message))
        }
        Room::AddressFull => {
            let message = "requests of this address in flight exceed `limits.request_bytes`";
            Err(Refusal::new(ErrorCode::RateLimited, message))
        }
    }
}

fn body_timeout(message: &str) -> Refusal {
    Refusal::new(ErrorCode::BodyTimeout, message)
}

fn too_large(max_bytes: usize) -> Refusal {
    let message = format!("a body or line here has at most {max_bytes} bytes");
    Refusal::new(ErrorCode::PayloadTooLarge, message)
}

fn broken(error: &actix_web::error::PayloadError) -> Refusal {
    Refusal::new(ErrorCode::BadBody, error.to_string())
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::request_budget::RequestBudget;

    #[actix_web::test]
    async fn large_bodies_are_decoded_beside_the_worker_and_count_until_they_are_dropped() {
        let budget = RequestBudget::new(1024 * 1024);
        let decode = async |bytes| {
            let body = Body { bytes: BytesMut::zeroed(bytes), held: budget.request(None) };
            body.held.add(bytes);
            body.decode(|_| Ok(thread::current().id())).await.ok().unwrap()
        };
        let (small, by) = decode(MAX_DECODED_BY_WORKER).await;
        assert_eq!(by, thread::current().id());
        let (large, by) = decode(MAX_DECODED_BY_WORKER + 1).await;
        assert_ne!(by, thread::current().id());
        assert_eq!(budget.held_bytes(), 2 * MAX_DECODED_BY_WORKER + 1);
        drop((small, large));
        assert_eq!(budget.held_bytes(), 0);
    }
}
