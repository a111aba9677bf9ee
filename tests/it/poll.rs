//! Long polling: the same events, cursors and refusals as on a stream, one answer at a time.

use std::{net::SocketAddr, time::Duration};

use serde_json::{Value, json};
use tokio::time::Instant;

use super::Server;
use crate::support::{
    Stream,
    http::{Response, get, request},
    wait::DEADLINE,
};

async fn server() -> Server {
    Server::start(&["--no-demo"]).await
}

async fn poll(server: &Server, query: &str) -> Value {
    let answer = get(server.addr, &format!("/events/poll?{query}")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

fn cursor(answer: &Value) -> &str {
    answer["cursor"].as_str().expect("a cursor")
}

fn data(answer: &Value) -> Vec<&Value> {
    answer["events"].as_array().expect("a list").iter().map(|event| &event["data"]).collect()
}

async fn publish(server: &Server, topic: &str, data: Value) -> Value {
    server.publish(json!({"topic": topic, "data": data})).await
}

/// A poll in a task of its own, waiting at the hub: its only stream.
async fn waiting(server: &Server, query: &str) -> tokio::task::JoinHandle<Response> {
    // An answered poll is counted until its connection has ended.
    server.until_streams(0).await;
    let (addr, path): (SocketAddr, _) = (server.addr, format!("/events/poll?{query}"));
    let poll = tokio::spawn(async move { get(addr, &path).await });
    server.until_streams(1).await;
    poll
}

#[tokio::test]
async fn a_poll_without_a_cursor_answers_the_position_now_and_the_next_one_the_later_events() {
    let server = server().await;
    publish(&server, "a", json!("before")).await;
    let now = poll(&server, "topic=a&wait=60").await;
    assert_eq!(now["events"], json!([]));
    assert_eq!(now["resumed"], false);
    assert!(now.get("gap").is_none(), "{now}");
    server
        .publish(json!({"topic": "a", "event": "t", "key": "k", "data": {"x": [1.50, null]}}))
        .await;
    publish(&server, "a", json!("two\nlines")).await;
    let query = format!("topic=a&last_event_id={}", cursor(&now));
    let answer = poll(&server, &query).await;
    let events = answer["events"].as_array().expect("a list");
    let mut first = events[0].clone();
    first.as_object_mut().expect("an object").remove("id");
    assert_eq!(first, json!({"topic": "a", "event": "t", "key": "k", "data": {"x": [1.5, null]}}));
    assert_eq!(events[1]["data"], "two\nlines");
    assert!(events[1].get("event").is_none() && events[1].get("key").is_none(), "{answer}");
    assert_eq!(answer["resumed"], true);
    // The same position; the cursor of a poll has the time of the answer.
    let position =
        |id: &Value| id.as_str().expect("an id").split_once('.').expect("a time").1.to_owned();
    assert_eq!(position(&events[1]["id"]), position(&answer["cursor"]));
}

#[tokio::test]
async fn a_waiting_poll_answers_as_soon_as_there_is_an_event() {
    let server = server().await;
    let now = poll(&server, "topic=a").await;
    let waiting = waiting(&server, &format!("topic=a&wait=60&lastEventId={}", cursor(&now))).await;
    let begin = Instant::now();
    publish(&server, "a", json!(1)).await;
    let answer = waiting.await.expect("an answer").json();
    assert_eq!(data(&answer), [&json!(1)]);
    assert!(begin.elapsed() < DEADLINE, "{:?}", begin.elapsed());
    server.until_streams(0).await;
}

#[tokio::test]
async fn without_an_event_a_poll_answers_empty_after_its_wait() {
    let server = server().await;
    let now = poll(&server, "topic=a").await;
    let begin = Instant::now();
    let answer = poll(&server, &format!("topic=a&wait=1&last_event_id={}", cursor(&now))).await;
    assert!(begin.elapsed() >= Duration::from_secs(1));
    assert_eq!(answer["events"], json!([]));
    // Its cursor continues.
    publish(&server, "a", json!(1)).await;
    let query = format!("topic=a&wait=0&last_event_id={}", cursor(&answer));
    assert_eq!(data(&poll(&server, &query).await), [&json!(1)]);
}

#[tokio::test]
async fn cursors_of_polls_and_streams_are_interchangeable() {
    let server = server().await;
    let mut id = cursor(&poll(&server, "topics=a,b:*").await).to_owned();
    for round in 0..6 {
        publish(&server, "a", json!(format!("{round}a"))).await;
        publish(&server, "b:x", json!(format!("{round}b"))).await;
        let expected = [format!("{round}a"), format!("{round}b")];
        let mut got: Vec<String> = if round % 2 == 0 {
            let mut stream = Stream::resume(server.addr, "topics=a,b:*", &id).await;
            let got = stream.take_data(2).await;
            id = stream.last_id().to_owned();
            got
        } else {
            let headers = [("Last-Event-ID", id.as_str())];
            let path = "/events/poll?topics=a,b:*";
            let answer = request(server.addr, "GET", path, &headers, b"").await.json();
            id = cursor(&answer).to_owned();
            data(&answer).iter().map(|data| data.as_str().expect("text").to_owned()).collect()
        };
        got.sort();
        assert_eq!(got, expected);
    }
}

#[tokio::test]
async fn an_answer_is_bounded_and_the_rest_comes_with_the_next_polls() {
    let server = Server::with_config("[poll]\nmax_bytes = \"16KiB\"\n").await;
    let mut cursor_text = cursor(&poll(&server, "topic=a:*").await).to_owned();
    for number in 0..100 {
        let data = format!("{number} {}", "x".repeat(1000));
        publish(&server, &format!("a:{}", number % 7), json!(data)).await;
    }
    publish(&server, "a:large", json!("y".repeat(60_000))).await;
    let (mut got, mut rounds) = (Vec::new(), 0);
    while got.len() < 101 {
        let path = format!("/events/poll?topic=a:*&wait=5&last_event_id={cursor_text}");
        let response = get(server.addr, &path).await;
        let answer = response.json();
        let count = data(&answer).len();
        assert!(response.body.len() <= 16 * 1024 || count == 1, "{}", response.body.len());
        assert!(count > 0 && answer.get("gap").is_none(), "{answer}");
        got.extend(data(&answer).iter().map(|data| data.as_str().expect("text").to_owned()));
        cursor_text = cursor(&answer).to_owned();
        rounds += 1;
    }
    assert!((7..=60).contains(&rounds), "{rounds}");
    let mut numbers: Vec<&str> = got.iter().filter_map(|data| data.split(' ').next()).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 101);
}

#[tokio::test]
async fn what_history_lost_is_a_gap_and_told_once() {
    let server = Server::with_config("[history]\nevents = 5\n").await;
    let now = poll(&server, "topic=a").await;
    for number in 0..9 {
        publish(&server, "a", json!(number)).await;
    }
    let answer = poll(&server, &format!("topic=a&last_event_id={}", cursor(&now))).await;
    assert_eq!(answer["gap"]["reason"], "history");
    assert_eq!(answer["resumed"], false);
    assert_eq!(data(&answer), [&json!(4), &json!(5), &json!(6), &json!(7), &json!(8)]);
    // Nothing the client wants is left: the gap is told without an event, and only once.
    let types = format!("topic=a&types=none&wait=0&last_event_id={}", cursor(&now));
    let after = cursor(&poll(&server, &types).await).to_owned();
    let again = poll(&server, &format!("topic=a&wait=0&last_event_id={after}")).await;
    assert!(again.get("gap").is_none(), "{again}");
    // An id of another epoch.
    let other = cursor(&now).replacen(|c: char| c != '0', "0", 1);
    let answer = poll(&server, &format!("topic=a&last_event_id={other}")).await;
    assert_eq!(answer["gap"]["reason"], "epoch");
    let again = poll(&server, &format!("topic=a&wait=0&last_event_id={}", cursor(&answer))).await;
    assert_eq!((again.get("gap"), data(&again).len()), (None, 0), "{again}");
}

#[tokio::test]
async fn a_poll_takes_every_start_of_a_stream() {
    let toml = "[[topics]]\npattern = \"k:*\"\nconflate = \"latest-by-key\"\n";
    let server = Server::with_config(toml).await;
    for (key, value) in [("x", 1), ("y", 2), ("x", 3)] {
        server.publish(json!({"topic": "k:a", "key": key, "data": value})).await;
    }
    let snapshot = poll(&server, "topic=k:*&snapshot=true").await;
    assert_eq!(data(&snapshot), [&json!(2), &json!(3)]);
    let earliest = poll(&server, "channels=k:a&last_event_id=earliest").await;
    assert_eq!(data(&earliest), [&json!(2), &json!(3)]);
    let since = poll(&server, "topic=k:a&last_event_id=@99999999999999&wait=0").await;
    assert_eq!(since["events"], json!([]));
    let body = json!({"topics": ["k:a"], "lastEventId": "earliest", "wait": 0}).to_string();
    let headers = [("Content-Type", "application/json")];
    let answer = request(server.addr, "POST", "/events/poll", &headers, body.as_bytes()).await;
    assert_eq!(data(&answer.json()), [&json!(2), &json!(3)]);
}

#[tokio::test]
async fn refusals_are_those_of_a_stream() {
    let server = server().await;
    for (query, code) in [
        ("", "bad_topic"),
        ("topic=a,b", "bad_topic"),
        ("topic=a&last_event_id=%C3%A9", "bad_cursor"),
        ("topic=a&last_event_id=x", "bad_cursor"),
        ("topic=a&wait=soon", "bad_query"),
        ("topic=a&wait=-1", "bad_query"),
        ("topic=a&snapshot=maybe", "bad_query"),
    ] {
        let answer = get(server.addr, &format!("/events/poll?{query}")).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, code), "{query}");
    }
    let answer = request(server.addr, "PUT", "/events/poll", &[], b"").await;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD, POST")));
    let answer = request(server.addr, "HEAD", "/events/poll?topic=a&wait=60", &[], b"").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    let answer = get(server.addr, "/events/poll?topic=a").await;
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    server.until_streams(0).await;
}

