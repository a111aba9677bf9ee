//! Opening a stream, and its bytes.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};

use super::Server;
use crate::support::{
    Stream,
    http::{get, request},
};

async fn server() -> Server {
    Server::start(&["--no-demo"]).await
}

/// The topics of `connected`, in no particular order.
fn topics(stream: &Stream) -> BTreeSet<String> {
    let topics = stream.connected["topics"].as_array().expect("a list");
    topics.iter().map(|topic| topic.as_str().expect("a name").to_owned()).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test]
async fn head_and_first_bytes_are_those_of_the_contract() {
    let server = server().await;
    let mut stream = Stream::open(server.addr, "/events/stream?topic=a", &[]).await;
    for (name, value) in [
        ("Content-Type", "text/event-stream; charset=utf-8"),
        ("Cache-Control", "no-cache, no-transform"),
        ("X-Accel-Buffering", "no"),
    ] {
        assert_eq!(stream.head.header(name), Some(value));
    }
    assert_eq!(stream.head.header("content-length"), None);
    stream.read_connected().await;
    let retry = stream.retry().expect("retry");
    assert!((1000..=4000).contains(&retry), "{retry}");
    let id = stream.last_id().to_owned();
    let connected = stream.connected.clone();
    let client_id = connected["clientId"].as_str().expect("an id").to_owned();
    assert!(!client_id.is_empty());
    let timestamp = connected["timestamp"].as_u64().expect("milliseconds");
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    assert!((now.as_millis() as u64).abs_diff(timestamp) < 60_000, "{timestamp}");
    let expected = format!(
        "retry: {retry}\nevent: connected\nid: {id}\ndata: {{\"clientId\":\"{client_id}\",\
         \"timestamp\":{timestamp},\"topics\":[\"a\"],\"resumed\":false}}\n\n"
    );
    assert_eq!(stream.raw_text(), expected);
}

#[tokio::test]
async fn every_stream_has_its_own_retry_and_client_id() {
    let server = server().await;
    let (mut retries, mut clients) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..20 {
        let stream = Stream::subscribe(server.addr, "topic=a").await;
        retries.insert(stream.retry());
        clients.insert(stream.connected["clientId"].to_string());
    }
    assert!(retries.len() > 10, "{retries:?}");
    assert_eq!(clients.len(), 20);
}

#[tokio::test]
async fn topics_can_be_named_in_every_spelling() {
    let server = server().await;
    for (query, names) in [
        ("topic=a", &["a"][..]),
        ("topic=a&topic=b", &["a", "b"]),
        ("topics=a,b", &["a", "b"]),
        ("topics=a%2Cb", &["a", "b"]),
        ("channels=a,b", &["a", "b"]),
        ("topic=a&topics=b,c&channels=d", &["a", "b", "c", "d"]),
        ("topic=a&topic=a&topics=a", &["a"]),
        ("topic=x:%2A&topic=y:**", &["x:*", "y:**"]),
        ("topic=caf%C3%A9:%E2%82%AC", &["café:€"]),
        ("unknown=1&topic=a", &["a"]),
    ] {
        let stream = Stream::subscribe(server.addr, query).await;
        assert_eq!(topics(&stream), set(names), "{query}");
    }
}

#[tokio::test]
async fn a_post_takes_the_same_as_json() {
    let server = server().await;
    let body = json!({"topics": ["a", "b"], "types": ["like"]}).to_string();
    let headers = [("Content-Type", "application/json")];
    let mut stream =
        Stream::request(server.addr, "POST", "/events/stream", &headers, body.as_bytes()).await;
    assert_eq!(stream.head.header("content-type"), Some("text/event-stream; charset=utf-8"));
    stream.read_connected().await;
    assert_eq!(topics(&stream), set(&["a", "b"]));
    server.publish(json!({"topic": "a", "event": "other", "data": 1})).await;
    server.publish(json!({"topic": "b", "event": "like", "data": 2})).await;
    assert_eq!(stream.next().await.data, "2");

    let id = stream.last_id().to_owned();
    drop(stream);
    server.publish(json!({"topic": "a", "event": "like", "data": 3})).await;
    let body = json!({"topics": ["a", "b"], "types": ["like"], "lastEventId": id}).to_string();
    let mut stream =
        Stream::request(server.addr, "POST", "/events/stream", &headers, body.as_bytes()).await;
    stream.read_connected().await;
    assert_eq!(stream.connected["resumed"], true);
    assert_eq!(stream.next().await.data, "3");
}

