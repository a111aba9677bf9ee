//! `GET` and `POST /stream`: opens a stream.

use actix_web::{
    HttpRequest, HttpResponse,
    dev::RequestHead,
    http::{StatusCode, Version, header::HeaderName},
    web::{Data, Payload},
};
use actix_web_lab::extract::Query;
use serde::Deserialize;

use super::{
    body::{self, MAX_SUBSCRIPTION_BYTES, object},
    refusal::{Refusal, stream_head, stream_refusal},
};
use crate::{
    domain::topic::TopicError,
    error::SubscribeError,
    hub::Hub,
    subscription::{Format, Subscription},
    transport::{EventStreamBody, NewStream, PipeReader},
};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// What a query says. Any key may be repeated; `topics=`, `channels=` and `types=` hold lists.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct StreamQuery {
    /// Whose feed it is to be.
    pub user: Vec<String>,
    topic: Vec<String>,
    topics: Vec<String>,
    channels: Vec<String>,
    types: Vec<String>,
    last_event_id: Vec<String>,
    /// As polyfills spell it.
    #[serde(rename = "lastEventId")]
    camel_last_event_id: Vec<String>,
    batch: Vec<String>,
    snapshot: Vec<String>,
}

impl StreamQuery {
    /// The topics that it names.
    fn subscription(&self) -> Subscription {
        let lists = self.topics.iter().chain(&self.channels).flat_map(|list| list.split(','));
        Subscription::new().topics(self.topic.iter().map(String::as_str).chain(lists))
    }
}

/// What a body says.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct StreamBody {
    topic: Option<String>,
    #[serde(alias = "channels")]
    topics: Vec<String>,
    types: Vec<String>,
    #[serde(alias = "last_event_id")]
    last_event_id: Option<String>,
    batch: Option<String>,
    snapshot: Option<bool>,
}

/// `GET`: the topics are the query's.
pub(crate) async fn get(hub: Data<Hub>, request: HttpRequest) -> HttpResponse {
    open_by_query(&hub, &request)
}

/// `HEAD`: what `GET` would be answered, without the stream.
pub(crate) async fn head(hub: Data<Hub>, request: HttpRequest) -> HttpResponse {
    let response = open_by_query(&hub, &request);
    if response.status() == StatusCode::OK { stream_head().finish() } else { response }
}

fn open_by_query(hub: &Hub, request: &HttpRequest) -> HttpResponse {
    match query(request.head()) {
        Ok(query) => answer_with(hub, request.head(), query.subscription(), &query),
        Err(refusal) => refusal.response(),
    }
}

/// Opens a stream for a transport that runs it: the topics are the subscription's or, if none
/// is given, the query's. None if it is refused; the endpoint then answers with the refusal.
pub(crate) fn open(
    hub: &Hub,
    head: &RequestHead,
    subscription: Option<Subscription>,
) -> Option<NewStream> {
    let query = query(head).ok()?;
    let subscription = subscription.unwrap_or_else(|| query.subscription());
    hub.begin(complete(subscription, head, &query).ok()?).ok()
}

/// `POST`: the same as JSON.
pub(crate) async fn post(hub: Data<Hub>, request: HttpRequest, payload: Payload) -> HttpResponse {
    let body = match body::read(payload, MAX_SUBSCRIPTION_BYTES).await {
        Ok(body) => body,
        Err(refusal) => return refusal.response(),
    };
    let body: StreamBody = match object(&body) {
        Ok(body) => body,
        Err(error) => return bad_request("bad_json", error.to_string()).response(),
    };
    let options = StreamQuery {
        types: body.types,
        last_event_id: body.last_event_id.into_iter().collect(),
        batch: body.batch.into_iter().collect(),
        snapshot: body.snapshot.map(|snapshot| snapshot.to_string()).into_iter().collect(),
        ..StreamQuery::default()
    };
    let topics = body.topic.into_iter().chain(body.topics);
    answer_with(&hub, request.head(), Subscription::new().topics(topics), &options)
}

