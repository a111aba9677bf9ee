//! The HTTP client of the commands: address, token, deadlines and refusals. It knows no
//! endpoint's format and never retries; callers retry with [`Backoff`].

use std::{
    borrow::Cow,
    fmt,
    io::{IsTerminal, Write},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use awc::{
    Connector,
    error::PayloadError,
    http::{
        Method, StatusCode,
        header::{
            ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HeaderMap, LOCATION, RETRY_AFTER,
            USER_AGENT,
        },
    },
};
use bytes::{Bytes, BytesMut};
use fanfare_bench::hub_address::{ErrorBody, authorization, base_url};
use futures_util::{Stream, StreamExt};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::time::timeout;

use crate::{CliError, hub_connection::HubConnection, terminal::escaped};

/// For name resolution and TCP together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// From the request's last byte to the answer's head, connecting included.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Slowest accepted upload: the deadline of a request grows with its body.
const MIN_UPLOAD_BYTES_PER_SECOND: usize = 16 * 1024;

/// Bytes read of a refusal's body. A hub sends a few hundred.
const MAX_REFUSAL_BYTES: usize = 64 * 1024;

/// Bytes read of a JSON answer, by far more than `/stats` has.
const MAX_JSON_BYTES: usize = 1024 * 1024;

/// Why there is no response, or only a part of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HubError {
    /// No connection, a lost connection, or a silent hub. The hub may have accepted the request.
    #[error("{0}")]
    Broken(String),
    #[error(transparent)]
    Refused(#[from] HubRefusal),
}

impl HubError {
    pub fn broken(why: impl fmt::Display) -> Self {
        Self::Broken(why.to_string())
    }
}

/// A status other than 2xx, with the hub's error.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct HubRefusal {
    pub status: StatusCode,
    /// Empty if the response is not from a hub.
    pub code: String,
    pub message: String,
    pub retry_after: Option<Duration>,
}

impl std::error::Error for HubRefusal {}

impl fmt::Display for HubRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the hub answered {}", self.status)?;
        if !self.code.is_empty() {
            write!(f, ", {}", self.code)?;
        }
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        if let Some(retry_after) = self.retry_after {
            write!(f, " (try again in {} s)", retry_after.as_secs())?;
        }
        Ok(())
    }
}

impl HubRefusal {
    /// Whether a retry can succeed: 429 and 503. The hub has not accepted the request.
    pub fn is_temporary(&self) -> bool {
        matches!(self.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
    }

    fn new(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct RefusalJson {
            error: ErrorBody,
        }
        let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let error = match serde_json::from_slice::<RefusalJson>(body) {
            Ok(body) => body.error,
            Err(_) => {
                let location = header(LOCATION).filter(|_| status.is_redirection());
                let message = location.map(|to| format!("moved to {to}")).unwrap_or_default();
                ErrorBody { code: String::new(), message }
            }
        };
        // A hub sends seconds, never a date.
        let seconds = header(RETRY_AFTER).and_then(|value| value.trim().parse().ok());
        let retry_after = seconds.map(Duration::from_secs);
        Self { status, code: error.code, message: error.message, retry_after }
    }
}

/// One request.
pub(crate) struct HubRequest {
    method: Method,
    /// Below the hub's address, with the leading slash.
    path: Cow<'static, str>,
    content_type: Option<&'static str>,
    body: Bytes,
    /// Longest wait for the head of the answer, the upload not counted.
    deadline: Duration,
}

impl HubRequest {
    pub fn post(path: &'static str, content_type: &'static str, body: Vec<u8>) -> Self {
        let content_type = Some(content_type);
        Self {
            method: Method::POST,
            path: path.into(),
            content_type,
            body: body.into(),
            deadline: HEAD_TIMEOUT,
        }
    }

    /// A request without a body.
    pub fn of(method: Method, path: impl Into<Cow<'static, str>>) -> Self {
        Self {
            method,
            path: path.into(),
            content_type: None,
            body: Bytes::new(),
            deadline: HEAD_TIMEOUT,
        }
    }

