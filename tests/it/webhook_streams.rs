//! Open streams with a grant by the application's webhook: the hub asks again at the end of each
//! answer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    Server,
    support::{
        Stream,
        http::request,
        until,
        wait::DEADLINE,
        web::{Received, WebServer},
    },
};

/// A caller with an open stream.
const ANN: (&str, &str) = ("Cookie", "session=ann");

/// The backend, granted everything at any time.
const BACKEND: (&str, &str) = ("Cookie", "session=backend");

/// An application with this answer about everybody but the backend.
async fn application(
    answer: impl Fn(&Received) -> (u16, String) + Send + Sync + 'static,
) -> WebServer {
    let web = WebServer::start(|_| (500, String::new())).await;
    answers(&web, answer);
    web
}

fn answers(web: &WebServer, answer: impl Fn(&Received) -> (u16, String) + Send + Sync + 'static) {
    web.answers(move |received| match received.header("cookie").as_deref() {
        Some("session=backend") => (200, grant("backend", &["**"], 600_000)),
        _ => answer(received),
    });
}

fn grant(user: &str, patterns: &[&str], life_ms: u64) -> String {
    json!({"user": user, "subscribe": patterns, "publish": patterns, "expiresMs": life_ms})
        .to_string()
}

/// The number of questions about the caller.
fn asked(web: &WebServer) -> usize {
    let all = web.received();
    all.iter().filter(|one| one.header("cookie").as_deref() == Some(ANN.1)).count()
}

async fn hub(web: &WebServer, more: &str) -> Server {
    let url = web.url("/decide");
    Server::with_config(&format!(
        "[access]\nenabled = true\n[access.webhook]\nurl = {url:?}\n{more}\n"
    ))
    .await
}

async fn open(server: &Server, query: &str) -> Stream {
    Stream::subscribe_with(server.addr, query, &[ANN]).await
}

