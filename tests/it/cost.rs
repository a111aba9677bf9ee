//! What one client may cost: every list and body of a request has a limit, and a request over a
//! limit takes nothing from others.

use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::support::{
    Server, Stream,
    http::{Lines, Response, get, request, request_head, try_publish},
    until,
    wait::DEADLINE,
};

async fn post(server: &Server, path: &str, body: &Value) -> Response {
    let headers = [("Content-Type", "application/json")];
    request(server.addr, "POST", path, &headers, body.to_string().as_bytes()).await
}

fn refused(response: &Response, status: u16, code: &str) {
    assert_eq!((response.status, response.code().as_str()), (status, code), "{}", response.text());
}

fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix}{number}")).collect()
}

#[tokio::test]
async fn a_stream_has_at_most_64_types() {
    let server = Server::start(&["--no-demo"]).await;
    for count in [65, 350_000] {
        let body = json!({"topics": ["**"], "types": names("t", count), "lastEventId": "earliest"});
        refused(&post(&server, "/events/stream", &body).await, 400, "too_many_types");
    }
    let query = format!("/events/stream?topic=a&types={}", names("t", 65).join(","));
    refused(&get(server.addr, &query).await, 400, "too_many_types");
    let query = format!("topic=a&types={}", names("t", 64).join(","));
    let mut stream = Stream::subscribe(server.addr, &query).await;
    for event in ["t64", "t63", "t0"] {
        server.publish(json!({"topic": "a", "event": event, "data": event})).await;
    }
    assert_eq!(stream.take_data(2).await, ["t63", "t0"]);
}

#[tokio::test]
async fn a_stream_has_at_most_100_patterns_also_after_a_change() {
    let server = Server::start(&["--no-demo"]).await;
    let patterns: Vec<String> = names("a", 101).iter().map(|name| format!("{name}:*")).collect();
    let body = json!({ "topics": patterns });
    refused(&post(&server, "/events/stream", &body).await, 400, "too_many_patterns");
    let body = json!({ "topics": patterns[1..] }).to_string();
    let mut stream =
        Stream::request(server.addr, "POST", "/events/stream", &[], body.as_bytes()).await;
    stream.read_connected().await;
    let client = stream.connected["clientId"].as_str().expect("a client id").to_owned();
    let path = format!("/events/streams/{client}/topics");
    refused(&post(&server, &path, &json!({"add": ["b:*"]})).await, 400, "too_many_patterns");
    let swap = json!({"add": ["b:*"], "remove": ["a1:*"]});
    assert_eq!(post(&server, &path, &swap).await.status, 200);
    server.publish(json!({"topic": "a1:x", "data": "left"})).await;
    server.publish(json!({"topic": "b:x", "data": "added"})).await;
    assert_eq!(stream.next().await.data, "added");
}

#[tokio::test]
async fn a_publish_to_more_topics_than_permits_is_refused_at_once() {
    // Without a bound on waiting: a post waiting in vain would never be answered.
    let server =
        Server::with_config("[hub]\npartitions = 1\n[publish]\nmax_pending = 8\nmax_wait = \"1h\"")
            .await;
    let body = json!({"topics": names("a", 9), "data": 1});
    refused(&try_publish(server.addr, &body).await, 400, "too_many_topics");
    let body = json!({"topics": names("a", 8), "data": 1});
    assert_eq!(try_publish(server.addr, &body).await.json().as_array().map(Vec::len), Some(8));
    assert_eq!(server.stats().await["published"], 8);
}

#[tokio::test]
async fn a_topic_named_twice_gets_its_event_once() {
    let server = Server::start(&["--no-demo"]).await;
    let mut stream = Stream::subscribe(server.addr, "topics=a,b").await;
    let answers = server.publish(json!({"topics": ["a", "b", "a", "a"], "data": 1})).await;
    let topics: Vec<&str> = answers
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|one| one["topic"].as_str())
        .collect();
    assert_eq!(topics, ["a", "b"]);
    server.publish(json!({"topic": "a", "data": "last"})).await;
    let data = stream.take_data(3).await;
    assert_eq!(data.iter().filter(|data| *data == "1").count(), 2, "{data:?}");
}

#[tokio::test]
async fn one_body_is_kept_for_all_topics_of_a_publish() {
    let server = Server::start(&["--no-demo"]).await;
    let before = server.metric("process_resident_memory_bytes").await;
    for number in 0..4 {
        let topics = names(&format!("a{number}:"), 2000);
        let body = json!({"topics": topics, "data": "x".repeat(60_000)});
        assert_eq!(try_publish(server.addr, &body).await.status, 200);
    }
    // A copy for each topic would be 480 MB.
    let grown = server.metric("process_resident_memory_bytes").await - before;
    assert!(grown < 60e6, "{grown}");
    assert!(server.metric("fanfare_history_bytes").await < 20e6);
}

#[tokio::test]
async fn an_array_of_tiny_events_costs_its_own_size_and_its_answer() {
    let server = Server::start(&["--no-demo"]).await;
    let before = server.metric("process_resident_memory_bytes").await;
    let events = vec![json!({"topic": "a", "data": 1}); 100_000];
    let response = post(&server, "/events/publish", &json!(events)).await;
    assert_eq!(response.status, 200, "{}", &response.text()[..200.min(response.text().len())]);
    let answers = response.json();
    let answers = answers.as_array().expect("an array");
    assert_eq!(answers.len(), 100_000);
    assert!(answers.iter().enumerate().all(|(at, one)| one["sequence"] == at + 1));
    let grown = server.metric("process_resident_memory_bytes").await - before;
    assert!(grown < 60e6, "{grown}");
}