    /// For a request with much work.
    pub fn within(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }
}

/// Connections to one hub. It needs a runtime with local tasks (`spawn_local`).
pub(crate) struct HubClient {
    http: awc::Client,
    base: String,
}

impl HubClient {
    /// Checks address and token, without connecting.
    pub fn new(connection: &HubConnection) -> Result<Self, CliError> {
        let args = &connection.hub;
        let base = base_url(&args.url)?;
        let connector =
            Connector::new().timeout(CONNECT_TIMEOUT).handshake_timeout(CONNECT_TIMEOUT);
        let connector = match connection.tls()? {
            Some(tls) => connector.rustls_0_23(Arc::new(tls)),
            None => connector,
        };
        // This module sets its own deadlines: awc's timeout would end a stream after 5 s.
        let mut http = awc::Client::builder()
            .connector(connector)
            .disable_timeout()
            .disable_redirects()
            .add_default_header((USER_AGENT, concat!("fanfare/", env!("CARGO_PKG_VERSION"))))
            .add_default_header((ACCEPT_ENCODING, "identity"));
        if let Some(token) = args.token.as_ref().filter(|token| !token.is_empty()) {
            http = http.add_default_header((AUTHORIZATION, authorization(token)?));
        }
        Ok(Self { http: http.finish(), base })
    }

    /// Sends a request and waits for the response head.
    ///
    /// # Errors
    /// A status other than 2xx, a connection error, or no head before the deadline.
    pub async fn send(&self, request: HubRequest) -> Result<HubResponse, HubError> {
        let seconds = request.body.len() / MIN_UPLOAD_BYTES_PER_SECOND;
        let deadline = request.deadline + Duration::from_secs(seconds as u64);
        let mut head = self.http.request(request.method, format!("{}{}", self.base, request.path));
        if let Some(content_type) = request.content_type {
            head = head.insert_header((CONTENT_TYPE, content_type));
        }
        let sending = head.send_body(request.body);
        let response = match timeout(deadline, sending).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(HubError::Broken(self.describe(&error))),
            Err(_) => {
                let message = format!("{} did not answer within {deadline:?}", self.base);
                return Err(HubError::Broken(message));
            }
        };
        let (status, headers) = (response.status(), response.headers().clone());
        let answer = HubResponse { status, headers, body: Box::pin(response) };
        if status.is_success() { Ok(answer) } else { Err(answer.into_refusal().await.into()) }
    }

    /// Sends a request and reads its JSON answer.
    ///
    /// # Errors
    /// As [`HubClient::send`], or an answer of another form.
    pub async fn json<T: DeserializeOwned>(&self, request: HubRequest) -> Result<T, HubError> {
        let answer = self.send(request).await?.read(MAX_JSON_BYTES).await?;
        serde_json::from_slice(&answer)
            .map_err(|error| HubError::Broken(format!("no fanfare hub at this address: {error}")))
    }

    fn describe(&self, error: &awc::error::SendRequestError) -> String {
        use awc::error::{ConnectError, SendRequestError};
        match error {
            SendRequestError::Connect(ConnectError::Disconnected) => {
                format!("{} closed the connection without an answer", self.base)
            }
            SendRequestError::Connect(error) => format!("cannot connect to {}: {error}", self.base),
            error => format!("connection to {} lost: {error}", self.base),
        }
    }
}

/// A response: its head, and its body as a stream.
pub(crate) struct HubResponse {
    pub status: StatusCode,
    headers: HeaderMap,
    body: Pin<Box<dyn Stream<Item = Result<Bytes, PayloadError>>>>,
}

