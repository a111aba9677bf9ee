//! `GET`, `HEAD` and `POST /stream`: opens a stream.

use std::sync::Arc;

use actix_web::{
    Error, HttpRequest, HttpResponse,
    dev::RequestHead,
    http::{Version, header::HeaderName},
    web::{Bytes, Data, Payload},
};
use fanfare_core::{
    access::Grant,
    cursor::CursorError,
    error::{ErrorCode, SubscribeError},
    subscription::{Format, StreamLimits, StreamOptions, Subscription},
    topic::TopicError,
};
use futures_util::stream::empty;
use serde::Deserialize;

use super::{
    body::{self, object},
    media_type::refuse_encodings,
    poll::Wait,
    refusal::{Refusal, bad_json, stream_head, stream_refusal},
    upgrade::refuse_websocket,
};
use crate::{
    hub::{Hub, UseKind},
    transport::{EventStreamBody, NewStream, PipeReader, Stalled},
};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The query. Any key may be repeated. `topics=`, `channels=` and `types=` have lists, separated by
/// commas.
#[derive(Debug, Default)]
pub(crate) struct StreamQuery {
    /// The user of a feed.
    pub user: Vec<String>,
    topic: Vec<String>,
    topics: Vec<String>,
    channels: Vec<String>,
    types: Vec<String>,
    last_event_id: Vec<String>,
    /// The spelling of polyfills.
    camel_last_event_id: Vec<String>,
    batch: Vec<String>,
    snapshot: Vec<String>,
    /// The wait of a poll.
    pub wait: Vec<String>,
    ticket: Vec<String>,
}

impl StreamQuery {
    /// The ticket, in place of a token.
    pub fn ticket(&self) -> Option<&str> {
        self.ticket.first().map(String::as_str)
    }

    /// Unknown keys are ignored: a page may have its own.
    fn parse(text: &str) -> Self {
        let mut query = Self::default();
        for (key, value) in form_urlencoded::parse(text.as_bytes()) {
            let values = match &*key {
                "user" => &mut query.user,
                "topic" => &mut query.topic,
                "topics" => &mut query.topics,
                "channels" => &mut query.channels,
                "types" => &mut query.types,
                "last_event_id" => &mut query.last_event_id,
                "lastEventId" => &mut query.camel_last_event_id,
                "batch" => &mut query.batch,
                "snapshot" => &mut query.snapshot,
                "wait" => &mut query.wait,
                "ticket" => &mut query.ticket,
                _ => continue,
            };
            values.push(value.into_owned());
        }
        query
    }

    /// The topics named by the query.
    pub fn subscription(&self) -> Subscription {
        let lists = self.topics.iter().chain(&self.channels).flat_map(|list| list.split(','));
        Subscription::new().topics(self.topic.iter().map(String::as_str).chain(lists))
    }

    /// The stream's options, from the query and the headers.
    pub fn options(&self, head: &RequestHead) -> Result<StreamOptions, Refusal> {
        let mut ids = self.last_event_id.iter().chain(&self.camel_last_event_id);
        let snapshot = match self.snapshot.first().map(String::as_str) {
            None => None,
            Some("true" | "1") => Some(true),
            Some("false" | "0") => Some(false),
            Some(_) => {
                let message = "`snapshot` can only be `true` or `false`";
                return Err(Refusal::new(ErrorCode::BadQuery, message));
            }
        };
        Ok(StreamOptions {
            types: Some(types(&self.types, usize::MAX)).filter(|types| !types.is_empty()),
            last_event_id: last_event_id(head, ids.find(|id| !id.is_empty()).cloned())?,
            format: format(self.batch.first().map(String::as_str))?,
            snapshot,
        })
    }
}

/// The body of a `POST`.
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
    /// The wait of a poll.
    wait: Option<Wait>,
}

impl StreamBody {
    /// Reads a body, without the names far beyond the limits: one too many is refused as well.
    fn read(json: &[u8], limits: StreamLimits) -> Result<Self, Refusal> {
        let mut body: Self = object(json).map_err(bad_json)?;
        body.topics.truncate(limits.max_topics + 1);
        body.types = types(&body.types, limits.max_types + 1);
        Ok(body)
    }
}

/// `GET`: the query names the topics.
pub(crate) async fn get(hub: Data<Hub>, request: HttpRequest) -> Result<HttpResponse, Refusal> {
    let query = query(request.head())?;
    let subscription = query.subscription().or_options(query.options(request.head())?);
    answer_caller(&hub, &request, query.ticket(), subscription).await
}

/// `HEAD`: the head of the answer to `GET`. The stream is created and dropped at once; a ticket
/// stays unused.
pub(crate) async fn head(hub: Data<Hub>, request: HttpRequest) -> Result<HttpResponse, Refusal> {
    let head = request.head();
    let query = query(head)?;
    let subscription = query.subscription().or_options(query.options(head)?);
    refuse_websocket(head)?;
    let refused = |error| stream_refusal(head, error);
    let admission = hub.admit(head, query.ticket(), &subscription, UseKind::Stream).await;
    let grant = admission.map_err(refused)?.grant;
    let share = hub.parts().stream_share(head).map_err(refused)?;
    drop(hub.spawn_stream(subscription, share, &grant).map_err(refused)?);
    // The head of a body without a known length, as of the `GET`.
    Ok(stream_head().streaming(empty::<Result<Bytes, Error>>()))
}

/// The stream of a caller, within its grant.
async fn answer_caller(
    hub: &Hub,
    request: &HttpRequest,
    ticket: Option<&str>,
    subscription: Subscription,
) -> Result<HttpResponse, Refusal> {
    let head = request.head();
    refuse_websocket(head)?;
    match open(hub, head, ticket, subscription).await {
        Ok(stream) => Ok(stream_response(request, stream.start())),
        Err(error) => Err(stream_refusal(head, error)),
    }
}

