//! Numbers for streams and managers, and the client ids of streams.

use std::sync::atomic::{AtomicU64, Ordering};

use fanfare_core::ids::StreamId;

/// Hands out a hub's numbers.
#[derive(Debug)]
pub(crate) struct Ids {
    next: AtomicU64,
    /// Hides the number of streams in client ids.
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

    /// A stream's client id: its masked number and an unguessable secret, in 32 hexadecimal digits.
    pub fn client_id(&self, stream: StreamId, secret: u64) -> String {
        format!("{:016x}{secret:016x}", stream ^ self.client_key)
    }

    /// The stream and the secret in a client id. `None` if the id is malformed.
    pub fn stream_of(&self, client_id: &str) -> Option<(StreamId, u64)> {
        let id = (client_id.len() == 32).then(|| u128::from_str_radix(client_id, 16).ok());
        let id = id.flatten()?;
        Some(((id >> 64) as u64 ^ self.client_key, id as u64))
    }
}
