//! HTTP to a hub, for the commands that talk to one: its address, the token, deadlines and
//! refusals. Knows no endpoint's format and never retries; [`Backoff`] is for those who do.

use std::{fmt, io::Write, pin::Pin, time::Duration};

use awc::{
    Connector,
    error::PayloadError,
    http::{
        StatusCode,
        header::{
            ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HeaderMap, LOCATION, RETRY_AFTER,
            USER_AGENT,
        },
    },
};
use bytes::{Bytes, BytesMut};
use fanfare_bench::hub_address::{ErrorBody, HubArgs, authorization, base_url};
use futures_util::{Stream, StreamExt};
use serde::Deserialize;
use tokio::time::timeout;

use crate::CliError;

/// For name resolution and TCP together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// From the request's last byte to the answer's head, connecting included.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Slowest upload that is waited for: a request's deadline grows with its body.
const MIN_UPLOAD_BYTES_PER_SECOND: usize = 16 * 1024;

/// What is read of a refusal's body; a hub's are some hundred bytes.
const MAX_REFUSAL_BYTES: usize = 64 * 1024;

/// Why there is no answer, or no more of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HubError {
    /// No connection, or it broke, or the hub is silent. Whether it took the request is not
    /// known.
    #[error("{0}")]
    Broken(String),
    #[error(transparent)]
    Refused(#[from] HubRefusal),
}

/// A status that is not 2xx, and what the hub said with it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct HubRefusal {
    pub status: StatusCode,
    /// Empty where the answer is not a hub's.
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
    /// The hub has not taken the request and would take it later.
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
                let message = location.map(|to| format!("it is at {to}")).unwrap_or_default();
                ErrorBody { code: String::new(), message }
            }
        };
        // The other form, a date, no hub sends.
        let seconds = header(RETRY_AFTER).and_then(|value| value.trim().parse().ok());
        let retry_after = seconds.map(Duration::from_secs);
        Self { status, code: error.code, message: error.message, retry_after }
    }
}

/// A body to send.
pub(crate) struct HubRequest {
    /// Below the hub's address, with the first slash.
    pub path: &'static str,
    pub content_type: &'static str,
    pub body: Bytes,
}

/// Connections to one hub. Lives in an actix runtime.
pub(crate) struct HubClient {
    http: awc::Client,
    base: String,
}

impl HubClient {
    /// Checks address and token; connects to nothing yet.
    pub fn new(args: &HubArgs) -> Result<Self, CliError> {
        let base = base_url(&args.url)?;
        // The deadlines are ours: awc's own would also end a stream after five seconds.
        let mut http = awc::Client::builder()
            .connector(Connector::new().timeout(CONNECT_TIMEOUT))
            .disable_timeout()
            .disable_redirects()
            .add_default_header((USER_AGENT, concat!("fanfare/", env!("CARGO_PKG_VERSION"))))
            .add_default_header((ACCEPT_ENCODING, "identity"));
        if let Some(token) = args.token.as_ref().filter(|token| !token.is_empty()) {
            http = http.add_default_header((AUTHORIZATION, authorization(token)?));
        }
        Ok(Self { http: http.finish(), base })
    }

    /// Sends a request and waits for the answer's head. All but 2xx is an error.
    pub async fn post(&self, request: HubRequest) -> Result<HubResponse, HubError> {
        let seconds = request.body.len() / MIN_UPLOAD_BYTES_PER_SECOND;
        let deadline = HEAD_TIMEOUT + Duration::from_secs(seconds as u64);
        let sending = self
            .http
            .post(format!("{}{}", self.base, request.path))
            .insert_header((CONTENT_TYPE, request.content_type))
            .send_body(request.body);
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

    fn describe(&self, error: &awc::error::SendRequestError) -> String {
        use awc::error::{ConnectError, SendRequestError};
        match error {
            SendRequestError::Connect(ConnectError::Disconnected) => {
                format!("{} closed the connection without an answer", self.base)
            }
            SendRequestError::Connect(error) => format!("cannot connect to {}: {error}", self.base),
            error => format!("the connection to {} broke: {error}", self.base),
        }
    }
}

/// A head that has arrived, and a body that arrives.
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

    /// The next bytes; none at the end. A body that is cut short may end as if it were whole:
    /// what it holds has to show.
    pub async fn next_chunk(&mut self, max_silence: Duration) -> Result<Option<Bytes>, HubError> {
        match timeout(max_silence, self.body.next()).await {
            Ok(None) => Ok(None),
            Ok(Some(Ok(chunk))) => Ok(Some(chunk)),
            Ok(Some(Err(error))) => Err(HubError::Broken(format!("the connection broke: {error}"))),
            Err(_) => Err(HubError::Broken(format!("the hub was silent for {max_silence:?}"))),
        }
    }

    /// The whole body. A longer one is cut.
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
        // The status says enough if the body does not come.
        let body = self.read(MAX_REFUSAL_BYTES).await.unwrap_or_default();
        HubRefusal::new(status, &headers, &body)
    }
}

/// Waits that double, each a random part of its bound, so that clients that lost the hub
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

    /// Something worked: the next wait is a short one.
    pub fn reset(&mut self) {
        self.attempt_count = 0;
    }

    /// How long to wait now; never less than what the hub asked for.
    pub fn next(&mut self, at_least: Option<Duration>) -> Duration {
        let factor = 2_u32.saturating_pow(self.attempt_count);
        self.attempt_count = self.attempt_count.saturating_add(1);
        let bound = self.first.saturating_mul(factor).min(self.max);
        bound.mul_f64(rand::random()).max(at_least.unwrap_or_default())
    }
}

/// Prints a line for the user. That standard error is closed is no reason to stop.
pub(crate) fn note(line: impl fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
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