impl HubResponse {
    pub fn is_event_stream(&self) -> bool {
        let content_type = self.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let essence = content_type.and_then(|value| value.split(';').next());
        essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case("text/event-stream"))
    }

    /// The next bytes; None at the end. A truncated body can look complete, so the caller must
    /// check its content.
    pub async fn next_chunk(&mut self, max_silence: Duration) -> Result<Option<Bytes>, HubError> {
        match timeout(max_silence, self.body.next()).await {
            Ok(None) => Ok(None),
            Ok(Some(Ok(chunk))) => Ok(Some(chunk)),
            Ok(Some(Err(error))) => Err(HubError::Broken(format!("connection lost: {error}"))),
            Err(_) => Err(HubError::Broken(format!("no data from the hub for {max_silence:?}"))),
        }
    }

    /// The whole body, truncated at `max_bytes`.
    pub async fn read(mut self, max_bytes: usize) -> Result<Bytes, HubError> {
        let mut body = BytesMut::new();
        while let Some(chunk) = self.next_chunk(HEAD_TIMEOUT).await? {
            let room = max_bytes - body.len();
            body.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if body.len() == max_bytes {
                break;
            }
        }
        Ok(body.freeze())
    }

    async fn into_refusal(mut self) -> HubRefusal {
        let headers = std::mem::take(&mut self.headers);
        let status = self.status;
        // Without a body, the status alone describes the refusal.
        let body = self.read(MAX_REFUSAL_BYTES).await.unwrap_or_default();
        HubRefusal::new(status, &headers, &body)
    }
}

/// Waits with doubling bounds. Each wait is a random part of its bound, so clients disconnected
/// together do not return together.
#[derive(Debug)]
pub(crate) struct Backoff {
    first: Duration,
    max: Duration,
    attempt_count: u32,
}

impl Backoff {
    pub fn new(first: Duration, max: Duration) -> Self {
        Self { first, max, attempt_count: 0 }
    }

    /// Starts again with the shortest bound, after a success.
    pub fn reset(&mut self) {
        self.attempt_count = 0;
    }

    /// The next wait, never shorter than `at_least`, the hub's `Retry-After`.
    pub fn next(&mut self, at_least: Option<Duration>) -> Duration {
        let factor = 2_u32.saturating_pow(self.attempt_count);
        self.attempt_count = self.attempt_count.saturating_add(1);
        let bound = self.first.saturating_mul(factor).min(self.max);
        bound.mul_f64(rand::random()).max(at_least.unwrap_or_default())
    }
}

/// Prints a line on standard error. A closed standard error is ignored.
pub(crate) fn note(line: impl fmt::Display) {
    let mut stderr = std::io::stderr();
    let line = line.to_string();
    let _ = match stderr.is_terminal() {
        true => writeln!(stderr, "{}", escaped(&line)),
        false => writeln!(stderr, "{line}"),
    };
}

#[cfg(test)]
mod tests {
    use awc::http::header::HeaderValue;

    use super::*;

    #[test]
    fn a_refusal_says_all_that_the_hub_said() {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, HeaderValue::from_static("3"));
        let body = br#"{"error":{"code":"at_capacity","message":"full","index":1}}"#;
        let refusal = HubRefusal::new(StatusCode::SERVICE_UNAVAILABLE, &headers, body);
        assert!(refusal.is_temporary());
        assert_eq!(
            refusal.to_string(),
            "the hub answered 503 Service Unavailable, at_capacity: full (try again in 3 s)"
        );
        let refusal = HubRefusal::new(StatusCode::NOT_FOUND, &HeaderMap::new(), b"<html>");
        assert_eq!(refusal.to_string(), "the hub answered 404 Not Found");
    }

    #[test]
    fn waits_grow_to_their_bound_and_heed_the_hub() {
        let second = Duration::from_secs(1);
        let mut backoff = Backoff::new(second, 30 * second);
        for attempt in 0..100_u32 {
            let bound = second.saturating_mul(2_u32.saturating_pow(attempt)).min(30 * second);
            assert!(backoff.next(None) <= bound);
        }
        assert!(backoff.next(Some(40 * second)) == 40 * second);
        backoff.reset();
        assert!(backoff.next(None) <= second);
    }
}
