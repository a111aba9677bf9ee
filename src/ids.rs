//! Numbers for streams and managers, and the ids of clients for their streams.

use std::sync::atomic::{AtomicU64, Ordering};

use fanfare_core::ids::StreamId;

/// Hands out a hub's numbers.
#[derive(Debug)]
pub(crate) struct Ids {
    next: AtomicU64,
    /// Hides the number of streams in clients' ids.
    client_key: u64,
}

impl Ids {
    pub fn new() -> Self {
        Self { next: AtomicU64::new(1), client_key: rand::random() }
    }

    /// A number unique in this hub.
    pub fn next(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// The id of a stream's client: the stream's number and an unguessable secret.
    pub fn client_id(&self, stream: StreamId, secret: u64) -> String {
        format!("{:016x}{secret:016x}", stream ^ self.client_key)
    }

    /// The stream and the secret of a client's id. `None` if no client can have this id.
    pub fn stream_of(&self, client_id: &str) -> Option<(StreamId, u64)> {
        let id = (client_id.len() == 32).then(|| u128::from_str_radix(client_id, 16).ok());
        let id = id.flatten()?;
        Some(((id >> 64) as u64 ^ self.client_key, id as u64))
    }
}
