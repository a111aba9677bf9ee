//! Refusals: JSON with a stable code, and the form of a temporary refusal for browsers.

use std::{fmt, time::Duration};

use actix_web::{
    HttpResponse, ResponseError,
    dev::RequestHead,
    http::{
        StatusCode,
        header::{
            ALLOW, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, RETRY_AFTER, USER_AGENT,
            WWW_AUTHENTICATE,
        },
    },
};
use fanfare_core::{
    error::{
        AccessError, ChangeError, ErrorCode, FanOutError, FollowError, PublishError, SubscribeError,
    },
    event::EventError,
    follow::GraphError,
    sse::{ShutdownReason, control::Shutdown, encode},
    user::UserError,
};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::errors::status_of;
use crate::hub::{ActingError, RevokeError};

/// Base of `Retry-After` for a temporary refusal, in seconds, before jitter.
const RETRY_AFTER_SECONDS: u64 = 2;

/// The answer to a refused request: `{"error":{"code":…,"message":…}}`. The library's errors become
/// one with `?`.
#[derive(Debug, Serialize)]
pub struct Refusal {
    pub(crate) error: RefusalBody,
    /// For an array: the answers to the events before the refused one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) published: Option<Box<RawValue>>,
    /// For a browser's stream: the reason of the `shutdown`.
    #[serde(skip)]
    as_stream: Option<ShutdownReason>,
    /// For a refusal of access control: its word in metrics and logs.
    #[serde(skip)]
    access: Option<&'static str>,
}

/// Marks an answer as a refusal of access control, with the word in metrics and logs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RefusedAccess(pub &'static str);

#[derive(Debug, Serialize)]
pub(crate) struct RefusalBody {
    #[serde(serialize_with = "as_text")]
    pub code: ErrorCode,
    pub message: String,
    /// For an array: the index of the refused event, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<usize>,
    /// The topics of the request without a grant.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub topics: Vec<String>,
}

fn as_text<S: Serializer>(code: &ErrorCode, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(code.as_str())
}

impl Refusal {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let error = RefusalBody { code, message: message.into(), index: None, topics: Vec::new() };
        Self { error, published: None, as_stream: None, access: None }
    }

    /// Marks it as a refusal of access control.
    pub(crate) fn of_access(self, reason: &'static str) -> Self {
        Self { access: Some(reason), ..self }
    }

    /// The word in metrics and logs, for a refusal of access control.
    pub(crate) fn access_reason(&self) -> Option<&'static str> {
        self.access
    }

    fn response(&self) -> HttpResponse {
        if let Some(reason) = self.as_stream {
            return short_stream(reason);
        }
        let mut response = HttpResponse::build(self.status_code());
        if self.error.code.is_temporary() {
            response.insert_header((RETRY_AFTER, retry_after_seconds().to_string()));
        }
        if self.error.code == ErrorCode::Unauthenticated {
            response.insert_header((WWW_AUTHENTICATE, "Bearer"));
        }
        response.json(self)
    }

    /// Names the topics of the request without a grant.
    pub(crate) fn with_topics(mut self, topics: Vec<String>) -> Self {
        self.error.topics = topics;
        self
    }

    /// The code. Its meaning never changes.
    pub fn code(&self) -> &'static str {
        self.error.code.as_str()
    }

    /// The status of the answer. A browser's stream gets a short stream with 200 instead.
    pub fn status(&self) -> StatusCode {
        status_of(self.error.code)
    }

    /// The text for people.
    pub fn message(&self) -> &str {
        &self.error.message
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.error.code, self.error.message)
    }
}

impl ResponseError for Refusal {
    fn status_code(&self) -> StatusCode {
        self.status()
    }

    /// The refusal as JSON. A temporary refusal has a `Retry-After`.
    fn error_response(&self) -> HttpResponse {
        let mut response = self.response();
        if let Some(reason) = self.access {
            response.extensions_mut().insert(RefusedAccess(reason));
        }
        response
    }
}

/// Converts the hub's errors to refusals, with their code and text.
macro_rules! refusals {
    ($($error:ty),*) => {$(
        impl From<$error> for Refusal {
            fn from(error: $error) -> Self {
                Self::new(error.error_code(), error.to_string())
            }
        }
    )*};
}

impl From<EventError> for Refusal {
    fn from(error: EventError) -> Self {
        PublishError::from(error).into()
    }
}

refusals!(FanOutError);

impl From<AccessError> for Refusal {
    fn from(error: AccessError) -> Self {
        let mut refusal =
            Self::new(error.error_code(), error.to_string()).of_access(error.reason());
        if let AccessError::Forbidden { names } = error {
            refusal.error.topics = names;
        }
        refusal
    }
}

