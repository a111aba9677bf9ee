//! `POST /publish`: one event, an array of events, or NDJSON with one event per line and no limit
//! on lines.

use std::{ops::Range, sync::Arc, task::Poll, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::ContentType,
    web::{Data, Payload},
};
use fanfare_core::{
    error::{ErrorCode, PublishError},
    ids::PublisherId,
    publish::Published,
};
use futures_util::{FutureExt, Stream, StreamExt, future::BoxFuture, stream};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::time::timeout;

use super::{
    array_answer::{ArrayAnswer, Forbidden},
    body::{self, Body, BodyLine, BodyLines},
    incoming::{Incoming, parse, topics_of},
    lines::{answer_all_lines, answer_lines},
    media_type::{MediaType, media_type},
    origin::{publisher_of, refuse_other_sites},
    refusal::{Refusal, RefusalBody, bad_json},
    refused::count_line,
};
use crate::{
    access::Action,
    hops::hop,
    hub::{Caller, Hub},
    publisher::{AfterRefusal, CheckedPost},
    request_budget::RequestBytes,
};

/// Arrived lines of one NDJSON request handed over together.
const MAX_LINES_AT_ONCE: usize = 64;

/// Bytes of arrived lines handed over together.
const MAX_BYTES_AT_ONCE: usize = 256 * 1024;

/// Hand-overs of one NDJSON request in flight.
const MAX_AWAITED: usize = 4;

/// Wait for the rest of a request before the answer begins. Many clients send head and body
/// separately.
const PATIENCE: Duration = Duration::from_millis(10);

/// The answer to one event.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EventAnswer {
    success: bool,
    event_id: String,
    topic: String,
    partition: u16,
    sequence: u64,
    receivers: usize,
}

