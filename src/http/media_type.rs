//! The media type of a request's body.

use actix_web::{
    HttpMessage, HttpRequest,
    http::header::{CONTENT_ENCODING, ORIGIN},
};
use fanfare_core::error::ErrorCode;

use super::{refusal::Refusal, upgrade::refuse_websocket};

/// The form of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MediaType {
    Json,
    /// One JSON value per line.
    JsonLines,
}

/// The names in use for NDJSON; none of them is registered.
const JSON_LINES: &[&str] = &[
    "application/x-ndjson",
    "application/ndjson",
    "application/jsonl",
    "application/x-jsonl",
    "application/jsonlines",
    "application/x-jsonlines",
    "application/json-lines",
];

/// The media type of a body. A program may leave it out; a page of a browser may not: browsers send
/// a body without a type, or of a form's type, to other sites without asking them first.
pub(crate) fn media_type(request: &HttpRequest) -> Result<MediaType, Refusal> {
    refuse_websocket(request.head())?;
    refuse_encodings(request)?;
    let media_type = request.content_type().trim().to_ascii_lowercase();
    let is_json = media_type == "application/json"
        || (media_type.starts_with("application/") && media_type.ends_with("+json"));
    match &*media_type {
        "" if !request.headers().contains_key(ORIGIN) => Ok(MediaType::Json),
        _ if is_json => Ok(MediaType::Json),
        name if JSON_LINES.contains(&name) => Ok(MediaType::JsonLines),
        _ => {
            let message = "the `Content-Type` of a body is `application/json`, \
                           or `application/x-ndjson` for one JSON value per line";
            Err(Refusal::new(ErrorCode::UnsupportedMediaType, message))
        }
    }
}

/// Refuses a compressed body: it would be read as it is, and refused as bad JSON.
pub(crate) fn refuse_encodings(request: &HttpRequest) -> Result<(), Refusal> {
    let encodings = request.headers().get_all(CONTENT_ENCODING);
    let is_plain = |text: &[u8]| text.trim_ascii().eq_ignore_ascii_case(b"identity");
    if encodings.into_iter().all(|encoding| is_plain(encoding.as_bytes())) {
        return Ok(());
    }
    let message = "the body must not be compressed (`Content-Encoding`)";
    Err(Refusal::new(ErrorCode::UnsupportedMediaType, message))
}