/// Converts errors with a refusal of access control among them.
macro_rules! refusals_with_access {
    ($($error:ident),*) => {$(
        impl From<$error> for Refusal {
            fn from(error: $error) -> Self {
                match error {
                    $error::Access(error) => error.into(),
                    error => Self::new(error.error_code(), error.to_string()),
                }
            }
        }
    )*};
}

refusals_with_access!(PublishError, SubscribeError, ChangeError);

impl From<ActingError> for Refusal {
    fn from(error: ActingError) -> Self {
        match error {
            ActingError::User(error) => error.into(),
            ActingError::Access(error) => error.into(),
        }
    }
}

impl From<FollowError> for Refusal {
    fn from(error: FollowError) -> Self {
        if let FollowError::Graph(GraphError::Unavailable(source)) = &error {
            // The text of the application's store goes to the log: clients must not see it.
            tracing::warn!(error = %source, "follow graph unavailable");
        }
        Self::new(error.error_code(), error.to_string())
    }
}

impl From<RevokeError> for Refusal {
    fn from(error: RevokeError) -> Self {
        Self::new(error.error_code(), error.to_string())
    }
}

impl From<UserError> for Refusal {
    fn from(error: UserError) -> Self {
        Self::new(ErrorCode::BadUser, error.to_string())
    }
}

/// The refusal of a body with invalid or unexpected JSON.
pub(crate) fn bad_json(error: serde_json::Error) -> Refusal {
    Refusal::new(ErrorCode::BadJson, error.to_string())
}

/// The answer to a refused stream. A browser's `EventSource` gives up on any status except 200
/// (WHATWG HTML §9.2), so a temporary refusal reaches it as a short stream with a retry time.
pub(crate) fn stream_refusal(head: &RequestHead, error: SubscribeError) -> Refusal {
    let reason = match &error {
        SubscribeError::AtCapacity => Some(ShutdownReason::Capacity),
        SubscribeError::Draining
        | SubscribeError::BridgeDown
        | SubscribeError::GraphDown
        | SubscribeError::Access(AccessError::Down) => Some(ShutdownReason::Drain),
        _ => None,
    };
    Refusal { as_stream: reason.filter(|_| is_browser(head)), ..Refusal::from(error) }
}

/// A stream with only a retry time and `shutdown`.
fn short_stream(reason: ShutdownReason) -> HttpResponse {
    let back_in = Duration::from_secs(RETRY_AFTER_SECONDS).mul_f64(1.0 + rand::random::<f64>());
    let reconnect_ms = back_in.as_millis() as u64;
    let shutdown = Shutdown { reason, reconnect_ms };
    stream_head().body(encode::retry(reconnect_ms) + &shutdown.encode(""))
}

/// Whether a browser sent the request. Over plain HTTP, browsers send no `Sec-Fetch-Mode` except to
/// loopback; but the agent of every browser begins with `Mozilla/`, and few programs name one.
fn is_browser(head: &RequestHead) -> bool {
    let agent = head.headers.get(USER_AGENT).map(HeaderValue::as_bytes).unwrap_or_default();
    head.headers.contains_key("sec-fetch-mode") || agent.starts_with(b"Mozilla/")
}

/// The head of every event stream.
pub(crate) fn stream_head() -> actix_web::HttpResponseBuilder {
    let mut head = HttpResponse::Ok();
    head.insert_header((CONTENT_TYPE, "text/event-stream; charset=utf-8"))
        .insert_header(("Cache-Control", "no-cache, no-transform"))
        .insert_header(("X-Accel-Buffering", "no"))
        // Without this header, middleware and proxies may compress, and hold events back.
        .insert_header((CONTENT_ENCODING, "identity"))
        // A stream is its connection's last answer: a drained instance has no idle connections.
        .force_close();
    head
}

/// A 405 with the allowed methods, in its text and in `Allow`.
pub(crate) fn method_not_allowed(methods: &[&str]) -> HttpResponse {
    let methods = methods.join(", ");
    let message = format!("this resource allows only {methods}");
    let refusal = Refusal::new(ErrorCode::MethodNotAllowed, message);
    let mut response = refusal.error_response();
    if let Ok(value) = methods.parse() {
        response.headers_mut().insert(ALLOW, value);
    }
    response
}

/// A random time of once to twice the base: refused clients must not return together.
pub(crate) fn retry_after_seconds() -> u64 {
    RETRY_AFTER_SECONDS + rand::random_range(0..=RETRY_AFTER_SECONDS)
}
