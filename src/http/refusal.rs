//! Refusals: JSON with a stable code, and the form in which a browser can take a temporary
//! one.

use std::time::Duration;

use actix_web::{
    HttpResponse,
    dev::RequestHead,
    http::{
        StatusCode,
        header::{ALLOW, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER},
    },
};
use serde::Serialize;

use super::publish::Answers;
use crate::{
    error::{ChangeError, FanOutError, FollowError, PublishError, SubscribeError},
    follow::GraphError,
    wire::{ShutdownReason, control::Shutdown, encode},
};

/// Seconds after which a temporarily refused client should try again, before jitter.
const RETRY_AFTER_SECONDS: u64 = 2;

/// `{"error":{"code":…,"message":…}}` and what else there is to say.
#[derive(Debug, Serialize)]
pub(crate) struct Refusal {
    #[serde(skip)]
    pub status: StatusCode,
    pub error: ErrorBody,
    /// Of an array: the answers to the events before the one that was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub published: Option<Vec<Answers>>,
}

#[derive(Debug, Serialize)]
pub(crate) struct ErrorBody {
    pub code: &'static str,
    pub message: String,
    /// Of an array: which of its events is refused, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<usize>,
}

impl Refusal {
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        let error = ErrorBody { code, message: message.into(), index: None };
        Self { status, error, published: None }
    }

    /// The answer. A temporary refusal says when to try again.
    pub fn response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status);
        if is_temporary(self.status) {
            response.insert_header((RETRY_AFTER, retry_after_seconds().to_string()));
        }
        response.json(self)
    }
}

impl From<&PublishError> for Refusal {
    fn from(error: &PublishError) -> Self {
        let status = match error.code() {
            "payload_too_large" => StatusCode::PAYLOAD_TOO_LARGE,
            "at_capacity" | "draining" | "bridge_down" | "unconfirmed" => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            "internal" => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        };
        Self::new(status, error.code(), error.to_string())
    }
}

impl From<&SubscribeError> for Refusal {
    fn from(error: &SubscribeError) -> Self {
        let status = match error {
            SubscribeError::AtCapacity
            | SubscribeError::Draining
            | SubscribeError::BridgeDown
            | SubscribeError::GraphDown => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_REQUEST,
        };
        Self::new(status, error.code(), error.to_string())
    }
}

impl From<&FanOutError> for Refusal {
    fn from(error: &FanOutError) -> Self {
        let status = match error {
            FanOutError::User(_) => StatusCode::BAD_REQUEST,
            FanOutError::Publish(error) => return Self::from(error),
            FanOutError::Graph(_) | FanOutError::Partly(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, error.code(), error.to_string())
    }
}

impl From<&ChangeError> for Refusal {
    fn from(error: &ChangeError) -> Self {
        let status = match error {
            ChangeError::UnknownStream => StatusCode::NOT_FOUND,
            ChangeError::BridgeDown | ChangeError::Unconfirmed => StatusCode::SERVICE_UNAVAILABLE,
            ChangeError::Topic(_) | ChangeError::TooManyTopics { .. } => StatusCode::BAD_REQUEST,
        };
        Self::new(status, error.code(), error.to_string())
    }
}

impl From<&FollowError> for Refusal {
    fn from(error: &FollowError) -> Self {
        if let FollowError::Graph(GraphError::Unavailable(source)) = error {
            // What an application's store says is not for its clients.
            tracing::warn!(error = %source, "the follower graph cannot be had");
        }
        let status = match error.code() {
            "bridge_down" | "unconfirmed" | "graph_down" => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_REQUEST,
        };
        Self::new(status, error.code(), error.to_string())
    }
}

/// The answer to a stream that is not opened. A browser's `EventSource` gives up for good on
/// any status but 200, so a temporary refusal reaches it as a stream that ends at once.
pub(crate) fn stream_refusal(head: &RequestHead, error: &SubscribeError) -> HttpResponse {
    let reason = match error {
        SubscribeError::AtCapacity => ShutdownReason::Capacity,
        SubscribeError::Draining | SubscribeError::BridgeDown | SubscribeError::GraphDown => {
            ShutdownReason::Drain
        }
        _ => return Refusal::from(error).response(),
    };
    if !head.headers.contains_key("sec-fetch-mode") {
        return Refusal::from(error).response();
    }
    let back_in = Duration::from_secs(RETRY_AFTER_SECONDS).mul_f64(1.0 + rand::random::<f64>());
    let reconnect_ms = back_in.as_millis() as u64;
    let shutdown = Shutdown { reason, reconnect_ms };
    stream_head().body(encode::retry(reconnect_ms) + &shutdown.encode(""))
}

/// The head of every event stream.
pub(crate) fn stream_head() -> actix_web::HttpResponseBuilder {
    let mut head = HttpResponse::Ok();
    head.insert_header((CONTENT_TYPE, "text/event-stream; charset=utf-8"))
        .insert_header(("Cache-Control", "no-cache, no-transform"))
        .insert_header(("X-Accel-Buffering", "no"))
        // Keeps compressing middleware and proxies off: they would hold events back.
        .insert_header((CONTENT_ENCODING, "identity"))
        // A stream is its connection's last answer: so a drained instance is idle at once.
        .force_close();
    head
}

/// 405 with the methods that are allowed.
pub(crate) fn method_not_allowed(methods: &[&str]) -> HttpResponse {
    let methods = methods.join(", ");
    let message = format!("this resource takes {methods}");
    let refusal = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message);
    let mut response = refusal.response();
    if let Ok(value) = methods.parse() {
        response.headers_mut().insert(ALLOW, value);
    }
    response
}

/// 404.
#[cfg(feature = "cli")]
pub(crate) async fn not_found() -> HttpResponse {
    Refusal::new(StatusCode::NOT_FOUND, "not_found", "there is nothing at this path").response()
}

fn is_temporary(status: StatusCode) -> bool {
    matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS)
}

/// Between once and twice the base, so that the refused do not return together.
fn retry_after_seconds() -> u64 {
    RETRY_AFTER_SECONDS + rand::random_range(0..=RETRY_AFTER_SECONDS)
}