/// An embedder's stream: the topics are the subscription's.
pub(crate) fn answer(hub: &Hub, request: &HttpRequest, subscription: Subscription) -> HttpResponse {
    match query(request.head()) {
        Ok(options) => answer_with(hub, request.head(), subscription, &options),
        Err(refusal) => refusal.response(),
    }
}

fn answer_with(
    hub: &Hub,
    head: &RequestHead,
    subscription: Subscription,
    options: &StreamQuery,
) -> HttpResponse {
    let opened = complete(subscription, head, options).map(|complete| hub.open(complete));
    match opened {
        Ok(Ok(reader)) => stream_response(head, reader),
        Ok(Err(error)) => stream_refusal(head, &error),
        Err(refusal) => refusal.response(),
    }
}

/// The stream.
pub(crate) fn stream_response(head: &RequestHead, reader: PipeReader) -> HttpResponse {
    let mut response = stream_head().body(EventStreamBody::new(reader));
    // HTTP/1.0 knows no chunks: there the stream ends with its connection.
    response.head_mut().no_chunking(head.version < Version::HTTP_11);
    response
}

/// Fills what the subscription leaves open.
pub(crate) fn complete(
    mut subscription: Subscription,
    head: &RequestHead,
    options: &StreamQuery,
) -> Result<Subscription, Refusal> {
    if subscription.last_event_id.is_none() {
        subscription.last_event_id = last_event_id(head, options)?;
    }
    if subscription.types.is_none() {
        let types = options.types.iter().flat_map(|list| list.split(','));
        let types: Vec<String> = types.filter(|name| !name.is_empty()).map(Into::into).collect();
        subscription.types = Some(types).filter(|types| !types.is_empty());
    }
    if subscription.format.is_none() {
        subscription.format = match options.batch.first().map(String::as_str) {
            None => None,
            Some("json") => Some(Format::JsonBatch),
            Some(_) => return Err(bad_request("bad_query", "`batch` can only be `json`")),
        };
    }
    if subscription.snapshot.is_none() {
        subscription.snapshot = match options.snapshot.first().map(String::as_str) {
            None => None,
            Some("true" | "1") => Some(true),
            Some("false" | "0") => Some(false),
            Some(_) => {
                return Err(bad_request("bad_query", "`snapshot` can only be `true` or `false`"));
            }
        };
    }
    Ok(subscription)
}

/// The header wins over the query.
fn last_event_id(head: &RequestHead, options: &StreamQuery) -> Result<Option<String>, Refusal> {
    if let Some(header) = head.headers.get(LAST_EVENT_ID) {
        let bad_cursor = SubscribeError::Cursor(crate::domain::cursor::CursorError);
        let text = header.to_str().map_err(|_| Refusal::from(&bad_cursor))?;
        if !text.is_empty() {
            return Ok(Some(text.to_owned()));
        }
    }
    let mut ids = options.last_event_id.iter().chain(&options.camel_last_event_id);
    Ok(ids.find(|id| !id.is_empty()).cloned())
}

pub(crate) fn query(head: &RequestHead) -> Result<StreamQuery, Refusal> {
    let text = head.uri.query().unwrap_or_default();
    if !is_utf8(text) {
        return Err(Refusal::from(&SubscribeError::Topic(TopicError::NotUtf8)));
    }
    let query = Query::<StreamQuery>::from_query(text);
    query.map(|query| query.0).map_err(|error| bad_request("bad_query", error.to_string()))
}

/// Whether what is percent-encoded is UTF-8: form decoding would put U+FFFD in its place,
/// and a client would wait for events of a topic that it did not name.
fn is_utf8(query: &str) -> bool {
    let mut bytes = Vec::with_capacity(query.len());
    let mut rest = query.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let escaped = (*first == b'%').then(|| tail.get(..2)).flatten();
        let decoded = escaped
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(decoded.unwrap_or(*first));
        rest = if decoded.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8(bytes).is_ok()
}

fn bad_request(code: &'static str, message: impl Into<String>) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, code, message)
}