#[tokio::test]
async fn only_the_named_types_come() {
    let server = server().await;
    let mut some = Stream::subscribe(server.addr, "topic=a&types=like,post").await;
    let mut repeated = Stream::subscribe(server.addr, "topic=a&types=like&types=post").await;
    let mut all = Stream::subscribe(server.addr, "topic=a").await;
    let mut receivers = Vec::new();
    for (event, data) in [("like", 1), ("view", 2), ("post", 3), ("likes", 4), ("like", 5)] {
        let answer = server.publish(json!({"topic": "a", "event": event, "data": data})).await;
        receivers.push(answer["receivers"].clone());
    }
    assert_eq!(receivers, [3, 1, 3, 1, 3]);
    assert_eq!(some.take_data(3).await, ["1", "3", "5"]);
    assert_eq!(repeated.take_data(3).await, ["1", "3", "5"]);
    assert_eq!(all.take_data(5).await, ["1", "2", "3", "4", "5"]);
}

#[tokio::test]
async fn patterns_stand_for_segments() {
    let server = server().await;
    let topics = ["a", "a:b", "a:b:c", "a:c", "b:b", "a:b:c:d", "x"];
    let cases: [(&str, &[&str]); 7] = [
        ("*", &["a", "x"]),
        ("**", &topics),
        ("a:*", &["a:b", "a:c"]),
        ("a:**", &["a:b", "a:b:c", "a:c", "a:b:c:d"]),
        ("*:b", &["a:b", "b:b"]),
        ("a:*:c", &["a:b:c"]),
        ("*:*:**", &["a:b:c", "a:b:c:d"]),
    ];
    let mut streams = Vec::new();
    for (pattern, _) in cases {
        streams.push(Stream::subscribe(server.addr, &format!("topic={pattern}")).await);
    }
    for topic in topics {
        let answer = server.publish(json!({"topic": topic, "data": topic})).await;
        let matching = cases.iter().filter(|(_, matched)| matched.contains(&topic)).count();
        assert_eq!(answer["receivers"], matching, "{topic}");
    }
    for ((pattern, matched), stream) in cases.iter().zip(&mut streams) {
        let mut data = stream.take_data(matched.len()).await;
        data.sort_unstable();
        let mut matched = matched.to_vec();
        matched.sort_unstable();
        assert_eq!(data, matched, "{pattern}");
    }
}

#[tokio::test]
async fn overlapping_topics_and_patterns_bring_an_event_once() {
    let server = server().await;
    let mut stream = Stream::subscribe(server.addr, "topics=a:b,a:*,a:**,*:b,**,a:b").await;
    for number in 0..50 {
        let answer = server.publish(json!({"topic": "a:b", "data": number})).await;
        assert_eq!(answer["receivers"], 1);
    }
    let expected: Vec<String> = (0..50).map(|number| number.to_string()).collect();
    assert_eq!(stream.take_data(50).await, expected);
    server.publish(json!({"topic": "a:b", "data": "end"})).await;
    assert_eq!(stream.next().await.data, "end");
}

#[tokio::test]
async fn event_lines_are_there_only_where_a_type_was_named() {
    let server = server().await;
    let mut stream = Stream::subscribe(server.addr, "topic=a").await;
    let start = stream.raw().len();
    server.publish(json!({"topic": "a", "data": "plain"})).await;
    let plain = stream.next().await;
    server.publish(json!({"topic": "a", "data": "typed", "event": "like"})).await;
    let typed = stream.next().await;
    assert_eq!((plain.event.as_str(), typed.event.as_str()), ("message", "like"));
    let text = &stream.raw_text()[start..];
    assert_eq!(text.matches("event:").count(), 1, "{text}");
    let blocks: Vec<&str> = text.split_terminator("\n\n").collect();
    let lines = |block: &str| {
        let mut lines: Vec<String> = block.lines().map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    };
    assert_eq!(lines(blocks[0]), ["data: plain".to_owned(), format!("id: {}", plain.id)]);
    assert_eq!(
        lines(blocks[1]),
        ["data: typed".to_owned(), "event: like".to_owned(), format!("id: {}", typed.id)]
    );
}

