//! Publishing: the forms of a body, and the answers.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{
    Server, Stream,
    http::{Lines, request, try_publish},
};

async fn server() -> Server {
    Server::start(&["--no-demo"]).await
}

/// The keys of an object, in the order of the contract.
fn keys(json: &str) -> Vec<&str> {
    let keys = ["success", "eventId", "topic", "partition", "sequence", "receivers"];
    let mut found: Vec<(usize, &str)> =
        keys.iter().filter_map(|key| Some((json.find(&format!("\"{key}\":"))?, *key))).collect();
    found.sort_unstable();
    found.into_iter().map(|(_, key)| key).collect()
}

async fn publish_lines(server: &Server, body: &str, content_type: &str) -> Vec<Value> {
    let headers = [("Content-Type", content_type)];
    let response = request(server.addr, "POST", "/events/publish", &headers, body.as_bytes()).await;
    assert_eq!(response.status, 200, "{}", response.text());
    response
        .text()
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line of JSON"))
        .collect()
}

#[tokio::test]
async fn an_event_is_answered_with_its_id_and_place() {
    let server = server().await;
    let mut stream = Stream::subscribe(server.addr, "topic=a:b").await;
    let response = try_publish(server.addr, &json!({"topic": "a:b", "data": "x"})).await;
    assert_eq!((response.status, response.header("content-type")), (200, Some("application/json")));
    assert_eq!(
        keys(response.text()),
        ["success", "eventId", "topic", "partition", "sequence", "receivers"]
    );
    let answer = response.json();
    assert_eq!(answer["success"], true);
    assert_eq!(answer["topic"], "a:b");
    assert_eq!(answer["sequence"], 1);
    assert_eq!(answer["receivers"], 1);
    assert!(answer["partition"].as_u64().is_some_and(|partition| partition < 16));
    assert_eq!(stream.next().await.id, answer["eventId"].as_str().expect("an id"));
    let second = server.publish(json!({"topic": "a:b", "data": "y"})).await;
    assert_eq!((&second["sequence"], &second["partition"]), (&json!(2), &answer["partition"]));
}

#[tokio::test]
async fn aliases_mean_the_same() {
    let server = server().await;
    let mut stream = Stream::subscribe(server.addr, "topic=a").await;
    server.publish(json!({"channel": "a", "eventType": "like", "data": 1})).await;
    let event = stream.next().await;
    assert_eq!((event.event.as_str(), event.data.as_str()), ("like", "1"));
}

#[tokio::test]
async fn several_topics_get_the_event_each() {
    let server = server().await;
    let mut stream = Stream::subscribe(server.addr, "topics=a,b").await;
    let answer = server.publish(json!({"topics": ["a", "b", "c"], "data": "x"})).await;
    let answers = answer.as_array().expect("an answer for each");
    let topics: Vec<&Value> = answers.iter().map(|answer| &answer["topic"]).collect();
    assert_eq!(topics, ["a", "b", "c"]);
    let receivers: Vec<&Value> = answers.iter().map(|answer| &answer["receivers"]).collect();
    assert_eq!(receivers, [&json!(1), &json!(1), &json!(0)]);
    assert_eq!(stream.take_data(2).await, ["x", "x"]);
    assert_eq!(server.stats().await["published"], 3);
}