/// Opens the stream of a caller.
async fn open(
    hub: &Hub,
    head: &RequestHead,
    ticket: Option<&str>,
    subscription: Subscription,
) -> Result<NewStream, SubscribeError> {
    let admission = hub.admit(head, ticket, &subscription, UseKind::Stream).await?;
    let share = hub.parts().stream_share(head)?;
    let stream = hub.create_stream(subscription, share, &admission.grant)?;
    hub.begin(admission, stream, UseKind::Stream).await
}

/// Creates a stream for a transport with its own loop: for `subscription`, else for the query's
/// topics. `None` if it is refused: the endpoint then answers.
pub(crate) async fn create(
    hub: &Hub,
    head: &RequestHead,
    subscription: Option<Subscription>,
) -> Option<NewStream> {
    let query = query(head).ok()?;
    let options = query.options(head).ok()?;
    let Some(chosen) = subscription else {
        let subscription = query.subscription().or_options(options);
        return open(hub, head, query.ticket(), subscription).await.ok();
    };
    let grant = hub.parts().access.grant_of_subscription(&chosen).ok()?;
    let share = hub.parts().stream_share(head).ok()?;
    hub.create_stream(chosen.or_options(options), share, &grant).ok()
}

/// `POST`: the body names topics and options, as JSON.
pub(crate) async fn post(
    hub: Data<Hub>,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, Refusal> {
    let (subscription, _) = read_posted(&hub, &request, payload).await?;
    answer_caller(&hub, &request, None, subscription).await
}

/// Reads the subscription in the body of a `POST`, and the wait of a poll.
pub(crate) async fn read_posted(
    hub: &Hub,
    request: &HttpRequest,
    payload: Payload,
) -> Result<(Subscription, Option<Wait>), Refusal> {
    refuse_websocket(request.head())?;
    refuse_encodings(request)?;
    let body = body::read_subscription(hub, request, payload).await?;
    let limits = hub.parts().config.hub.stream_limits();
    let (_held, body) = body.decode(move |json| StreamBody::read(json, limits)).await?;
    let given = body.last_event_id.filter(|id| !id.is_empty());
    let options = StreamOptions {
        types: Some(body.types).filter(|types| !types.is_empty()),
        last_event_id: last_event_id(request.head(), given)?,
        format: format(body.batch.as_deref())?,
        snapshot: body.snapshot,
    };
    let topics = body.topic.into_iter().chain(body.topics);
    Ok((Subscription::new().topics(topics).or_options(options), body.wait))
}

/// An application's stream: the subscription names the topics.
pub(crate) fn answer(
    hub: &Hub,
    request: &HttpRequest,
    subscription: Subscription,
) -> Result<HttpResponse, Refusal> {
    let options = query(request.head())?.options(request.head())?;
    let grant = hub.parts().access.grant_of_subscription(&subscription)?;
    answer_with(hub, request, subscription.or_options(options), &grant)
}

fn answer_with(
    hub: &Hub,
    request: &HttpRequest,
    subscription: Subscription,
    grant: &Arc<Grant>,
) -> Result<HttpResponse, Refusal> {
    let head = request.head();
    refuse_websocket(head)?;
    let share = hub.parts().stream_share(head);
    let reader = share.and_then(|share| hub.spawn_stream(subscription, share, grant));
    let reader = reader.map_err(|error| stream_refusal(head, error))?;
    Ok(stream_response(request, reader))
}

/// The response of an opened stream.
pub(crate) fn stream_response(request: &HttpRequest, mut reader: PipeReader) -> HttpResponse {
    // In `fanfare::Server`, the socket applies the write timeout.
    if let Some(stalled) = request.conn_data::<Stalled>() {
        reader.watch_by(stalled.clone());
    }
    let mut response = stream_head().body(EventStreamBody::new(reader));
    // HTTP/1.0 has no chunked coding: there the end of the connection ends the stream.
    response.head_mut().no_chunking(request.version() < Version::HTTP_11);
    response
}

/// At most `max_count` types of the lists.
fn types(lists: &[String], max_count: usize) -> Vec<String> {
    let types = lists.iter().flat_map(|list| list.split(','));
    types.filter(|name| !name.is_empty()).take(max_count).map(Into::into).collect()
}

fn format(batch: Option<&str>) -> Result<Option<Format>, Refusal> {
    match batch {
        None => Ok(None),
        Some("json") => Ok(Some(Format::JsonBatch)),
        Some(_) => Err(Refusal::new(ErrorCode::BadQuery, "`batch` can only be `json`")),
    }
}

/// The header `Last-Event-ID`, else the id of the query or body. The header wins: a browser's
/// reconnect sends it beside the old query.
fn last_event_id(head: &RequestHead, given: Option<String>) -> Result<Option<String>, Refusal> {
    let Some(header) = head.headers.get(LAST_EVENT_ID) else { return Ok(given) };
    let text = header.to_str().map_err(|_| SubscribeError::Cursor(CursorError))?;
    Ok(if text.is_empty() { given } else { Some(text.to_owned()) })
}

pub(crate) fn query(head: &RequestHead) -> Result<StreamQuery, Refusal> {
    let text = head.uri.query().unwrap_or_default();
    if !is_utf8(text) {
        return Err(SubscribeError::Topic(TopicError::NotUtf8).into());
    }
    Ok(StreamQuery::parse(text))
}

/// Whether the percent-encoded bytes are UTF-8. Form decoding would replace invalid bytes by
/// U+FFFD, and the client would wait for events of another topic.
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
