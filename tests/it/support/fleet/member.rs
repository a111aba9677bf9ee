//! One stream of a fleet: it reads, and reconnects to any instance. Now and then it leaves by
//! itself.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use parking_lot::Mutex;
use rand::{RngExt, rngs::StdRng, seq::IndexedRandom};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use super::{Ledger, Phase};
use crate::support::Stream;

/// Longest wait for an answer before the next instance.
const HEAD_DEADLINE: Duration = Duration::from_secs(5);

/// Milliseconds between two tries.
const PAUSE_MS: std::ops::Range<u64> = 10..200;

/// Milliseconds until it leaves by itself.
const STAY_MS: std::ops::Range<u64> = 1000..10_000;

pub(super) struct Member {
    ledger: Arc<Mutex<Ledger>>,
    /// The address of its first try.
    first: Option<SocketAddr>,
    addresses: Arc<[SocketAddr]>,
    random: StdRng,
}

impl Member {
    pub fn new(
        ledger: Arc<Mutex<Ledger>>,
        first: SocketAddr,
        addresses: Arc<[SocketAddr]>,
        random: StdRng,
    ) -> Self {
        Self { ledger, first: Some(first), addresses, random }
    }

    /// Runs until the fleet ends.
    pub async fn run(mut self, mut phase: watch::Receiver<Phase>) {
        loop {
            tokio::select! {
                _ = phase.wait_for(|phase| *phase == Phase::End) => return,
                () = self.visit() => {}
            }
        }
    }

    /// One connection, from the try to its end, and a pause.
    async fn visit(&mut self) {
        match timeout(HEAD_DEADLINE, self.connect()).await {
            Ok(Ok(stream)) if stream.head.status == 200 => self.listen(stream).await,
            Ok(Ok(stream)) => {
                assert_eq!(stream.head.status, 503, "{:?}", stream.head);
                self.ledger.lock().refused += 1;
            }
            // Connection refused, or no answer in time.
            Ok(Err(_)) | Err(_) => self.ledger.lock().refused += 1,
        }
        sleep(Duration::from_millis(self.random.random_range(PAUSE_MS))).await;
    }

    async fn connect(&mut self) -> std::io::Result<Stream> {
        let any = || *self.addresses.choose(&mut self.random).expect("there are instances");
        let addr = self.first.take().unwrap_or_else(any);
        let (path, last_id) = {
            let ledger = self.ledger.lock();
            (format!("/events/stream?{}", ledger.wish.query), ledger.last_id.clone())
        };
        let header = last_id.as_ref().map(|id| ("Last-Event-ID", id.as_str()));
        Stream::try_get(addr, &path, header.as_slice()).await
    }

    async fn listen(&mut self, mut stream: Stream) {
        let leave_at = Instant::now() + Duration::from_millis(self.random.random_range(STAY_MS));
        let read = async {
            while let Some(event) = stream.read_event().await {
                self.ledger.lock().on_event(event);
            }
        };
        // Dropping the stream closes it, in the middle of an event or not.
        let _ = tokio::time::timeout_at(leave_at, read).await;
    }
}