#[tokio::test]
async fn data_comes_out_as_it_went_in() {
    let server = server().await;
    let mut stream = Stream::subscribe(server.addr, "topic=a").await;
    let kept = [
        "",
        " ",
        "  two spaces",
        "x ",
        "a\nb",
        "\n",
        "\n\n",
        "a\n",
        "\na",
        "a\n\nb",
        ":",
        ": comment",
        "data: x",
        "id: 1\nretry: 5",
        "event: connected",
        "\u{feff}bom",
        "\u{2028}",
        "a\u{2028}b\u{2029}c\u{85}d",
        "\u{b}\u{c}\u{1b}[31m\u{1}\u{7f}",
        "日本語 😀 \u{10ffff}",
        "\t",
        "{\"a\":1}",
        "\"quoted\"",
        "a: b\n: c",
    ];
    for text in kept {
        server.publish(json!({"topic": "a", "data": text})).await;
        assert_eq!(stream.next().await.data, text, "{text:?}");
    }
    // CR, LF and CR LF all end a line. The format does not preserve the kind of line end.
    for text in ["a\r\nb\rc\nd", "\r", "\r\n", "a\r", "\r\r\n\n"] {
        server.publish(json!({"topic": "a", "data": text})).await;
        let expected = text.replace("\r\n", "\n").replace('\r', "\n");
        assert_eq!(stream.next().await.data, expected, "{text:?}");
    }
}

#[tokio::test]
async fn ids_stay_short_and_ascii_with_all_partitions() {
    let server = server().await;
    // The client checks every id. The pattern includes topics of all partitions.
    let mut stream = Stream::subscribe(server.addr, "topic=**").await;
    let mut ids = BTreeSet::new();
    for number in 0..100 {
        let topic = format!("topic:日本:{number}");
        let answer =
            server.publish(json!({"topic": topic, "data": number, "id": "é".repeat(100)})).await;
        assert!(
            answer["eventId"].as_str().is_some_and(|id| id.is_ascii() && id.len() < 40),
            "{answer}"
        );
        ids.insert(stream.next().await.id);
    }
    assert_eq!(ids.len(), 100, "each event has its own");
    assert!(ids.iter().all(|id| id.len() <= 200));
}

#[tokio::test]
async fn a_quiet_stream_gets_heartbeats_without_blank_lines() {
    let server = Server::with_config("[stream]\nheartbeat = \"200ms\"").await;
    let mut stream = Stream::subscribe(server.addr, "topic=a").await;
    let start = stream.raw().len();
    for _ in 0..3 {
        assert_eq!(stream.next_comment(Duration::from_secs(5)).await, " heartbeat");
    }
    assert_eq!(&stream.raw_text()[start..], ": heartbeat\n".repeat(3));
    server.publish(json!({"topic": "a", "data": "x"})).await;
    assert_eq!(stream.next().await.data, "x");
}

#[tokio::test]
async fn a_busy_stream_gets_no_heartbeats() {
    let server =
        Server::with_config("[stream]\nheartbeat = \"3s\"\n[delivery]\nflush = \"immediate\"")
            .await;
    let mut stream = Stream::subscribe(server.addr, "topic=a").await;
    let start = tokio::time::Instant::now();
    while start.elapsed() < Duration::from_secs(4) {
        server.publish(json!({"topic": "a", "data": 1})).await;
        stream.next().await;
    }
    assert_eq!(stream.comment_count(), 0);
    stream.next_comment(Duration::from_secs(6)).await;
}

#[tokio::test]
async fn a_tick_comes_as_one_batch_if_asked_for() {
    // The hour never passes: the drain ends the tick.
    let server = Server::with_config("[delivery]\nflush = \"tick\"\ntick = \"1h\"").await;
    let mut stream = Stream::subscribe(server.addr, "topics=a,b&batch=json").await;
    let events = [
        json!({"topic": "a", "data": {"z": 1, "a": [1.50, 1e3]}}),
        json!({"topic": "b", "data": "text \"quoted\"\nline", "event": "like", "key": "k"}),
        json!({"topic": "a", "data": null}),
    ];
    server.publish(Value::from(events.to_vec())).await;
    server.terminate();
    let batch = stream.next().await;
    assert_eq!(batch.event, "batch");
    let items = batch.json();
    let data: Vec<&Value> =
        items.as_array().expect("an array").iter().map(|item| &item["data"]).collect();
    assert_eq!(data.len(), 3, "{items}");
    for event in &events {
        let item = items
            .as_array()
            .and_then(|items| items.iter().find(|item| item["data"] == event["data"]));
        let item = item.unwrap_or_else(|| panic!("{event} in {items}"));
        assert_eq!(item["topic"], event["topic"]);
        assert_eq!(item["event"], event["event"]);
        assert_eq!(item["key"], event["key"]);
    }
    assert_eq!(stream.next().await.event, "shutdown");
}