/// Sends the head and a part of a body, and leaves the request unfinished.
async fn unfinished(server: &Server, sent: usize, length: usize) -> TcpStream {
    let mut socket = TcpStream::connect(server.addr).await.expect("the server accepts");
    let headers = [("Content-Type", "application/json")];
    let head = request_head(server.addr, "POST", "/events/publish", &headers, &vec![0; length]);
    socket.write_all(&head).await.expect("it is open");
    // A refusal may close the socket before all is written.
    let _ = socket.write_all(&vec![b' '; sent]).await;
    socket
}

#[tokio::test]
async fn unfinished_bodies_share_a_budget_and_leave_room_for_small_ones() {
    let server = Server::with_config("[hub]\nmax_request_bytes = \"2MiB\"").await;
    let held = async || server.metric("fanfare_request_bytes").await;
    let mut sockets = Vec::new();
    for _ in 0..20 {
        sockets.push(unfinished(&server, 256 * 1024, 512 * 1024).await);
        assert!(held().await <= 2.0 * 1024.0 * 1024.0);
    }
    until(DEADLINE, "the budget is in use", async || held().await > 1.2e6).await;
    let large = json!(vec![json!({"topic": "a", "data": "x".repeat(60_000)}); 16]);
    refused(&post(&server, "/events/publish", &large).await, 503, "at_capacity");
    server.publish(json!({"topic": "a", "data": "small"})).await;
    drop(sockets);
    until(DEADLINE, "the budget is free again", async || held().await == 0.0).await;
    assert_eq!(post(&server, "/events/publish", &large).await.status, 200);
    assert_eq!(held().await, 0.0);
}

#[tokio::test]
async fn an_idle_body_of_lines_is_ended_and_delays_no_shutdown() {
    let server = Server::with_config("[publish]\nmax_idle = \"300ms\"").await;
    let mut lines = Lines::open(server.addr, "{\"topic\":\"a\",\"data\":1}\n").await;
    assert_eq!(lines.reader.next().await.expect("an answer")["success"], true);
    let last = lines.reader.next().await.expect("the end");
    assert_eq!(last["error"]["code"], "body_timeout");
    assert!(lines.reader.next().await.is_none());

    let mut server = Server::with_config("[server]\ndrain = \"1h\"").await;
    let mut lines = Lines::open(server.addr, "{\"topic\":\"a\",\"data\":1}\n").await;
    assert_eq!(lines.reader.next().await.expect("an answer")["success"], true);
    server.terminate();
    let last = lines.reader.next().await.expect("the end");
    assert_eq!(last["error"]["code"], "draining");
    assert!(lines.reader.next().await.is_none());
    assert!(server.wait_exit(DEADLINE).await.success());
}

#[tokio::test]
async fn a_subscription_s_limit_counts_decoded_bytes() {
    let server = Server::start(&["--no-demo"]).await;
    let topics: Vec<String> =
        (0..10_000).map(|number| format!("{number:05}{}", "\\u00e9".repeat(125))).collect();
    let body = format!("{{\"topics\":[\"{}\"]}}", topics.join("\",\""));
    let mut stream =
        Stream::request(server.addr, "POST", "/events/stream", &[], body.as_bytes()).await;
    stream.read_connected().await;
    assert_eq!(stream.connected["topics"].as_array().map(Vec::len), Some(10_000));
    let body = format!("{{\"topics\":[\"{}\"]}}", "\\u00e9".repeat(4 * 1024 * 1024 - 8));
    let response = request(server.addr, "POST", "/events/stream", &[], body.as_bytes()).await;
    refused(&response, 413, "payload_too_large");
}

/// Above the limit of unread answers, 16 MiB, and what the kernel buffers of them.
const UNREAD_LINES: usize = 60_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_answers_of_ndjson_are_bounded_and_all_of_them_come() {
    let server = Server::start(&["--no-demo"]).await;
    // In JSON each quote takes two bytes, so an answer has some 700.
    let topic = "\"".repeat(250);
    let line = json!({"topic": topic, "data": 1}).to_string();
    let mut lines = Lines::open(server.addr, &line).await;
    let some = vec![line; 500].join("\n");
    let writing = tokio::spawn(async move {
        for _ in 0..UNREAD_LINES / 500 {
            lines.writer.send(&some).await;
        }
        lines.writer.finish().await;
        // Dropped, it would close the sending side: the hub then takes the client for gone.
        lines.writer
    });
    let held = async || server.metric("fanfare_request_bytes").await;
    let (mut published, mut unchanged) = (0.0, 0);
    until(6 * DEADLINE, "the hub stops reading", async || {
        let now = server.metric("fanfare_events_published_total").await;
        unchanged = if now == published { unchanged + 1 } else { 0 };
        published = now;
        unchanged > 20 && held().await > 16e6
    })
    .await;
    assert!(published < UNREAD_LINES as f64, "the hub reads on: {published}");
    assert!(held().await < 17.5e6, "{}", held().await);
    let mut answered = 0;
    while let Some(answer) = lines.reader.next().await {
        answered += 1;
        assert_eq!(answer["sequence"], answered);
    }
    assert_eq!(answered, UNREAD_LINES + 1);
    writing.await.expect("no panic");
    until(DEADLINE, "nothing is held any more", async || held().await == 0.0).await;
}