#[tokio::test]
async fn polls_count_as_streams() {
    let server = Server::with_config("[hub]\nmax_connections = 1\n").await;
    let now = poll(&server, "topic=a").await;
    server.until_streams(0).await;
    let query = format!("topic=a&wait=60&last_event_id={}", cursor(&now));
    let waiting = waiting(&server, &query).await;
    let refused = get(server.addr, &format!("/events/poll?{query}")).await;
    assert_eq!((refused.status, refused.code().as_str()), (503, "at_capacity"));
    assert!(refused.header("retry-after").is_some());
    publish(&server, "a", json!(1)).await;
    assert_eq!(waiting.await.expect("an answer").status, 200);
    assert!(server.metric("fanfare_polls_total").await >= 2.0);
}

#[tokio::test]
async fn a_drained_hub_answers_its_waiting_polls_at_once() {
    let mut server = server().await;
    let now = poll(&server, "topic=a").await;
    let query = format!("topic=a&wait=60&last_event_id={}", cursor(&now));
    let waiting = waiting(&server, &query).await;
    server.terminate();
    let answer = waiting.await.expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["events"], json!([]));
    assert!(answer.json().get("gap").is_none());
    assert_eq!(server.wait_exit(DEADLINE).await.code(), Some(0));
}

/// Polls until `count` events are there; every other poll is cut while it waits or answers.
async fn polled_over_cuts(addr: SocketAddr, start: String, count: usize) -> Vec<u64> {
    let (mut cursor_text, mut got) = (start, Vec::new());
    for round in 0u64.. {
        let path = format!("/events/poll?topic=a:*&wait=5&last_event_id={cursor_text}");
        let poll = get(addr, &path);
        if round % 2 == 0 {
            // A cut poll told the client nothing: its cursor stays.
            let _ = tokio::time::timeout(Duration::from_millis(round % 7), poll).await;
            continue;
        }
        let answer = poll.await.json();
        assert!(answer.get("gap").is_none(), "{answer}");
        got.extend(data(&answer).iter().map(|data| data.as_u64().expect("a number")));
        cursor_text = cursor(&answer).to_owned();
        if got.len() >= count {
            break;
        }
    }
    got
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn polls_under_load_get_every_event_once_and_in_order_over_cuts() {
    const COUNT: usize = 1000;
    let server = server().await;
    let start = cursor(&poll(&server, "topic=a:*").await).to_owned();
    let readers: Vec<_> =
        (0..5).map(|_| tokio::spawn(polled_over_cuts(server.addr, start.clone(), COUNT))).collect();
    for number in 0..COUNT {
        publish(&server, &format!("a:{}", number % 5), json!(number)).await;
    }
    for reader in readers {
        let got = reader.await.expect("a reader");
        assert_eq!(got.len(), COUNT);
        for topic in 0..5 {
            let of_topic: Vec<u64> = got.iter().copied().filter(|n| n % 5 == topic).collect();
            assert!(of_topic.is_sorted(), "{of_topic:?}");
        }
        let mut all = got;
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), COUNT);
    }
    server.until_streams(0).await;
}