#[tokio::test]
async fn an_array_is_published_in_order_and_answered_by_an_array() {
    let server = server().await;
    let mut stream = Stream::subscribe(server.addr, "topic=a").await;
    let events: Vec<Value> = (0..500).map(|number| json!({"topic": "a", "data": number})).collect();
    let answers = server.publish(Value::from(events)).await;
    let answers = answers.as_array().expect("an array");
    let sequences: Vec<u64> =
        answers.iter().map(|answer| answer["sequence"].as_u64().expect("a number")).collect();
    assert_eq!(sequences, (1..=500).collect::<Vec<u64>>());
    let expected: Vec<String> = (0..500).map(|number| number.to_string()).collect();
    assert_eq!(stream.take_data(500).await, expected);
    assert_eq!(server.publish(json!([])).await, json!([]));
    let one = server.publish(json!([{"topic": "a", "data": 1}])).await;
    assert_eq!(one.as_array().map(Vec::len), Some(1), "an array of one is answered by an array");
    let mixed =
        server.publish(json!([{"topics": ["a", "b"], "data": 1}, {"topic": "a", "data": 2}])).await;
    assert_eq!(mixed[0].as_array().map(Vec::len), Some(2));
    assert_eq!(mixed[1]["topic"], "a");
}

#[tokio::test]
async fn lines_are_published_in_order_and_answered_each() {
    let server = server().await;
    let mut stream = Stream::subscribe(server.addr, "topics=a,b").await;
    let body = "{\"topic\":\"a\",\"data\":1}\n\n  \r\n{\"topic\":\"a::b\",\"data\":2}\r\n{\n\
                {\"topics\":[\"a\",\"b\"],\"data\":3}\n{\"topic\":\"a\",\"data\":4}";
    let answers = publish_lines(&server, body, "application/x-ndjson").await;
    assert_eq!(answers.len(), 5, "{answers:?}");
    assert_eq!(answers[0]["sequence"], 1);
    assert_eq!(answers[1]["error"]["code"], "bad_topic");
    assert_eq!(answers[2]["error"]["code"], "bad_json");
    assert_eq!(answers[3].as_array().map(Vec::len), Some(2));
    assert_eq!(answers[4]["success"], true);
    let mut data = stream.take_data(4).await;
    data.sort_unstable();
    assert_eq!(data, ["1", "3", "3", "4"]);
}

#[tokio::test]
async fn lines_that_arrive_as_a_whole_do_not_cost_the_connection() {
    let server = server().await;
    let mut socket = TcpStream::connect(server.addr).await.expect("the server accepts");
    let body = "{\"topic\":\"a\",\"data\":1}\n{\"topic\":\"b\",\"data\":2}\n";
    let head = format!(
        "POST /events/publish HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    for _ in 0..3 {
        socket.write_all(format!("{head}{body}").as_bytes()).await.expect("it is open");
        let mut answer = String::new();
        while answer.matches("\"success\":true").count() < 2 || !answer.ends_with("}\n") {
            let mut bytes = [0; 4096];
            let count = socket.read(&mut bytes).await.expect("it is open");
            assert!(count > 0, "{answer}");
            answer.push_str(std::str::from_utf8(&bytes[..count]).expect("text"));
        }
        assert!(!answer.contains("connection: close"), "{answer}");
    }
}

#[tokio::test]
async fn the_media_type_of_lines_is_any_case_and_takes_parameters() {
    let server = server().await;
    let body = "{\"topic\":\"a\",\"data\":1}\n{\"topic\":\"a\",\"data\":2}\n";
    for content_type in ["application/x-ndjson; charset=utf-8", "Application/X-NDJSON"] {
        assert_eq!(publish_lines(&server, body, content_type).await.len(), 2, "{content_type}");
    }
}

#[tokio::test]
async fn twenty_thousand_lines_stream_through_one_request() {
    const COUNT: usize = 20_000;
    let server = server().await;
    let mut stream = Stream::subscribe(server.addr, "topic=a").await;
    let line = |number: usize| json!({"topic": "a", "data": number}).to_string();
    let Lines { mut writer, mut reader } = Lines::open(server.addr, &line(0)).await;
    let write = async {
        for first in (1..COUNT).step_by(100) {
            let lines: Vec<String> = (first..COUNT.min(first + 100)).map(line).collect();
            writer.send(&lines.join("\n")).await;
        }
        writer.finish().await;
    };
    let read = async {
        for number in 0..COUNT {
            let answer =
                reader.next().await.unwrap_or_else(|| panic!("no answer to line {number}"));
            assert_eq!(answer["sequence"], number + 1, "{answer}");
            assert_eq!(answer["receivers"], 1);
        }
        assert_eq!(reader.next().await, None);
    };
    let follow = async {
        for number in 0..COUNT {
            assert_eq!(stream.next().await.data, number.to_string());
        }
    };
    tokio::join!(write, read, follow);
    assert_eq!(server.stats().await["published"], COUNT);
}

