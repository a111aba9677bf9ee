//! `POST /publish`: one event, an array of events, or NDJSON with one event per line and no limit
//! on lines.

use std::{future::poll_fn, task::Poll, time::Duration};

use actix_web::{
    HttpMessage, HttpRequest, HttpResponse,
    web::{Data, Payload},
};
use fanfare_core::{
    error::{PublishError, SubscribeError},
    publish::Published,
};
use futures_util::{FutureExt, Stream, StreamExt, future::BoxFuture, stream};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::time::timeout;

use super::{
    body::{self, BodyLine, BodyLines},
    incoming::{Incoming, parse},
    lines::{answer_all_lines, answer_lines},
    origin::refuse_other_sites,
    refusal::{Refusal, RefusalBody, bad_json},
};
use crate::{hub::Hub, publisher::CheckedPublish};

/// Arrived lines of one NDJSON request handed over together.
const MAX_LINES_AT_ONCE: usize = 64;

/// Hand-overs of one NDJSON request in flight.
const MAX_AWAITED: usize = 4;

/// Wait for the rest of a request before the answer begins. Many clients send head and body
/// separately.
const PATIENCE: Duration = Duration::from_millis(10);

/// The answer to one event.
#[derive(Debug, Serialize)]
pub(crate) struct EventAnswer {
    success: bool,
    #[serde(flatten)]
    published: Published,
}

/// One answer for `topic`, an array of answers for `topics`.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum PostAnswer {
    One(Option<EventAnswer>),
    Many(Vec<EventAnswer>),
}

/// The answer to one line.
#[derive(Serialize)]
#[serde(untagged)]
enum LineAnswer {
    Taken(PostAnswer),
    Refused { success: bool, error: RefusalBody },
}

impl LineAnswer {
    fn refused(refusal: Refusal) -> Self {
        Self::Refused { success: false, error: refusal.error }
    }
}

/// The answer to a body that is not NDJSON.
#[derive(Serialize)]
#[serde(untagged)]
enum PublishAnswer {
    Single(PostAnswer),
    Array(Vec<PostAnswer>),
}

/// Publishes the events of a body in any form.
pub(crate) async fn post(
    hub: Data<Hub>,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, Refusal> {
    refuse_other_sites(&request)?;
    let max_payload = hub.parts().config.publish.max_payload;
    if request.content_type().eq_ignore_ascii_case("application/x-ndjson") {
        let arriving = BodyLines::new(payload, body::max_line_bytes(max_payload));
        return Ok(lines(Hub::clone(&hub), arriving).await);
    }
    let body = body::read(payload, body::max_body_bytes(max_payload)).await?;
    let answer = match body.trim_ascii_start().first() {
        Some(b'[') => PublishAnswer::Array(array(&hub, &body).await?),
        _ => PublishAnswer::Single(publish(&hub, IncomingPost::parse(&hub, &body)?).await?),
    };
    Ok(HttpResponse::Ok().json(answer))
}

/// One checked event for its topics. All topics accept the event, or none.
struct IncomingPost {
    publishes: Vec<CheckedPublish>,
    /// Whether the request has a list of topics. The answer is then a list too.
    has_list: bool,
}

impl IncomingPost {
    fn parse(hub: &Hub, json: &[u8]) -> Result<Self, Refusal> {
        let Incoming { topics, has_list, event } = parse(json)?;
        let max_count = hub.parts().config.hub.max_topics_per_stream;
        if topics.len() > max_count {
            return Err(SubscribeError::TooManyTopics { max_count }.into());
        }
        let events = std::iter::repeat_n(event, topics.len());
        let checked = topics.iter().zip(events).map(|(topic, event)| hub.check(topic, event));
        let publishes = checked.collect::<Result<_, PublishError>>()?;
        Ok(Self { publishes, has_list })
    }
}

/// Hands posts over in order. The returned future resolves to an answer for each post, refused
/// posts included.
async fn enqueue(
    hub: &Hub,
    posts: Vec<Result<IncomingPost, Refusal>>,
) -> BoxFuture<'static, Vec<Result<PostAnswer, Refusal>>> {
    let mut publishes = Vec::with_capacity(posts.len());
    let parsed: Vec<Result<bool, Refusal>> = posts
        .into_iter()
        .map(|post| {
            let IncomingPost { publishes: all, has_list } = post?;
            publishes.push(all);
            Ok(has_list)
        })
        .collect();
    let answers = hub.enqueue(publishes).await;
    let answers = answers.map(|answers| {
        let mut answers = answers.into_iter();
        let answer = |parsed: Result<bool, Refusal>| {
            let has_list = parsed?;
            let answers = answers.next().expect("every post is answered");
            Ok(shape(has_list, all_or_refusal(answers)?))
        };
        parsed.into_iter().map(answer).collect()
    });
    answers.boxed()
}

