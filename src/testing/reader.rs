//! A stream's reader for tests, without a socket.

use std::{future::poll_fn, rc::Rc, time::Duration};

use fanfare_core::access::Grant;
use tokio::time::timeout;

use crate::{
    Hub, Subscription,
    actors::connection::{ConnectionCell, PipeReader},
};

const DEADLINE: Duration = Duration::from_secs(10);

/// A stream and its text so far.
pub(crate) struct TestReader {
    reader: PipeReader,
    pub text: String,
    pub has_ended: bool,
}

impl TestReader {
    /// Opens a stream and waits until it is connected.
    pub async fn open(hub: &Hub, subscription: Subscription) -> Self {
        let reader = hub
            .spawn_stream(subscription, None, &Grant::everything())
            .unwrap_or_else(|error| panic!("{error}"));
        let mut reader = Self { reader, text: String::new(), has_ended: false };
        reader.read_until("event: connected\n").await;
        reader
    }

    /// Reads until the text contains `wanted`.
    pub async fn read_until(&mut self, wanted: &str) {
        while !self.text.contains(wanted) {
            assert!(!self.has_ended, "ended without {wanted:?}: {}", self.text);
            self.read().await;
        }
    }

    /// Reads until the stream ends.
    pub async fn read_to_end(&mut self) {
        while !self.has_ended {
            self.read().await;
        }
    }

    /// The data of all events except control events.
    pub fn data(&self) -> Vec<&str> {
        let blocks = self.text.split("\n\n").filter(|block| block.starts_with("data: "));
        blocks.map(|block| block.lines().next().unwrap().trim_start_matches("data: ")).collect()
    }

    /// The last id.
    pub fn last_id(&self) -> &str {
        self.text.lines().rev().find_map(|line| line.strip_prefix("id: ")).unwrap_or_default()
    }

    /// The actor behind the stream.
    pub fn connection(&self) -> &Rc<ConnectionCell> {
        self.reader.connection()
    }

    async fn read(&mut self) {
        let next = timeout(DEADLINE, poll_fn(|task| self.reader.poll_next(task))).await;
        match next.unwrap_or_else(|_| panic!("nothing more after: {}", self.text)) {
            Some(bytes) => self.text += std::str::from_utf8(&bytes).unwrap(),
            None => self.has_ended = true,
        }
    }
}
