//! `POST /publish`: one event, an array of them, or a line each without end.

use std::{future::poll_fn, task::Poll, time::Duration};

use actix_web::{
    HttpMessage, HttpRequest, HttpResponse,
    http::StatusCode,
    web::{Data, Payload},
};
use futures_util::{FutureExt, Stream, StreamExt, future::BoxFuture, stream};
use serde::Serialize;
use tokio::time::timeout;

use super::{
    body::{self, Line, Lines},
    incoming::{Incoming, parse},
    lines::{answer_all_lines, answer_lines},
    origin::refuse_other_sites,
    refusal::{ErrorBody, Refusal},
};
use crate::{
    domain::event::Event,
    error::{PublishError, SubscribeError},
    hub::{Hub, Publish, Published},
};

/// Lines of one NDJSON request that are handed over together, if so many have arrived.
const MAX_LINES_AT_ONCE: usize = 64;

/// How many times that many may be awaited.
const MAX_AWAITED: usize = 4;

/// How long the rest of a request is waited for before its answer begins. Many clients send
/// its head and its body apart.
const PATIENCE: Duration = Duration::from_millis(10);

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
        let arriving = Lines::new(payload, body::max_line_bytes(max_payload));
        return lines(Hub::clone(&hub), arriving).await;
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
    let Incoming { topics, has_list, event } = parse(body)?;
    let publishes = check(hub, &topics, event)?;
    let published = publish_all(hub, publishes).await?;
    Ok(Body::Single(shape(has_list, published)))
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
        let Incoming { topics, has_list, event } = incoming;
        events.push((has_list, check(hub, &topics, event).map_err(at(index))?));
    }
    let mut answers = Vec::with_capacity(events.len());
    for (index, (has_list, publishes)) in events.into_iter().enumerate() {
        match publish_all(hub, publishes).await {
            Ok(published) => answers.push(shape(has_list, published)),
            Err(refusal) => {
                let mut refusal = at(index)(refusal);
                refusal.published = Some(answers);
                return Err(refusal);
            }
        }
    }
    Ok(Body::Array(answers))
}

/// Answers line by line while the request is still being read. One that has arrived as a whole
/// is answered as a whole: an answer that begins before its request has ended costs HTTP/1.1
/// the connection, and the publisher the time to make another.
async fn lines(hub: Hub, mut lines: Lines) -> HttpResponse {
    // The framework hands over what came along with the head only after this.
    yield_once().await;
    let mut arrived = Vec::new();
    let is_whole = timeout(PATIENCE, async {
        while arrived.len() < MAX_LINES_AT_ONCE * MAX_AWAITED {
            match lines.next().await {
                Some(line) => arrived.push(line),
                None => return true,
            }
        }
        false
    });
    if is_whole.await.unwrap_or(false) {
        return answer_all_lines(&enqueue_lines(&hub, arrived).await.await);
    }
    answer_as_read(hub, stream::iter(arrived).chain(lines))
}

#[allow(
    clippy::async_yields_async,
    reason = "lines are handed over in order, their answers awaited together"
)]
fn answer_as_read(hub: Hub, lines: impl Stream<Item = Line> + 'static) -> HttpResponse {
    let answers = lines.ready_chunks(MAX_LINES_AT_ONCE).then(move |lines| {
        let hub = hub.clone();
        async move { enqueue_lines(&hub, lines).await }
    });
    answer_lines(answers.buffered(MAX_AWAITED).flat_map(stream::iter))
}

/// Lets whatever runs this go on before this does.
async fn yield_once() {
    let mut has_yielded = false;
    poll_fn(|task| {
        if std::mem::replace(&mut has_yielded, true) {
            return Poll::Ready(());
        }
        task.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Hands over, in order, the lines that have arrived; the future awaits their answers.
async fn enqueue_lines(hub: &Hub, lines: Vec<Line>) -> BoxFuture<'static, Vec<LineAnswer>> {
    let mut posts = Vec::with_capacity(lines.len());
    let mut take = |line: Line| {
        let Incoming { topics, has_list, event } = parse(&line.bytes?)?;
        posts.push(check(hub, &topics, event)?);
        Ok(has_list)
    };
    let taken: Vec<Result<bool, Refusal>> = lines.into_iter().map(&mut take).collect();
    let answers = hub.enqueue(posts).await;
    let answers = answers.map(|answers| {
        let mut answers = answers.into_iter();
        let answer = |taken: Result<bool, Refusal>| {
            let has_list = taken?;
            let answers = answers.next().expect("every post is answered");
            let published = all_or_refusal(answers).map_err(|error| Refusal::from(&error))?;
            Ok(shape(has_list, published))
        };
        let answers = taken.into_iter().map(answer);
        answers.map(|answer| answer.map_or_else(LineAnswer::refused, LineAnswer::Taken)).collect()
    });
    answers.boxed()
}

fn check(hub: &Hub, topics: &[String], event: Event) -> Result<Vec<Publish>, Refusal> {
    let max_count = hub.shared().config.hub.max_topics_per_stream;
    if topics.len() > max_count {
        return Err(Refusal::from(&SubscribeError::TooManyTopics { max_count }));
    }
    let events = std::iter::repeat_n(event, topics.len());
    let checked = topics.iter().zip(events).map(|(topic, event)| hub.check(topic, event));
    let checked: Result<Vec<Publish>, PublishError> = checked.collect();
    checked.map_err(|error| Refusal::from(&error))
}

/// Publishes to all topics of an event, or to none.
async fn publish_all(hub: &Hub, publishes: Vec<Publish>) -> Result<Vec<Published>, Refusal> {
    let answers = hub.enqueue(vec![publishes]).await.await.into_iter().flatten().collect();
    all_or_refusal(answers).map_err(|error| Refusal::from(&error))
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

fn shape(has_list: bool, published: Vec<Published>) -> Answers {
    let mut answers = published.into_iter().map(|published| Answer { success: true, published });
    if has_list { Answers::Many(answers.collect()) } else { Answers::One(answers.next()) }
}
