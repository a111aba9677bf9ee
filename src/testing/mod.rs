//! Helpers for an application's own tests: a reader of streams without a socket, waiting for a
//! condition, and a clock to move. The guide's page "Testing your application" has examples.
//!
//! All waits end with a panic after [`DEADLINE`], with the events read so far.

mod clock;
#[cfg(test)]
mod reader;

use std::{collections::VecDeque, future::poll_fn, pin::Pin, time::Duration};

use actix_web::{
    HttpResponse,
    body::{BoxBody, MessageBody},
    dev::ServiceResponse,
};
use fanfare_core::sse::decode::{Decoded, Decoder};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout};

pub use self::clock::Clock;
#[cfg(test)]
pub(crate) use self::reader::TestReader;
use crate::config::{Config, Flush};

/// The longest wait for one event or condition.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// The pause between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(5);

/// A configuration for tests: the defaults, with every event sent at once.
pub fn config() -> Config {
    Config::default().with(|config| config.delivery.flush = Flush::Immediate)
}

/// Waits until the condition is true.
///
/// # Panics
/// After [`DEADLINE`], with `what`.
pub async fn eventually(what: &str, mut is_true: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !is_true().await {
        assert!(Instant::now() < end, "not within {DEADLINE:?}: {what}");
        sleep(PAUSE).await;
    }
}

/// One event of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamEvent {
    /// The type; `message` without one.
    pub event: String,
    /// The last event id after this event.
    pub id: String,
    pub data: String,
}

impl StreamEvent {
    /// The data, from JSON.
    ///
    /// # Panics
    /// The data is no JSON of this type.
    pub fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A stream in a test: the response of a handler, read as events. Dropping it ends the stream.
pub struct EventStream {
    body: Pin<Box<BoxBody>>,
    decoder: Decoder,
    queue: VecDeque<StreamEvent>,
    seen: Vec<StreamEvent>,
}

impl EventStream {
    /// Reads the stream in an answer of `actix_web::test::call_service`, and waits until it is
    /// connected: from then on it gets every new event.
    ///
    /// # Panics
    /// The answer is no stream.
    pub async fn open<B: MessageBody + 'static>(response: ServiceResponse<B>) -> Self {
        Self::of(response.into_parts().1).await
    }

    /// [`Self::open`] for the answer of a handler called directly.
    ///
    /// # Panics
    /// The answer is no stream.
    pub async fn of<B: MessageBody + 'static>(response: HttpResponse<B>) -> Self {
        let (head, body) = response.into_parts();
        assert_eq!(head.status(), 200, "no stream");
        let body = Box::pin(body.boxed());
        let mut stream =
            Self { body, decoder: Decoder::default(), queue: VecDeque::new(), seen: Vec::new() };
        let first = stream.next().await;
        assert_eq!(first.event, "connected", "{first:?}");
        stream
    }

    /// The next event, control events included.
    ///
    /// # Panics
    /// The stream ends, or nothing comes within [`DEADLINE`].
    pub async fn next(&mut self) -> StreamEvent {
        let next = timeout(DEADLINE, self.try_next()).await;
        let next = next.unwrap_or_else(|_| panic!("no event after {:?}", self.seen));
        next.unwrap_or_else(|| panic!("the stream ended after {:?}", self.seen))
    }

    /// Skips events until one of this type.
    ///
    /// # Panics
    /// As [`Self::next`].
    pub async fn next_of(&mut self, event_type: &str) -> StreamEvent {
        loop {
            let event = self.next().await;
            if event.event == event_type {
                return event;
            }
        }
    }

    /// All events until the end of the stream.
    ///
    /// # Panics
    /// Nothing comes within [`DEADLINE`].
    pub async fn rest(&mut self) -> Vec<StreamEvent> {
        let mut rest = Vec::new();
        loop {
            let next = timeout(DEADLINE, self.try_next()).await;
            match next.unwrap_or_else(|_| panic!("no end after {:?}", self.seen)) {
                Some(event) => rest.push(event),
                None => return rest,
            }
        }
    }

    /// The last event id, for a `Last-Event-ID` header.
    pub fn last_id(&self) -> &str {
        self.decoder.last_event_id()
    }

    /// The next event; `None` at the end.
    async fn try_next(&mut self) -> Option<StreamEvent> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                self.seen.push(event.clone());
                return Some(event);
            }
            let bytes = poll_fn(|task| self.body.as_mut().poll_next(task)).await?;
            let bytes = bytes.unwrap_or_else(|error| panic!("{error}"));
            self.decoder.push(&bytes).unwrap_or_else(|error| panic!("{error}"));
            while let Some(decoded) = self.decoder.pop() {
                if let Decoded::Event { event_type, data, id } = decoded {
                    self.queue.push_back(StreamEvent { event: event_type, id, data });
                }
            }
        }
    }
}
