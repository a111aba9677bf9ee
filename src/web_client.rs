//! The hub's own requests to other servers, for key sets and for the application's decisions. One
//! thread sends them, whatever runtime the callers use.
//!
//! Bounds: [`MAX_WAITING`] requests wait, [`MAX_IN_FLIGHT`] are in flight; further ones fail at
//! once. Answers are bounded in bytes, and every request has a time limit.

use std::{io, sync::Arc, time::Duration};

use awc::{Client, Connector, http::Method};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::threads::start_alone;

/// Requests waiting for the thread.
const MAX_WAITING: usize = 1024;

/// Requests in flight, each with a connection of its own.
const MAX_IN_FLIGHT: usize = 64;

/// Attempts of one request: the server may close an idle connection just as it is used again.
const MAX_ATTEMPTS: usize = 2;

/// One request. It may be sent twice.
#[derive(Clone)]
pub(crate) struct WebRequest {
    pub method: Method,
    pub url: String,
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Bytes,
    /// Time limit for the whole answer, waiting included.
    pub timeout: Duration,
    pub max_answer_bytes: usize,
}

/// An answer with any status.
pub(crate) struct WebAnswer {
    pub status: u16,
    pub body: Bytes,
}

/// Why there is no answer. The text has nothing of the request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WebError {
    #[error("too many requests in flight")]
    Busy,
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    #[error("the answer has more than {0} bytes")]
    TooLarge(usize),
    #[error("{0}")]
    Broken(String),
}

struct Exchange {
    request: WebRequest,
    answer: oneshot::Sender<Result<WebAnswer, WebError>>,
}

/// A handle of the sending thread.
#[derive(Clone)]
pub(crate) struct WebClient {
    exchanges: mpsc::Sender<Exchange>,
}

impl WebClient {
    /// Starts the thread. It ends when `stop` is cancelled. `also` spawns further local tasks on it.
    pub fn start(
        stop: &CancellationToken,
        also: impl FnOnce(&Self) + Send + 'static,
    ) -> io::Result<Self> {
        let (exchanges, received) = mpsc::channel(MAX_WAITING);
        let client = Self { exchanges };
        let own = client.clone();
        start_alone("fanfare-web", stop, move || {
            tokio::task::spawn_local(send_all(received));
            also(&own);
        })?;
        Ok(client)
    }

    /// Sends a request and reads the whole answer. Redirects are not followed.
    pub async fn send(&self, request: WebRequest) -> Result<WebAnswer, WebError> {
        let limit = request.timeout;
        let (answer, answered) = oneshot::channel();
        let exchange = Exchange { request, answer };
        self.exchanges.try_send(exchange).map_err(|_| WebError::Busy)?;
        match timeout(limit, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(WebError::Broken("the hub stops".to_owned())),
            Err(_) => Err(WebError::TimedOut(limit)),
        }
    }
}

async fn send_all(mut exchanges: mpsc::Receiver<Exchange>) {
    let client = Client::builder()
        .connector(Connector::new().rustls_0_23(Arc::new(tls())).limit(MAX_IN_FLIGHT))
        .disable_timeout()
        .disable_redirects()
        .add_default_header(("user-agent", concat!("fanfare/", env!("CARGO_PKG_VERSION"))))
        .finish();
    let places = Arc::new(Semaphore::new(MAX_IN_FLIGHT));
    while let Some(Exchange { request, mut answer }) = exchanges.recv().await {
        let Ok(place) = places.clone().acquire_owned().await else { break };
        let client = client.clone();
        tokio::task::spawn_local(async move {
            let _place = place;
            // A caller past its time limit is gone, and so is the use of the answer.
            tokio::select! {
                sent = send(&client, &request) => drop(answer.send(sent)),
                () = answer.closed() => {}
            }
        });
    }
}

async fn send(client: &Client, request: &WebRequest) -> Result<WebAnswer, WebError> {
    let mut attempt = 1;
    loop {
        match send_once(client, request).await {
            Err(WebError::Broken(_)) if attempt < MAX_ATTEMPTS => attempt += 1,
            result => return result,
        }
    }
}

async fn send_once(client: &Client, request: &WebRequest) -> Result<WebAnswer, WebError> {
    let mut sending = client.request(request.method.clone(), &request.url);
    for (name, value) in &request.headers {
        sending = sending.append_header((name.as_str(), value.as_slice()));
    }
    let sent = sending.send_body(request.body.clone()).await;
    let mut answer = sent.map_err(|error| WebError::Broken(error.to_string()))?;
    let mut body = BytesMut::new();
    while let Some(chunk) = answer.next().await {
        let chunk = chunk.map_err(|error| WebError::Broken(error.to_string()))?;
        if body.len() + chunk.len() > request.max_answer_bytes {
            return Err(WebError::TooLarge(request.max_answer_bytes));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(WebAnswer { status: answer.status().as_u16(), body: body.freeze() })
}

/// TLS 1.2 and up, with the authorities of the system (`SSL_CERT_FILE` names others).
fn tls() -> ClientConfig {
    let mut authorities = RootCertStore::empty();
    let loaded = rustls_native_certs::load_native_certs();
    if let Some(error) = loaded.errors.first() {
        tracing::warn!(%error, "some certificate authorities of the system are unreadable");
    }
    authorities.add_parsable_certificates(loaded.certs);
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has the default versions")
        .with_root_certificates(authorities)
        .with_no_client_auth()
}