impl From<Published> for EventAnswer {
    fn from(published: Published) -> Self {
        let Published { event_id, topic, partition, sequence, receivers } = published;
        Self { success: true, event_id, topic, partition, sequence, receivers }
    }
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

/// The posts of an array published together. A refused one ends the array after them.
const MAX_POSTS_AT_ONCE: usize = 256;

/// An estimate of the bytes of an answer without the topic's name.
const ANSWER_BYTES: usize = 128;

/// Publishes the events of a body in any form.
pub(crate) async fn post(
    hub: Data<Hub>,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, Refusal> {
    hop!("handler");
    refuse_other_sites(&hub, &request)?;
    let head = request.head();
    let known = hub.caller_without_topics(head).await?;
    let publisher = publisher_of(&hub, &request);
    let poster = |caller| Poster { hub: Hub::clone(&hub), publisher, caller };
    let max_payload = hub.parts().config.publish.max_payload;
    if media_type(&request)? == MediaType::JsonLines {
        let caller = match known {
            Some(caller) => caller,
            None => hub.caller(head, Action::Publish(&[])).await?,
        };
        let arriving = BodyLines::new(&hub, &request, payload, body::max_line_bytes(max_payload));
        return Ok(lines(poster(caller), arriving).await);
    }
    let mut body = body::read(&hub, &request, payload, body::max_body_bytes(max_payload)).await?;
    let caller = match known {
        Some(caller) => caller,
        None => {
            let topics;
            (body, topics) = body.decode(topics_of).await?;
            hub.caller(head, Action::Publish(&topics)).await?
        }
    };
    let poster = poster(caller);
    if body.trim_ascii_start().first() == Some(&b'[') {
        return array(&poster, body).await;
    }
    poster.count(1)?;
    let (_held, incoming) = body.decode(parse).await?;
    Ok(HttpResponse::Ok().json(publish(&hub, IncomingPost::check(&poster, incoming)?).await?))
}

/// The sender of a request's events.
#[derive(Clone)]
pub(super) struct Poster {
    pub hub: Hub,
    pub publisher: PublisherId,
    pub caller: Caller,
}

impl Poster {
    /// Counts events for the caller's user.
    fn count(&self, events: usize) -> Result<(), Refusal> {
        let counted = self.hub.parts().users.publish(self.caller.grant().user(), events);
        counted.map_err(|_| {
            let message = "too many publishes of this user (limits.user_publishes_per_second)";
            Refusal::new(ErrorCode::RateLimited, message)
        })
    }
}

/// One checked event for its topics. All topics accept the event, or none.
pub(super) struct IncomingPost {
    checked: CheckedPost,
    /// Whether the request has a list of topics. The answer is then a list too.
    has_list: bool,
}

impl IncomingPost {
    pub fn parse(poster: &Poster, json: &[u8]) -> Result<Self, Refusal> {
        Self::check(poster, parse(json)?)
    }

    fn check(poster: &Poster, incoming: Incoming) -> Result<Self, Refusal> {
        let Incoming { topics, has_list, event } = incoming;
        let event = event.publisher(poster.publisher);
        Ok(Self { checked: poster.caller.check(&topics, event)?, has_list })
    }

    /// Whether the post has one topic, and no list.
    pub fn is_single(&self) -> bool {
        !self.has_list && self.checked.topics().len() == 1
    }

    pub fn into_checked(self) -> CheckedPost {
        self.checked
    }
}

/// Hands posts over in order. The returned future resolves to an answer for each post, refused
/// posts included.
async fn enqueue(
    hub: &Hub,
    posts: Vec<Result<IncomingPost, Refusal>>,
    after_refusal: AfterRefusal,
) -> BoxFuture<'static, Vec<Result<PostAnswer, Refusal>>> {
    let mut checked = Vec::with_capacity(posts.len());
    let parsed: Vec<Result<bool, Refusal>> = posts
        .into_iter()
        .map(|post| {
            let post = post?;
            checked.push(post.checked);
            Ok(post.has_list)
        })
        .collect();
    let answers = hub.enqueue(checked, after_refusal).await;
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
    if let [_] = post.checked.topics() {
        let answer = hub.publish_checked(post.checked).await?;
        return Ok(shape(post.has_list, vec![answer]));
    }
    let answer = enqueue(hub, vec![Ok(post)], AfterRefusal::Continue).await.await.pop();
    answer.ok_or(PublishError::Internal)?
}

/// Checks all events before the first is published, then publishes them in groups. It keeps no
/// checked event between the two: an array of tiny events would multiply its size.
async fn array(poster: &Poster, body: Body) -> Result<HttpResponse, Refusal> {
    let (body, items) = body.decode(items).await?;
    poster.count(items.len())?;
    let (mut answer_bytes, mut forbidden) = (0, Forbidden::default());
    for (index, item) in items.iter().enumerate() {
        let post = IncomingPost::parse(poster, &body[item.clone()]).map_err(at(index));
        let Some(post) = forbidden.take(post)? else { continue };
        let topics = post.checked.topics();
        answer_bytes +=
            topics.iter().map(|topic| ANSWER_BYTES + topic.as_str().len()).sum::<usize>();
        if index % MAX_POSTS_AT_ONCE == MAX_POSTS_AT_ONCE - 1 {
            tokio::task::yield_now().await;
        }
    }
    forbidden.refuse()?;
    body.reserve(answer_bytes + size_of_val(&*items))?;
    let mut answers = ArrayAnswer::new();
    for (number, group) in items.chunks(MAX_POSTS_AT_ONCE).enumerate() {
        let posts = group.iter().map(|item| IncomingPost::parse(poster, &body[item.clone()]));
        let results = enqueue(&poster.hub, posts.collect(), AfterRefusal::Stop).await.await;
        answers.add_all(number * MAX_POSTS_AT_ONCE, results)?;
    }
    Ok(HttpResponse::Ok().content_type(ContentType::json()).body(answers.into_json()))
}

/// The places of an array's events.
fn items(json: &[u8]) -> Result<Vec<Range<usize>>, Refusal> {
    let items: Vec<&RawValue> = serde_json::from_slice(json).map_err(bad_json)?;
    let place = |item: &RawValue| {
        let start = item.get().as_ptr().addr() - json.as_ptr().addr();
        start..start + item.get().len()
    };
    // In the list's own memory: both kinds of items have the same size.
    Ok(items.into_iter().map(place).collect())
}

/// Names the refused event of an array.
fn at(index: usize) -> impl Fn(Refusal) -> Refusal {
    move |mut refusal| {
        refusal.error.index = Some(index);
        refusal
    }
}

/// Answers line by line while the request is still arriving. A small request arriving at once gets
/// its answer in one piece: an answer begun before the end of its request costs an HTTP/1.1
/// connection, and the publisher the time for a new one.
async fn lines(poster: Poster, mut lines: BodyLines) -> HttpResponse {
    body::until_received().await;
    let (mut arrived, mut bytes) = (Vec::new(), 0);
    let is_whole = timeout(PATIENCE, async {
        while arrived.len() < MAX_LINES_AT_ONCE * MAX_AWAITED && bytes < MAX_BYTES_AT_ONCE {
            match lines.next().await {
                Some(line) => {
                    bytes += line.len();
                    arrived.push(line);
                }
                None => return true,
            }
        }
        false
    });
    if is_whole.await.unwrap_or(false) {
        return answer_all_lines(&enqueue_lines(&poster, arrived).await.await);
    }
    let held = lines.held();
    answer_as_read(poster, held, stream::iter(arrived).chain(lines))
}

#[allow(
    clippy::async_yields_async,
    reason = "lines are handed over in order, their answers awaited together"
)]
fn answer_as_read(
    poster: Poster,
    held: Arc<RequestBytes>,
    lines: impl Stream<Item = BodyLine> + 'static,
) -> HttpResponse {
    let answers = ready_groups(lines).then(move |lines| {
        let poster = poster.clone();
        async move { enqueue_lines(&poster, lines).await }
    });
    answer_lines(held, answers.buffered(MAX_AWAITED).flat_map(stream::iter))
}