#[tokio::test]
async fn a_batch_s_id_resumes_behind_it() {
    let server = server().await;
    let mut stream = Stream::subscribe(server.addr, "topics=a,b,c&batch=json").await;
    let mut count = 0;
    for number in 0..30 {
        let topic = ["a", "b", "c"][number % 3];
        server.publish(json!({"topic": topic, "data": number})).await;
    }
    let mut seen = Vec::new();
    while count < 30 {
        let batch = stream.next().await;
        assert_eq!(batch.event, "batch");
        let items = batch.json();
        let items = items.as_array().expect("an array");
        count += items.len();
        seen.extend(items.iter().map(|item| item["data"].as_u64().expect("a number")));
        if count < 30 {
            let id = stream.last_id().to_owned();
            stream = Stream::resume(server.addr, "topics=a,b,c&batch=json", &id).await;
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..30).collect::<Vec<u64>>());
}

#[tokio::test]
async fn head_is_answered_without_a_stream() {
    let server = server().await;
    let response = request(server.addr, "HEAD", "/events/stream?topic=a", &[], b"").await;
    assert_eq!(response.status, 200);
    assert_eq!(response.header("content-type"), Some("text/event-stream; charset=utf-8"));
    assert_eq!(response.header("cache-control"), Some("no-cache, no-transform"));
    let response = request(server.addr, "HEAD", "/events/stream", &[], b"").await;
    assert_eq!(response.status, 400);
    server.settled().await;
}

#[tokio::test]
async fn a_stream_is_never_compressed() {
    let server = server().await;
    let headers = [("Accept-Encoding", "gzip, br, zstd, deflate")];
    let mut stream = Stream::subscribe_with(server.addr, "topic=a", &headers).await;
    let encoding = stream.head.header("content-encoding");
    assert!(encoding.is_none_or(|encoding| encoding == "identity"), "{encoding:?}");
    server.publish(json!({"topic": "a", "data": "x".repeat(5000)})).await;
    assert_eq!(stream.next().await.data.len(), 5000);
}

#[tokio::test]
async fn a_browser_s_own_headers_change_nothing_of_a_stream() {
    let server = server().await;
    let headers = [
        ("Accept", "text/event-stream"),
        ("Sec-Fetch-Mode", "cors"),
        ("Sec-Fetch-Site", "same-origin"),
        ("Cache-Control", "no-cache"),
        ("Last-Event-ID", ""),
    ];
    let stream = Stream::subscribe_with(server.addr, "topic=a", &headers).await;
    assert_eq!(stream.connected["resumed"], false);
}

#[tokio::test]
async fn clients_of_http_1_0_get_a_stream_too() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let server = server().await;
    let mut socket = tokio::net::TcpStream::connect(server.addr).await.expect("the server accepts");
    socket.write_all(b"GET /events/stream?topic=a HTTP/1.0\r\n\r\n").await.expect("it is sent");
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(10), async {
        while !answer.ends_with(b"\n\n") {
            assert_ne!(socket.read_buf(&mut answer).await.expect("it can be read"), 0);
        }
    });
    read.await.expect("connected in time");
    let answer = String::from_utf8(answer).expect("UTF-8");
    assert!(!answer.to_lowercase().contains("transfer-encoding"), "{answer}");
    assert!(answer.contains("\r\n\r\nretry: "), "{answer}");
}

#[tokio::test]
async fn a_new_stream_starts_live() {
    let server = server().await;
    server.publish(json!({"topic": "a", "data": "before"})).await;
    let mut stream = Stream::subscribe(server.addr, "topic=a").await;
    server.publish(json!({"topic": "a", "data": "after"})).await;
    assert_eq!(stream.next().await.data, "after");
    assert_eq!(get(server.addr, "/health/live").await.status, 200);
}
