//! `POST /publish`: one event, an array of them, or a line each without end.

use actix_web::{
    HttpMessage, HttpRequest, HttpResponse,
    http::StatusCode,
    web::{Bytes, Data, Payload},
};
use futures_util::{
    FutureExt, StreamExt,
    future::{BoxFuture, join_all},
};
use serde::Serialize;

use super::{
    body::{self, Lines},
    incoming::{Incoming, parse},
    lines::answer_lines,
    origin::refuse_other_sites,
    refusal::{ErrorBody, Refusal},
};
use crate::{
    error::{PublishError, SubscribeError},
    hub::{Hub, Publish, Published},
};

/// Events of one NDJSON request whose answers may be awaited at once.
const MAX_AWAITED: usize = 256;

/// What one event was answered.
#[derive(Debug, Serialize)]
pub(crate) struct Answer {
    success: bool,
    #[serde(flatten)]
    published: Published,
}

/// One answer for `topic`, an array of them for `topics`.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Answers {
    One(Option<Answer>),
    Many(Vec<Answer>),
}

/// A line's answer.
#[derive(Serialize)]
#[serde(untagged)]
enum LineAnswer {
    Taken(Answers),
    Refused { success: bool, error: ErrorBody },
}

impl LineAnswer {
    fn refused(refusal: Refusal) -> Self {
        Self::Refused { success: false, error: refusal.error }
    }
}

/// The answer to a body that is not NDJSON.
#[derive(Serialize)]
#[serde(untagged)]
enum Body {
    Single(Answers),
    Array(Vec<Answers>),
}

/// Takes the events of a body, whatever its form.
pub(crate) async fn post(hub: Data<Hub>, request: HttpRequest, payload: Payload) -> HttpResponse {
    if let Err(refusal) = refuse_other_sites(&request) {
        return refusal.response();
    }
    let max_payload = hub.shared().config.publish.max_payload;
    if request.content_type().eq_ignore_ascii_case("application/x-ndjson") {
        return lines(Hub::clone(&hub), Lines::new(payload, body::max_line_bytes(max_payload)));
    }
    let body = match body::read(payload, body::max_body_bytes(max_payload)).await {
        Ok(body) => body,
        Err(refusal) => return refusal.response(),
    };
    let answered = match body.trim_ascii_start().first() {
        Some(b'[') => array(&hub, &body).await,
        _ => single(&hub, &body).await,
    };
    match answered {
        Ok(answer) => HttpResponse::Ok().json(answer),
        Err(refusal) => refusal.response(),
    }
}

async fn single(hub: &Hub, body: &[u8]) -> Result<Body, Refusal> {
    let incoming = parse(body)?;
    let publishes = check(hub, &incoming)?;
    let published = publish_all(hub, publishes).await?;
    Ok(Body::Single(incoming.shape(published)))
}

/// All events are checked before the first is taken.
async fn array(hub: &Hub, body: &[u8]) -> Result<Body, Refusal> {
    let at = |index: usize| {
        move |mut refusal: Refusal| {
            refusal.error.index = Some(index);
            refusal
        }
    };
    let items: Vec<&serde_json::value::RawValue> = serde_json::from_slice(body)
        .map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, "bad_json", error.to_string()))?;
    let mut events = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        let incoming = parse(item.get().as_bytes()).map_err(at(index))?;
        let publishes = check(hub, &incoming).map_err(at(index))?;
        events.push((incoming, publishes));
    }
    let mut answers = Vec::with_capacity(events.len());
    for (index, (incoming, publishes)) in events.into_iter().enumerate() {
        match publish_all(hub, publishes).await {
            Ok(published) => answers.push(incoming.shape(published)),
            Err(refusal) => {
                let mut refusal = at(index)(refusal);
                refusal.published = Some(answers);
                return Err(refusal);
            }
        }
    }
    Ok(Body::Array(answers))
}

/// Answers line by line while the request is still being read.
#[allow(
    clippy::async_yields_async,
    reason = "lines are handed over in order, their answers awaited together"
)]
fn lines(hub: Hub, lines: Lines) -> HttpResponse {
    let answers = lines.then(move |line| {
        let hub = hub.clone();
        async move { enqueue_line(&hub, line.bytes).await }
    });
    answer_lines(answers.buffered(MAX_AWAITED))
}

/// Hands a line's events over in order; the future awaits their answers.
async fn enqueue_line(hub: &Hub, line: Result<Bytes, Refusal>) -> BoxFuture<'static, LineAnswer> {
    let enqueued = async {
        let incoming = parse(&line?)?;
        let publishes = check(hub, &incoming)?;
        let awaited = hub.enqueue(publishes).await.map_err(|error| Refusal::from(&error))?;
        Ok((incoming, awaited))
    };
    let (incoming, awaited) = match enqueued.await {
        Ok(enqueued) => enqueued,
        Err(refusal) => return std::future::ready(LineAnswer::refused(refusal)).boxed(),
    };
    async move {
        match all_or_refusal(join_all(awaited).await) {
            Ok(published) => LineAnswer::Taken(incoming.shape(published)),
            Err(error) => LineAnswer::refused(Refusal::from(&error)),
        }
    }
    .boxed()
}

fn check(hub: &Hub, incoming: &Incoming) -> Result<Vec<Publish>, Refusal> {
    let max_count = hub.shared().config.hub.max_topics_per_stream;
    if incoming.topics.len() > max_count {
        return Err(Refusal::from(&SubscribeError::TooManyTopics { max_count }));
    }
    let checked = |topic: &String| hub.check(topic, incoming.event.clone());
    let checked: Result<Vec<Publish>, PublishError> = incoming.topics.iter().map(checked).collect();
    checked.map_err(|error| Refusal::from(&error))
}

/// Publishes to all topics of an event, or to none.
async fn publish_all(hub: &Hub, publishes: Vec<Publish>) -> Result<Vec<Published>, Refusal> {
    let answers = hub.enqueue(publishes).await.map_err(|error| Refusal::from(&error))?;
    all_or_refusal(join_all(answers).await).map_err(|error| Refusal::from(&error))
}

/// Of an event for several topics: if some have taken it and others not, whoever is told
/// that it was refused would publish it to the first again.
fn all_or_refusal(
    answers: Vec<Result<Published, PublishError>>,
) -> Result<Vec<Published>, PublishError> {
    let is_taken = answers.iter().any(Result::is_ok);
    let all: Result<Vec<Published>, PublishError> = answers.into_iter().collect();
    all.map_err(|error| if is_taken { PublishError::Unconfirmed } else { error })
}

impl Incoming {
    fn shape(&self, published: Vec<Published>) -> Answers {
        let mut answers =
            published.into_iter().map(|published| Answer { success: true, published });
        if self.has_list { Answers::Many(answers.collect()) } else { Answers::One(answers.next()) }
    }
}
