//! The key set of an identity provider: read at the start, every `access.jwks.refresh`, and for an
//! unknown `kid`. While its source is unavailable, the last keys stay.

use std::{
    path::{Path, PathBuf},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use awc::http::Method;
use bytes::Bytes;
use fanfare_tokens::{KeySet, MAX_JWKS_BYTES, ReadJwks, read_bounded, read_jwks};
use parking_lot::RwLock;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};

use crate::{
    config,
    web_client::{WebClient, WebRequest},
};

/// Time limit for the provider's answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Shortest time between two reads for unknown keys: anybody can send tokens with new names.
const MIN_PAUSE: Duration = Duration::from_secs(30);

/// Pause after the first failed read. It doubles with each, up to [`MIN_PAUSE`].
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// Requests waiting for one read. Further ones are refused as with the old keys.
const MAX_WAITING: usize = 4096;

/// The keys read last, and the way to ask for newer ones.
#[derive(Clone)]
pub(crate) struct FetchedKeys {
    /// `None` before the first successful read.
    current: Arc<RwLock<Option<Arc<KeySet>>>>,
    requests: mpsc::Sender<oneshot::Sender<bool>>,
}

enum Source {
    Url(String),
    File(PathBuf),
}

/// The reader of the keys, to be run on the thread of the web client.
pub(crate) struct KeyRefresh {
    source: Source,
    every: Duration,
    current: Arc<RwLock<Option<Arc<KeySet>>>>,
    requests: mpsc::Receiver<oneshot::Sender<bool>>,
    /// The request which began a read.
    first: Option<oneshot::Sender<bool>>,
    failed_count: u32,
    /// The end of the pause after a read for an unknown key.
    rested_at: Option<Instant>,
}

impl FetchedKeys {
    /// The keys of the configured source, if there is one, and their reader.
    pub fn new(config: &config::Jwks) -> Option<(Self, KeyRefresh)> {
        let source = match (config.url.is_empty(), config.file.is_empty()) {
            (false, _) => Source::Url(config.url.clone()),
            (true, false) => Source::File(config.file.clone().into()),
            (true, true) => return None,
        };
        let current = Arc::new(RwLock::new(None));
        let (requests, received) = mpsc::channel(MAX_WAITING);
        let refresh = KeyRefresh {
            source,
            every: config.refresh,
            current: current.clone(),
            requests: received,
            first: None,
            failed_count: 0,
            rested_at: None,
        };
        Some((Self { current, requests }, refresh))
    }

    /// The keys read last; `None` before the first successful read.
    pub fn current(&self) -> Option<Arc<KeySet>> {
        self.current.read().clone()
    }

    /// Waits for a read in flight, or for one for an unknown key, if one is due. Returns whether
    /// the keys were read.
    pub async fn refresh(&self) -> bool {
        let (answer, answered) = oneshot::channel();
        self.requests.try_send(answer).is_ok() && answered.await.unwrap_or(false)
    }
}

impl KeyRefresh {
    /// Reads the keys until all users of them are gone.
    pub async fn run(mut self, web: WebClient) {
        loop {
            let is_read = self.read(&web).await;
            // They came while the read was in flight, so they have its result.
            let waiting = std::iter::from_fn(|| self.requests.try_recv().ok());
            for request in self.first.take().into_iter().chain(waiting) {
                let _ = request.send(is_read);
            }
            if !self.wait(self.pause()).await {
                return;
            }
        }
    }

    /// Waits for the next read; false if nobody can use it.
    async fn wait(&mut self, pause: Duration) -> bool {
        let mut due = pin!(sleep_until(Instant::now() + pause));
        loop {
            let request = tokio::select! {
                () = &mut due => return true,
                request = self.requests.recv() => request,
            };
            let Some(request) = request else { return false };
            let now = Instant::now();
            if self.rested_at.is_none_or(|rested_at| rested_at <= now) {
                self.rested_at = Some(now + MIN_PAUSE);
                self.first = Some(request);
                return true;
            }
            let _ = request.send(false);
        }
    }

    fn pause(&self) -> Duration {
        match self.failed_count {
            0 => self.every,
            count => {
                let doubled = FIRST_RETRY.saturating_mul(1 << (count - 1).min(16));
                doubled.min(MIN_PAUSE).min(self.every)
            }
        }
    }

    async fn read(&mut self, web: &WebClient) -> bool {
        let text = match &self.source {
            Source::Url(url) => fetch(web, url).await,
            Source::File(path) => read_file(path),
        };
        let is_file = matches!(self.source, Source::File(_));
        let read = text.and_then(|text| read_jwks(&text, is_file).map_err(|it| it.to_string()));
        match read {
            Ok(ReadJwks { keys, skipped_count }) => {
                tracing::debug!(keys = keys.count(), skipped = skipped_count, "key set read");
                *self.current.write() = Some(Arc::new(keys));
                self.failed_count = 0;
                true
            }
            Err(error) => {
                tracing::warn!(error, "key set unavailable; the last keys stay");
                self.failed_count = self.failed_count.saturating_add(1);
                false
            }
        }
    }
}

async fn fetch(web: &WebClient, url: &str) -> Result<Bytes, String> {
    let request = WebRequest {
        method: Method::GET,
        url: url.to_owned(),
        headers: vec![("accept".to_owned(), b"application/json".to_vec())],
        body: Bytes::new(),
        timeout: TIMEOUT,
        max_answer_bytes: MAX_JWKS_BYTES,
    };
    match web.send(request).await {
        Ok(answer) if answer.status == 200 => Ok(answer.body),
        Ok(answer) => Err(format!("status {}", answer.status)),
        Err(error) => Err(error.to_string()),
    }
}

fn read_file(path: &Path) -> Result<Bytes, String> {
    let read = read_bounded(path, MAX_JWKS_BYTES).map(Bytes::from);
    read.map_err(|error| error.to_string())
}