async fn publish(hub: &Hub, post: IncomingPost) -> Result<PostAnswer, Refusal> {
    let answer = enqueue(hub, vec![Ok(post)]).await.await.pop();
    answer.ok_or(PublishError::Internal)?
}

/// Checks all events before the first is published.
async fn array(hub: &Hub, body: &[u8]) -> Result<Vec<PostAnswer>, Refusal> {
    let at = |index: usize| {
        move |mut refusal: Refusal| {
            refusal.error.index = Some(index);
            refusal
        }
    };
    let items: Vec<&RawValue> = serde_json::from_slice(body).map_err(bad_json)?;
    let mut posts = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        posts.push(IncomingPost::parse(hub, item.get().as_bytes()).map_err(at(index))?);
    }
    let mut answers = Vec::with_capacity(posts.len());
    // One after the other: events after a refused one must not be published.
    for (index, post) in posts.into_iter().enumerate() {
        match publish(hub, post).await {
            Ok(answer) => answers.push(answer),
            Err(refusal) => {
                let refusal = at(index)(refusal);
                return Err(Refusal { published: Some(answers), ..refusal });
            }
        }
    }
    Ok(answers)
}

/// Answers line by line while the request is still arriving. A small request arriving at once gets
/// its answer in one piece: an answer begun before the end of its request costs an HTTP/1.1
/// connection, and the publisher the time for a new one.
async fn lines(hub: Hub, mut lines: BodyLines) -> HttpResponse {
    // The framework hands over the bytes received with the head only after this.
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
fn answer_as_read(hub: Hub, lines: impl Stream<Item = BodyLine> + 'static) -> HttpResponse {
    let answers = lines.ready_chunks(MAX_LINES_AT_ONCE).then(move |lines| {
        let hub = hub.clone();
        async move { enqueue_lines(&hub, lines).await }
    });
    answer_lines(answers.buffered(MAX_AWAITED).flat_map(stream::iter))
}

/// Lets other tasks of this thread run once.
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

/// Hands arrived lines over in order. The returned future resolves to their answers.
async fn enqueue_lines(hub: &Hub, lines: Vec<BodyLine>) -> BoxFuture<'static, Vec<LineAnswer>> {
    let posts = lines.into_iter().map(|line| IncomingPost::parse(hub, &line.bytes?));
    let answers = enqueue(hub, posts.collect()).await;
    let answers = answers.map(|answers| {
        let answers = answers.into_iter();
        answers.map(|answer| answer.map_or_else(LineAnswer::refused, LineAnswer::Taken)).collect()
    });
    answers.boxed()
}

/// All answers to one event, or one error. If only some topics accepted the event, the error is
/// `unconfirmed`: after a plain refusal, the publisher could repeat the event without an id.
fn all_or_refusal(
    answers: Vec<Result<Published, PublishError>>,
) -> Result<Vec<Published>, PublishError> {
    let is_taken = answers.iter().any(Result::is_ok);
    let all: Result<Vec<Published>, PublishError> = answers.into_iter().collect();
    all.map_err(|error| if is_taken { PublishError::Unconfirmed } else { error })
}

fn shape(has_list: bool, published: Vec<Published>) -> PostAnswer {
    let mut answers =
        published.into_iter().map(|published| EventAnswer { success: true, published });
    if has_list { PostAnswer::Many(answers.collect()) } else { PostAnswer::One(answers.next()) }
}