async fn publish(server: &Server, topic: &str, data: &str) -> Value {
    let own = format!("http://{}", server.addr);
    let headers = [BACKEND, ("Origin", &own), ("Content-Type", "application/json")];
    let body = json!({"topic": topic, "data": data}).to_string();
    let answer = request(server.addr, "POST", "/events/publish", &headers, body.as_bytes()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

async fn end_of(stream: &mut Stream) -> String {
    let events = stream.rest().await;
    let last = events.last().expect("a shutdown");
    assert_eq!(last.event, "shutdown", "{events:?}");
    assert!(events.iter().all(|event| event.event != "renew"), "the hub itself asks: {events:?}");
    last.json()["reason"].as_str().expect("a reason").to_owned()
}

#[tokio::test]
async fn a_refused_session_ends_its_stream() {
    for status in [401, 403] {
        let web = application(|_| (200, grant("ann", &["a:*"], 300))).await;
        let server = hub(&web, "").await;
        let mut stream = open(&server, "topic=a:1").await;
        until(DEADLINE, "the hub asks again, and again", async || asked(&web) > 2).await;
        publish(&server, "a:1", "x").await;
        assert_eq!(stream.next().await.data, "x");
        answers(&web, move |_| (status, String::new()));
        assert_eq!(end_of(&mut stream).await, "token");
        let question: Value = serde_json::from_str(&web.received()[1].body).expect("JSON");
        assert_eq!(
            (&question["action"], &question["topics"]),
            (&json!("subscribe"), &json!(["a:1"]))
        );
    }
}

#[tokio::test]
async fn a_session_of_another_user_ends_the_stream() {
    let web = application(|_| (200, grant("ann", &["a:*"], 300))).await;
    let server = hub(&web, "").await;
    let mut stream = open(&server, "topic=a:1").await;
    answers(&web, |_| (200, grant("bob", &["a:*"], 60_000)));
    assert_eq!(end_of(&mut stream).await, "token");
}

#[tokio::test]
async fn streams_of_one_session_ask_together() {
    let web = application(|_| (200, grant("ann", &["a:*"], 2000))).await;
    let server = hub(&web, "").await;
    let mut streams = Vec::new();
    for _ in 0..30 {
        streams.push(open(&server, "topic=a:1").await);
    }
    let (long, count) = (Arc::new(AtomicUsize::new(0)), |long: &AtomicUsize| long.load(SeqCst));
    let given = long.clone();
    answers(&web, move |_| {
        given.fetch_add(1, SeqCst);
        (200, grant("ann", &["a:*"], 600_000))
    });
    until(DEADLINE, "the hub asks again", async || count(&long) > 0).await;
    publish(&server, "a:1", "x").await;
    for stream in &mut streams {
        assert_eq!(stream.next().await.data, "x");
    }
    assert_eq!(count(&long), 1);
}

#[tokio::test]
async fn a_narrower_grant_removes_topics() {
    let web = application(|_| (200, grant("ann", &["a:*", "b:*"], 300))).await;
    let server = hub(&web, "").await;
    let mut stream = open(&server, "topics=a:1,b:1,b:*").await;
    answers(&web, |_| (200, grant("ann", &["a:*"], 600_000)));
    until(DEADLINE, "the stream loses its topics", async || {
        publish(&server, "b:1", "early").await["receivers"] == 0
    })
    .await;
    publish(&server, "b:2", "late").await;
    publish(&server, "a:1", "x").await;
    let mut event = stream.next().await;
    while event.data == "early" {
        event = stream.next().await;
    }
    assert_eq!(event.data, "x");
}

#[tokio::test]
async fn a_stream_stays_while_the_application_is_down_for_less_than_the_grace() {
    let web = application(|_| (200, grant("ann", &["a:*"], 300))).await;
    let server = hub(&web, "timeout = \"500ms\"").await;
    let mut stream = open(&server, "topic=a:1").await;
    answers(&web, |_| (500, String::new()));
    let failed = asked(&web);
    until(DEADLINE, "the hub asks in vain", async || asked(&web) > failed + 1).await;
    publish(&server, "a:1", "1").await;
    assert_eq!(stream.next().await.data, "1");
    // No new stream meanwhile.
    let refused = request(server.addr, "GET", "/events/stream?topic=a:1", &[ANN], b"").await;
    assert_eq!(refused.code(), "access_down");
    answers(&web, |_| (200, grant("ann", &["a:*"], 600_000)));
    until(Duration::from_secs(30), "new streams open", async || {
        let stream = Stream::try_get(server.addr, "/events/stream?topic=a:1", &[ANN]).await;
        stream.is_ok_and(|stream| stream.head.status == 200)
    })
    .await;
    publish(&server, "a:1", "2").await;
    assert_eq!(stream.next().await.data, "2");
}

#[tokio::test]
async fn a_stream_ends_after_the_grace_without_an_answer() {
    for is_silent in [false, true] {
        let web = application(|_| (200, grant("ann", &["a:*"], 300))).await;
        let server = hub(&web, "timeout = \"200ms\"\ngrace = \"2s\"").await;
        publish(&server, "a:1", "0").await;
        let mut stream = open(&server, "topic=a:1").await;
        answers(&web, |_| (503, String::new()));
        let before = asked(&web);
        web.set_silent(is_silent);
        until(DEADLINE, "the hub asks in vain", async || asked(&web) > before).await;
        publish(&server, "a:1", "1").await;
        assert_eq!(stream.next().await.data, "1");
        assert_eq!(end_of(&mut stream).await, "token");
    }
}

/// The code of a refused use of a ticket; none for a stream.
async fn refused(server: &Server, query: &str) -> Option<String> {
    let path = format!("/events/stream?{query}");
    let stream = Stream::request(server.addr, "GET", &path, &[], b"").await;
    if stream.head.status == 200 {
        return None;
    }
    Some(request(server.addr, "GET", &path, &[], b"").await.code())
}

/// A plain `EventSource` sends neither cookies of another site nor tokens, and reconnects with the
/// same URL.
#[tokio::test]
async fn a_ticket_resumes_as_long_as_the_application_grants_its_topics() {
    let web = application(|_| (200, grant("ann", &["a:*"], 300))).await;
    let server = hub(&web, "").await;
    let own = format!("http://{}", server.addr);
    let headers = [ANN, ("Origin", &own), ("Content-Type", "application/json")];
    let answer = request(server.addr, "POST", "/events/tickets", &headers, b"").await.json();
    let query = format!("topic=a:1&ticket={}", answer["ticket"].as_str().expect("a ticket"));
    let mut stream = Stream::subscribe(server.addr, &query).await;
    for round in ["1", "2", "3"] {
        publish(&server, "a:1", round).await;
        assert_eq!(stream.take_data(1).await, [round]);
        let (id, before) = (stream.last_id().to_owned(), asked(&web));
        until(DEADLINE, "the first answer ends", async || asked(&web) > before + 1).await;
        drop(stream);
        publish(&server, "a:1", "missed").await;
        stream = Stream::resume(server.addr, &query, &id).await;
        assert_eq!(stream.connected["resumed"], true);
        assert_eq!(stream.take_data(1).await, ["missed"]);
    }
    // A URL found in a log opens nothing.
    assert_eq!(refused(&server, &query).await.as_deref(), Some("unauthenticated"));
    let resumed = format!("{query}&last_event_id={}", stream.last_id());
    let until_refused = async |code: &str| {
        until(DEADLINE, code, async || refused(&server, &resumed).await.as_deref() == Some(code))
            .await;
    };
    answers(&web, |_| (200, grant("ann", &["b:*"], 300)));
    until_refused("forbidden").await;
    answers(&web, |_| (200, grant("bob", &["**"], 300)));
    until_refused("unauthenticated").await;
    answers(&web, |_| (403, String::new()));
    until_refused("forbidden").await;
    answers(&web, |_| (401, String::new()));
    until_refused("unauthenticated").await;
    answers(&web, |_| (500, String::new()));
    until_refused("access_down").await;
    answers(&web, |_| (200, grant("ann", &["a:*"], 60_000)));
    until(Duration::from_secs(30), "the ticket resumes again", async || {
        refused(&server, &resumed).await.is_none()
    })
    .await;
}