#[tokio::test]
async fn a_line_is_answered_before_the_next_is_sent() {
    let server = server().await;
    let line = json!({"topic": "a", "data": 1}).to_string();
    let mut lines = Lines::open(server.addr, &line).await;
    for sequence in 1..20 {
        assert_eq!(lines.reader.next().await.expect("an answer")["sequence"], sequence);
        let (first, second) = line.split_at(line.len() / 2);
        lines.writer.send_part(first).await;
        lines.writer.send_part(second).await;
        lines.writer.send_part("\n").await;
    }
    lines.writer.finish().await;
    assert_eq!(lines.reader.next().await.expect("the last answer")["sequence"], 20);
    assert_eq!(lines.reader.next().await, None);
}

#[tokio::test]
async fn a_line_that_is_too_long_is_refused() {
    let server = server().await;
    let body = format!(
        "{{\"topic\":\"a\",\"data\":1}}\n{{\"topic\":\"a\",\"data\":\"{}\"}}\n",
        "x".repeat(70_000)
    );
    let answers = publish_lines(&server, &body, "application/x-ndjson").await;
    assert_eq!(answers[0]["success"], true);
    assert_eq!(answers[1]["error"]["code"], "payload_too_large");
    // Longer than any allowed line. The connection is unusable afterwards, but gets an answer.
    let endless = "x".repeat(1024 * 1024);
    let answers = publish_lines(&server, &endless, "application/x-ndjson").await;
    assert_eq!(answers[0]["error"]["code"], "payload_too_large");
    assert_eq!(server.stats().await["published"], 1);
}

#[tokio::test]
async fn a_repeated_id_returns_the_first_answer_and_delivers_nothing() {
    let server = server().await;
    let mut stream = Stream::subscribe(server.addr, "topics=a,b").await;
    let first = server.publish(json!({"topic": "a", "id": "one", "data": 1})).await;
    let _another = Stream::subscribe(server.addr, "topic=a").await;
    for data in [json!(1), json!("other data")] {
        assert_eq!(server.publish(json!({"topic": "a", "id": "one", "data": data})).await, first);
    }
    let other_topic = server.publish(json!({"topic": "b", "id": "one", "data": 2})).await;
    assert_ne!(other_topic["eventId"], first["eventId"]);
    server.publish(json!({"topic": "a", "id": "two", "data": 3})).await;
    let mut data = stream.take_data(3).await;
    data.sort_unstable();
    assert_eq!(data, ["1", "2", "3"]);
    assert_eq!(server.stats().await["published"], 3);
    // Also within one request.
    let array =
        json!([{"topic": "a", "id": "three", "data": 4}, {"topic": "a", "id": "three", "data": 4}]);
    let answers = server.publish(array).await;
    assert_eq!(answers[0], answers[1]);
    server.publish(json!({"topic": "a", "data": "end"})).await;
    assert_eq!(stream.take_data(2).await, ["4", "end"]);
}

#[tokio::test]
async fn concurrent_publishes_of_one_id_are_one_event() {
    let server = server().await;
    let mut stream = Stream::subscribe(server.addr, "topic=a").await;
    let publishes = (0..20).map(|_| server.publish(json!({"topic": "a", "id": "same", "data": 1})));
    let answers = futures_util::future::join_all(publishes).await;
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    server.publish(json!({"topic": "a", "data": "end"})).await;
    assert_eq!(stream.take_data(2).await, ["1", "end"]);
}

