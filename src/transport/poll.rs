//! The reader of a poll: collects the bytes of its stream until there is an answer. The raw poll
//! and the endpoint share it.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use fanfare_core::{error::SubscribeError, poll::PollAnswer, sse::ShutdownReason};
use tokio::time::Sleep;

use super::{NewStream, PipeReader};
use crate::clock::{now, poll_sleep};

/// Further time after the wait for a stream not open yet, or still catching up: otherwise a poll
/// with a short wait would never get anything from a slow log.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a poll waits, and the bound of its answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PollSpec {
    pub wait: Duration,
    pub max_bytes: usize,
}

/// A waiting poll.
pub(crate) struct PollReader {
    reader: PipeReader,
    waiting: Box<Waiting>,
}

/// Boxed: a raw poll is stored in place of a raw stream and must not be larger.
struct Waiting {
    answer: PollAnswer,
    deadline: Instant,
    sleep: Option<Pin<Box<Sleep>>>,
    is_late: bool,
    /// Without a cursor, the answer is the position now.
    is_immediate: bool,
    max_bytes: usize,
}

impl PollReader {
    /// A poll of a new stream.
    pub fn start(stream: NewStream, spec: PollSpec) -> Self {
        let reader = stream.start();
        let is_immediate = reader.starts_now();
        Self::new(reader, is_immediate, spec)
    }

    pub fn write_timeout(&self) -> Duration {
        self.reader.write_timeout()
    }

    fn new(mut reader: PipeReader, is_immediate: bool, spec: PollSpec) -> Self {
        let PollSpec { wait, max_bytes } = spec;
        // The answer is collected at once; its transport watches the client.
        reader.watch();
        let (answer, deadline) = (PollAnswer::default(), now() + wait);
        let sleep = None;
        let waiting = Waiting { answer, deadline, sleep, is_late: false, is_immediate, max_bytes };
        Self { reader, waiting: Box::new(waiting) }
    }

    /// Ready with the answer as JSON: once there is an event or a gap and the stream has caught up,
    /// once the answer is full, at the end of the wait, or at the end of the stream. Its stream
    /// then takes no more events. Call it once after that.
    ///
    /// # Errors
    /// The stream ended before it was open.
    pub fn poll_answer(&mut self, task: &mut Context<'_>) -> Poll<Result<String, SubscribeError>> {
        loop {
            match self.reader.poll_next(task) {
                Poll::Ready(Some(piece)) => {
                    let waiting = &mut *self.waiting;
                    waiting.answer.push(&piece, waiting.max_bytes);
                    if waiting.answer.is_full() {
                        return Poll::Ready(Ok(self.finish()));
                    }
                }
                Poll::Ready(None) => return Poll::Ready(self.at_end()),
                Poll::Pending => break,
            }
        }
        let has_reason = self.waiting.is_immediate || self.waiting.answer.has_news();
        if has_reason && self.reader.is_caught_up() {
            return Poll::Ready(Ok(self.finish()));
        }
        self.poll_deadline(task)
    }

    fn poll_deadline(&mut self, task: &mut Context<'_>) -> Poll<Result<String, SubscribeError>> {
        loop {
            let waiting = &mut *self.waiting;
            ready!(poll_sleep(&mut waiting.sleep, waiting.deadline, task));
            if waiting.is_late || self.reader.is_caught_up() {
                return Poll::Ready(self.at_end());
            }
            waiting.is_late = true;
            waiting.deadline = now() + CATCH_UP_TIMEOUT;
        }
    }

    fn at_end(&mut self) -> Result<String, SubscribeError> {
        if self.waiting.answer.is_open() {
            return Ok(self.finish());
        }
        let reason = self.waiting.answer.ended().map(str::to_owned);
        self.reader.answer();
        // A refusal: the client keeps its cursor, and polls again after `Retry-After`.
        Err(match reason.as_deref() {
            Some(reason) if reason == ShutdownReason::Capacity.as_str() => {
                SubscribeError::AtCapacity
            }
            Some(_) => SubscribeError::Draining,
            None => SubscribeError::BridgeDown,
        })
    }

    fn finish(&mut self) -> String {
        let cursor = self.reader.cursor();
        self.reader.answer();
        self.waiting.answer.finish(cursor)
    }
}
