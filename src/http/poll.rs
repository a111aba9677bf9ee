//! `GET`, `HEAD` and `POST /poll`: long polling, for networks holding streams back. A poll is a
//! stream ended by its first answer, so cursors, limits and refusals are those of a stream.

use std::{fmt::Write as _, future::poll_fn, sync::Arc, time::Duration};

use actix_web::{
    Error, HttpRequest, HttpResponse, HttpResponseBuilder, ResponseError,
    dev::RequestHead,
    http::header::{CACHE_CONTROL, RETRY_AFTER},
    web::{Bytes, Data, Payload},
};
use fanfare_core::{
    access::Grant,
    error::{ErrorCode, SubscribeError},
    subscription::{Format, StreamOptions, Subscription},
};
use futures_util::stream::empty;
use serde::Deserialize;

use super::{
    refusal::{Refusal, retry_after_seconds},
    stream::{StreamQuery, query, read_posted},
    upgrade::refuse_websocket,
};
use crate::{
    hub::{Hub, UseKind},
    transport::{NewStream, PollReader, PollSpec},
};

/// The wait without `wait=`: below the usual timeout of proxies, 30 s.
const DEFAULT_WAIT: Duration = Duration::from_secs(25);

/// The longest wait: proxies and networks end longer requests.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// The wait in a body: seconds, or a duration.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Wait {
    Seconds(f64),
    Text(String),
}

impl Wait {
    /// The wait, [`MAX_WAIT`] at most. Without a unit, a number means seconds.
    fn duration(&self) -> Result<Duration, Refusal> {
        let duration = match self {
            Self::Seconds(seconds) => seconds_of(*seconds),
            Self::Text(text) => match text.parse() {
                Ok(seconds) => seconds_of(seconds),
                Err(_) => humantime::parse_duration(text).ok(),
            },
        };
        let message = "`wait` is a number of seconds from 0 to 60, or a duration like `25s`";
        let refusal = || Refusal::new(ErrorCode::BadQuery, message);
        duration.map(|wait| wait.min(MAX_WAIT)).ok_or_else(refusal)
    }
}

fn seconds_of(seconds: f64) -> Option<Duration> {
    (seconds >= 0.0).then(|| Duration::from_secs_f64(seconds.min(MAX_WAIT.as_secs_f64())))
}

/// `GET`: the query names the topics.
pub(crate) async fn get(hub: Data<Hub>, request: HttpRequest) -> Result<HttpResponse, Refusal> {
    let query = query(request.head())?;
    let subscription = query.subscription().or_options(query.options(request.head())?);
    let wait = wait_of(&query)?;
    let stream = open(&hub, request.head(), query.ticket(), subscription).await?;
    wait_for(&hub, stream, wait).await
}

/// `HEAD`: the head of the answer to `GET`, at once.
pub(crate) async fn head(hub: Data<Hub>, request: HttpRequest) -> Result<HttpResponse, Refusal> {
    let query = query(request.head())?;
    wait_of(&query)?;
    let subscription = query.subscription().or_options(query.options(request.head())?);
    let admission = hub.admit(request.head(), query.ticket(), &subscription, UseKind::Poll).await?;
    create_stream(&hub, request.head(), subscription, &admission.grant)?.start();
    Ok(answer_head().streaming(empty::<Result<Bytes, Error>>()))
}