/// Lines ready together, in groups bounded by number and bytes.
fn ready_groups(
    lines: impl Stream<Item = BodyLine> + 'static,
) -> impl Stream<Item = Vec<BodyLine>> + 'static {
    let mut lines = lines.boxed_local().fuse();
    stream::poll_fn(move |task| {
        let (mut group, mut bytes) = (Vec::new(), 0);
        while group.len() < MAX_LINES_AT_ONCE && bytes < MAX_BYTES_AT_ONCE {
            match lines.poll_next_unpin(task) {
                Poll::Ready(Some(line)) => {
                    bytes += line.len();
                    group.push(line);
                }
                Poll::Ready(None) if group.is_empty() => return Poll::Ready(None),
                Poll::Pending if group.is_empty() => return Poll::Pending,
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        Poll::Ready(Some(group))
    })
}

/// Hands arrived lines over in order. The returned future resolves to their answers.
async fn enqueue_lines(
    poster: &Poster,
    lines: Vec<BodyLine>,
) -> BoxFuture<'static, Vec<LineAnswer>> {
    let posts = lines.into_iter().map(|line| {
        // The token may end or be revoked during the request.
        poster.caller.check_event()?;
        poster.count(1)?;
        IncomingPost::parse(poster, &line.bytes?)
    });
    let answers = enqueue(&poster.hub, posts.collect(), AfterRefusal::Continue).await;
    let hub = poster.hub.clone();
    let refused = move |refusal: Refusal| {
        count_line(&hub, &refusal);
        LineAnswer::Refused { success: false, error: refusal.error }
    };
    let answers = answers.map(move |answers| {
        let answers = answers.into_iter();
        answers.map(|answer| answer.map_or_else(&refused, LineAnswer::Taken)).collect()
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
    let mut answers = published.into_iter().map(EventAnswer::from);
    if has_list { PostAnswer::Many(answers.collect()) } else { PostAnswer::One(answers.next()) }
}