#[tokio::test]
async fn receivers_are_the_streams_that_the_event_was_queued_for() {
    let server = server().await;
    let queries = [
        "topic=a:b",
        "topics=a:b,a:c",
        "topic=a:*",
        "topics=a:*,*:b,a:b",
        "topic=**",
        "topic=a:b&types=like",
        "topic=a:*&types=view",
        "topic=a:b&types=message",
        "topic=other",
    ];
    let mut streams = Vec::new();
    for query in queries {
        streams.push(Stream::subscribe(server.addr, query).await);
    }
    let receivers = async |event: Value| server.publish(event).await["receivers"].clone();
    assert_eq!(receivers(json!({"topic": "a:b", "data": 1})).await, 6);
    assert_eq!(receivers(json!({"topic": "a:b", "event": "like", "data": 1})).await, 6);
    assert_eq!(receivers(json!({"topic": "a:b", "event": "view", "data": 1})).await, 6);
    assert_eq!(receivers(json!({"topic": "a:b", "event": "none", "data": 1})).await, 5);
    assert_eq!(receivers(json!({"topic": "a:c", "data": 1})).await, 4);
    assert_eq!(receivers(json!({"topic": "x", "data": 1})).await, 1);
    drop(streams);
    server.settled().await;
    let gone = async || server.publish(json!({"topic": "a:b", "data": 1})).await["receivers"] == 0;
    crate::support::until(std::time::Duration::from_secs(5), "nobody listens", gone).await;
}

#[tokio::test]
async fn json_is_compacted_and_kept_to_the_letter() {
    let server = server().await;
    let mut stream = Stream::subscribe(server.addr, "topic=a").await;
    for (sent, received) in [
        (
            r#"{ "z" : 1.50 , "a" : [ 1e400, -0, 12345678901234567890123 ] }"#,
            r#"{"z":1.50,"a":[1e400,-0,12345678901234567890123]}"#,
        ),
        (r#"{"b":1,"a":2,"b":3}"#, r#"{"b":1,"a":2,"b":3}"#),
        (
            r#"{"text":" two  spaces \n \" \\ \u00e9 é"}"#,
            r#"{"text":" two  spaces \n \" \\ \u00e9 é"}"#,
        ),
        ("null", "null"),
        ("true", "true"),
        ("0.10", "0.10"),
        ("[ ]", "[]"),
        ("[\n\t1\r\n]", "[1]"),
        ("{\"u\":\"\u{2028}\"}", "{\"u\":\"\u{2028}\"}"),
        (r#""text \u0041""#, "text A"),
    ] {
        let body = format!("{{\"topic\":\"a\",\"data\":{sent}}}");
        let response = request(server.addr, "POST", "/events/publish", &[], body.as_bytes()).await;
        assert_eq!(response.status, 200, "{}", response.text());
        assert_eq!(stream.next().await.data, received);
        let array = format!("[{body}]");
        request(server.addr, "POST", "/events/publish", &[], array.as_bytes()).await;
        assert_eq!(stream.next().await.data, received, "in an array");
    }
}

#[tokio::test]
async fn publishers_side_by_side_lose_nothing() {
    let server = server().await;
    let mut stream = Stream::subscribe(server.addr, "topic=p:*").await;
    let publisher = async |publisher: usize| {
        for number in 0..100 {
            server
                .publish(json!({"topic": format!("p:{publisher}"), "data": [publisher, number]}))
                .await;
        }
    };
    let read = async {
        let mut next = [0; 8];
        let mut seen = BTreeSet::new();
        for event in stream.take(800).await {
            let json = event.json();
            let publisher = json[0].as_u64().expect("a number") as usize;
            assert_eq!(json[1], next[publisher], "in order");
            next[publisher] += 1;
            assert!(seen.insert(event.data), "once");
        }
    };
    let all = futures_util::future::join_all((0..8).map(publisher));
    tokio::join!(all, read);
}