/// `POST`: the body names topics and options, as JSON.
pub(crate) async fn post(
    hub: Data<Hub>,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, Refusal> {
    let (subscription, wait) = read_posted(&hub, &request, payload).await?;
    let wait = wait.as_ref().map_or(Ok(DEFAULT_WAIT), Wait::duration)?;
    let stream = open(&hub, request.head(), None, subscription).await?;
    wait_for(&hub, stream, wait).await
}

/// An application's poll: the subscription names the topics.
pub(crate) async fn answer(
    hub: &Hub,
    request: &HttpRequest,
    subscription: Subscription,
) -> Result<HttpResponse, Refusal> {
    let query = query(request.head())?;
    let subscription = subscription.or_options(query.options(request.head())?);
    let grant = hub.parts().access.grant_of_subscription(&subscription)?;
    let wait = wait_of(&query)?;
    let stream = create_stream(hub, request.head(), subscription, &grant)?;
    wait_for(hub, stream, wait).await
}

/// Creates a poll for a transport with its own loop. `None` if it is refused: the endpoint then
/// answers.
pub(crate) async fn create(hub: &Hub, head: &RequestHead) -> Option<(NewStream, PollSpec)> {
    let query = query(head).ok()?;
    let wait = wait_of(&query).ok()?;
    let subscription = query.subscription().or_options(query.options(head).ok()?);
    let stream = open(hub, head, query.ticket(), subscription).await.ok()?;
    Some((stream, spec(hub, wait)))
}

pub(super) async fn wait_for(
    hub: &Hub,
    stream: NewStream,
    wait: Duration,
) -> Result<HttpResponse, Refusal> {
    let mut reader = PollReader::start(stream, spec(hub, wait));
    let answer = poll_fn(|task| reader.poll_answer(task)).await?;
    Ok(answer_head().body(answer))
}

/// Opens the stream of a caller's poll.
async fn open(
    hub: &Hub,
    head: &RequestHead,
    ticket: Option<&str>,
    subscription: Subscription,
) -> Result<NewStream, Refusal> {
    let admission = hub.admit(head, ticket, &subscription, UseKind::Poll).await?;
    let stream = create_stream(hub, head, subscription, &admission.grant)?;
    Ok(hub.begin(admission, stream, UseKind::Poll).await?)
}

/// Creates the stream of a poll.
fn create_stream(
    hub: &Hub,
    head: &RequestHead,
    subscription: Subscription,
    grant: &Arc<Grant>,
) -> Result<NewStream, Refusal> {
    refuse_websocket(head)?;
    let format = StreamOptions { format: Some(Format::Poll), ..StreamOptions::default() };
    let share = hub.parts().stream_share(head)?;
    Ok(hub.create_stream(subscription.with_options(format), share, grant)?)
}

fn spec(hub: &Hub, wait: Duration) -> PollSpec {
    PollSpec { wait, max_bytes: hub.parts().config.poll.max_bytes }
}

pub(super) fn wait_of(query: &StreamQuery) -> Result<Duration, Refusal> {
    let wait = query.wait.first().cloned().map(Wait::Text);
    wait.map_or(Ok(DEFAULT_WAIT), |wait| wait.duration())
}

/// The head of every answer: a cached one would repeat its events.
fn answer_head() -> HttpResponseBuilder {
    let mut head = HttpResponse::Ok();
    head.content_type("application/json").insert_header((CACHE_CONTROL, "no-store"));
    head
}

/// The whole response on a bare socket, with further header lines.
pub(crate) fn raw_response(answer: Result<String, SubscribeError>, more_lines: &str) -> Vec<u8> {
    let (mut head, body) = match answer {
        Ok(body) => (String::from("HTTP/1.1 200 OK\r\n"), body),
        Err(error) => {
            let refusal = Refusal::from(error);
            let body = serde_json::to_string(&refusal).expect("codes and texts serialize");
            let (status, seconds) = (refusal.status_code(), retry_after_seconds());
            (format!("HTTP/1.1 {status}\r\n{RETRY_AFTER}: {seconds}\r\n"), body)
        }
    };
    let date = httpdate::HttpDate::from(std::time::SystemTime::now());
    let written = write!(
        head,
        "content-length: {}\r\nconnection: close\r\ncontent-type: application/json\r\n\
         cache-control: no-store\r\n{more_lines}date: {date}\r\n\r\n",
        body.len(),
    );
    written.expect("writing to memory cannot fail");
    [head.into_bytes(), body.into_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_seconds_or_a_duration_and_at_most_a_minute() {
        let text = |text: &str| Wait::Text(text.to_owned()).duration().ok();
        assert_eq!(text("0"), Some(Duration::ZERO));
        assert_eq!(text("1.5"), Some(Duration::from_millis(1500)));
        assert_eq!(text("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(
            (text("61"), text("1h"), text("1e300")),
            (Some(MAX_WAIT), Some(MAX_WAIT), Some(MAX_WAIT))
        );
        assert_eq!((text("-1"), text("nan"), text("soon"), text("")), (None, None, None, None));
        assert_eq!(Wait::Seconds(2.0).duration().ok(), Some(Duration::from_secs(2)));
    }
}
