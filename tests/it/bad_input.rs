//! Refused requests leave no trace, and the hub serves others as before.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::TcpStream, time::Instant};

use super::Server;
use crate::support::{
    Stream,
    http::{
        Lines, Response, get, raw_exchange, request, request_head, try_publish, try_publish_from,
    },
};

/// Characters not allowed in a topic name, percent-encoded.
const FORBIDDEN: [&str; 12] = [
    "%00",
    "%01",
    "%09",
    "%0A",
    "%0D",
    "%1F",
    "%7F",
    "%20",
    "%2C",
    "%C2%85",
    "%C2%A0",
    "%E2%80%A8",
];

async fn server() -> Server {
    Server::start(&["--no-demo"]).await
}

/// No trace of refused requests is left, and a stream still works.
async fn still_serves(server: &Server) {
    server.settled().await;
    let mut stream = Stream::subscribe(server.addr, "topic=alive").await;
    let answer = server.publish(json!({"topic": "alive", "data": "yes"})).await;
    assert_eq!(answer["receivers"], 1);
    assert_eq!(stream.next().await.data, "yes");
    stream.close().await;
    server.settled().await;
}

fn refused(response: &Response, status: u16, code: &str) {
    assert_eq!((response.status, response.code().as_str()), (status, code), "{}", response.text());
}

#[tokio::test]
async fn a_subscription_to_a_bad_topic_is_refused() {
    let server = server().await;
    let mut queries: Vec<String> =
        ["", "topic=", "topics=", "channels=", "topic", "types=like"].map(str::to_owned).to_vec();
    queries.extend(FORBIDDEN.iter().map(|bad| format!("topic=a{bad}b")));
    queries.extend(
        FORBIDDEN.iter().filter(|bad| **bad != "%2C").map(|bad| format!("topics=a,b{bad}")),
    );
    let names = ["a::b", ":a", "a:", ":", "$hub", "$hub:a", "**:a", "a:**:b"];
    queries.extend(names.map(|name| format!("topic={name}")));
    queries.push(format!("topic={}", "x".repeat(257)));
    // 86 characters of three bytes.
    queries.push(format!("topic={}", "%E2%82%AC".repeat(86)));
    queries.extend(
        ["%FF", "%C3", "%C3%28", "a%ED%A0%80", "%F8%88%80%80%80"]
            .map(|bytes| format!("topic={bytes}")),
    );
    queries.push("topic=good&topic=a::b".to_owned());
    queries.push("topics=good,".to_owned());
    for query in queries {
        let response = get(server.addr, &format!("/events/stream?{query}")).await;
        assert_eq!((response.status, response.code().as_str()), (400, "bad_topic"), "{query}");
    }
    still_serves(&server).await;
}

#[tokio::test]
async fn a_subscription_in_json_to_a_bad_topic_is_refused() {
    let server = server().await;
    let names = ["", "a\u{0}", "a\r", "a\nb", "a b", "a,b", "a::b", "$x", "a\u{85}", "**:a"];
    for name in names {
        let body = json!({"topics": ["good", name]}).to_string();
        let response = request(server.addr, "POST", "/events/stream", &[], body.as_bytes()).await;
        assert_eq!((response.status, response.code().as_str()), (400, "bad_topic"), "{name:?}");
    }
    for body in [json!({}), json!({"topics": []})] {
        let body = body.to_string();
        let response = request(server.addr, "POST", "/events/stream", &[], body.as_bytes()).await;
        refused(&response, 400, "bad_topic");
    }
    still_serves(&server).await;
}

#[tokio::test]
async fn the_longest_topic_name_is_256_bytes() {
    let server = server().await;
    let name = "x".repeat(256);
    let mut stream = Stream::subscribe(server.addr, &format!("topic={name}")).await;
    server.publish(json!({"topic": name, "data": 1})).await;
    assert_eq!(stream.next().await.data, "1");
    let response = try_publish(server.addr, &json!({"topic": "x".repeat(257), "data": 1})).await;
    refused(&response, 400, "bad_topic");
}

#[tokio::test]
async fn a_subscription_that_is_not_json_is_refused() {
    let server = server().await;
    let bodies: [&[u8]; 7] = [
        b"",
        b"topic=a",
        b"{",
        b"{\"topics\":\"a\"}",
        b"{\"topics\":[1]}",
        b"{\"topics\":[\"\xff\"]}",
        b"{\"topics\":[\"a\"]} x",
    ];
    for body in bodies {
        let response = request(server.addr, "POST", "/events/stream", &[], body).await;
        refused(&response, 400, "bad_json");
    }
    let long = format!("{{\"topics\":[\"{}\"]}}", "x".repeat(4 * 1024 * 1024));
    let response = request(server.addr, "POST", "/events/stream", &[], long.as_bytes()).await;
    refused(&response, 413, "payload_too_large");
    still_serves(&server).await;
}

#[tokio::test]
async fn a_list_is_not_taken_for_an_object() {
    let server = server().await;
    let stream = Stream::request(server.addr, "POST", "/events/stream", &[], b"[\"a\"]").await;
    assert_eq!(stream.head.status, 400);
    let event = b"[[\"a\",null,null,1,null,null]]";
    let response = request(server.addr, "POST", "/events/publish", &[], event).await;
    refused(&response, 400, "bad_json");
}

#[tokio::test]
async fn options_that_mean_nothing_are_refused() {
    let server = server().await;
    for query in ["batch=xml", "snapshot=perhaps", "types=%0A", "types=a%00b"] {
        let response = get(server.addr, &format!("/events/stream?topic=a&{query}")).await;
        assert_eq!(response.status, 400, "{query}");
        response.code();
    }
    still_serves(&server).await;
}

#[tokio::test]
async fn more_topics_than_a_stream_may_have_are_refused() {
    let server = Server::with_config("[hub]\nmax_topics_per_stream = 3").await;
    let response = get(server.addr, "/events/stream?topics=a,b,c,d").await;
    refused(&response, 400, "too_many_topics");
    let body = json!({"topics": ["a", "b", "c", "d"]}).to_string();
    let response = request(server.addr, "POST", "/events/stream", &[], body.as_bytes()).await;
    refused(&response, 400, "too_many_topics");
    drop(Stream::subscribe(server.addr, "topics=a,b,c").await);
    still_serves(&server).await;
}

#[tokio::test]
async fn ten_thousand_topics_are_taken_and_one_more_is_not() {
    let server = server().await;
    let topics: Vec<String> = (0..10_001).map(|number| format!("t:{number}")).collect();
    let body = json!({ "topics": topics }).to_string();
    let response = request(server.addr, "POST", "/events/stream", &[], body.as_bytes()).await;
    refused(&response, 400, "too_many_topics");
    let body = json!({ "topics": topics[..10_000] }).to_string();
    let mut stream =
        Stream::request(server.addr, "POST", "/events/stream", &[], body.as_bytes()).await;
    stream.read_connected().await;
    assert_eq!(stream.connected["topics"].as_array().map(Vec::len), Some(10_000));
    let answer = server.publish(json!({"topic": "t:9999", "data": "last"})).await;
    assert_eq!(answer["receivers"], 1);
    assert_eq!(stream.next().await.data, "last");
    drop(stream);
    still_serves(&server).await;
}

#[tokio::test]
async fn garbage_for_a_last_event_id_is_refused() {
    let server = server().await;
    let long = "x".repeat(20_000);
    let garbage =
        ["x", "42", "-1", "null", "0000000", "00000000.", "00000000.1:", "../../etc", &long];
    for id in garbage {
        let headers = [("Last-Event-ID", id)];
        let response = request(server.addr, "GET", "/events/stream?topic=a", &headers, b"").await;
        refused(&response, 400, "bad_cursor");
        if id.len() < 1000 {
            for name in ["last_event_id", "lastEventId"] {
                let path = format!("/events/stream?topic=a&{name}={id}");
                refused(&get(server.addr, &path).await, 400, "bad_cursor");
            }
            let body = json!({"topics": ["a"], "lastEventId": id}).to_string();
            let response =
                request(server.addr, "POST", "/events/stream", &[], body.as_bytes()).await;
            refused(&response, 400, "bad_cursor");
        }
    }
    // Bytes allowed in a header, but never in an id.
    let head = b"GET /events/stream?topic=a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nLast-Event-ID: \xc3\x28\xff\r\n\r\n";
    let answer = raw_exchange(server.addr, head).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(answer.contains("\"bad_cursor\""), "{answer}");
    still_serves(&server).await;
}

#[tokio::test]
async fn an_id_of_another_hub_is_answered_with_a_gap() {
    let (server, other) = (server().await, server().await);
    let foreign = other.publish(json!({"topic": "a", "data": 1})).await["eventId"].clone();
    server.publish(json!({"topic": "a", "data": "kept"})).await;
    let mut stream = Stream::resume(server.addr, "topic=a", foreign.as_str().expect("an id")).await;
    assert_eq!(stream.connected["resumed"], false);
    let gap = stream.next().await;
    assert_eq!((gap.event.as_str(), &gap.json()["reason"]), ("gap", &json!("epoch")));
    assert_eq!(stream.next().await.data, "kept");
}

#[tokio::test]
async fn an_id_from_the_future_is_answered_with_a_gap() {
    let server = server().await;
    let answer = server.publish(json!({"topic": "a", "data": "kept"})).await;
    let id = answer["eventId"].as_str().expect("an id");
    let (partition, _) = id.rsplit_once(':').expect("an id ends in a sequence");
    let mut stream = Stream::resume(server.addr, "topic=a", &format!("{partition}:zzzz")).await;
    assert_eq!(stream.connected["resumed"], false);
    let gap = stream.next().await;
    assert_eq!((gap.event.as_str(), &gap.json()["reason"]), ("gap", &json!("epoch")));
    assert_eq!(gap.json()["partitions"], json!([answer["partition"]]));
    assert_eq!(stream.next().await.data, "kept");
    server.publish(json!({"topic": "a", "data": "live"})).await;
    assert_eq!(stream.next().await.data, "live");
}

#[tokio::test]
async fn a_repeated_last_event_id_is_refused_or_one_of_both() {
    let server = server().await;
    let mut ids = Vec::new();
    for data in ["1", "2", "3"] {
        let answer = server.publish(json!({"topic": "a", "data": data})).await;
        ids.push(answer["eventId"].as_str().expect("an id").to_owned());
    }
    let headers = [("Last-Event-ID", ids[0].as_str()), ("Last-Event-ID", ids[0].as_str())];
    let mut stream = Stream::subscribe_with(server.addr, "topic=a", &headers).await;
    assert_eq!(stream.take_data(2).await, ["2", "3"]);
    let both = format!("topic=a&last_event_id={0}&last_event_id={0}", ids[1]);
    let mut stream = Stream::subscribe(server.addr, &both).await;
    assert_eq!(stream.take_data(1).await, ["3"]);
}

#[tokio::test]
async fn a_publish_to_a_bad_topic_is_refused() {
    let server = server().await;
    let names = [
        "",
        "a::b",
        ":a",
        "a:",
        "a b",
        "a,b",
        "a\0",
        "a\r",
        "a\n",
        "a\t",
        "a\u{7f}",
        "a\u{85}",
        "a\u{2028}",
        "$x",
        "$x:y",
        "*",
        "**",
        "a:*",
        "a:*:b",
        "a:**",
    ];
    for name in names {
        for field in ["topic", "channel"] {
            let response = try_publish(server.addr, &json!({field: name, "data": 1})).await;
            assert_eq!((response.status, response.code().as_str()), (400, "bad_topic"), "{name:?}");
        }
        let response =
            try_publish(server.addr, &json!({"topics": ["good", name], "data": 1})).await;
        assert_eq!((response.status, response.code().as_str()), (400, "bad_topic"), "{name:?}");
    }
    for event in [json!({"data": 1}), json!({"topics": [], "data": 1})] {
        refused(&try_publish(server.addr, &event).await, 400, "bad_topic");
    }
    assert_eq!(server.stats().await["published"], 0, "nothing of it was taken");
    still_serves(&server).await;
}

#[tokio::test]
async fn a_publish_that_is_not_json_is_refused() {
    let server = server().await;
    let bodies: [&[u8]; 12] = [
        b"",
        b" ",
        b"x",
        b"{",
        b"{}x",
        b"[",
        b"[{]",
        b"\"a\"",
        b"{\"topic\":1,\"data\":1}",
        b"{\"topic\":\"a\",\"data\":\"\xff\"}",
        b"{\"topic\":\"a\",\"data\":\"\\ud800\"}",
        b"{\"topic\":\"a\",\"data\":\"a\nb\"}",
    ];
    for body in bodies {
        let headers = [("Content-Type", "application/json")];
        let response = request(server.addr, "POST", "/events/publish", &headers, body).await;
        assert_eq!(response.status, 400, "{:?}", String::from_utf8_lossy(body));
        let code = response.code();
        let is_empty_object = body == b"{}x";
        assert!(
            code == "bad_json" || is_empty_object,
            "{code}: {:?}",
            String::from_utf8_lossy(body)
        );
    }
    assert_eq!(server.stats().await["published"], 0);
    still_serves(&server).await;
}

#[tokio::test]
async fn control_characters_in_any_field_are_refused() {
    let server = server().await;
    for field in ["event", "eventType", "key", "id"] {
        for bad in ["\r", "\n", "\0", "\r\n", "\u{1}", "\u{7f}", "\u{85}"] {
            for text in [bad.to_owned(), format!("a{bad}b"), format!("a{bad}"), format!("{bad}a")] {
                let response =
                    try_publish(server.addr, &json!({"topic": "a", "data": 1, field: text})).await;
                assert_eq!(response.status, 400, "{field} {text:?}");
                assert_eq!(response.code(), "bad_event", "{field} {text:?}");
            }
        }
    }
    for text in ["\0", "a\0b", "\0a", "a\n\0"] {
        let response = try_publish(server.addr, &json!({"topic": "a", "data": text})).await;
        refused(&response, 400, "bad_event");
    }
    assert_eq!(server.stats().await["published"], 0);
    still_serves(&server).await;
}

#[tokio::test]
async fn control_event_types_are_the_hubs_own() {
    let server = server().await;
    for name in ["connected", "gap", "shutdown"] {
        for field in ["event", "eventType"] {
            let response =
                try_publish(server.addr, &json!({"topic": "a", "data": 1, field: name})).await;
            refused(&response, 400, "bad_event");
        }
        for name in [format!(" {name}"), format!("{name} "), format!("\u{2003}{name}")] {
            let event = json!({"topic": "a", "data": 1, "event": name});
            refused(&try_publish(server.addr, &event).await, 400, "bad_event");
        }
    }
    // Close to the reserved types, but allowed.
    for name in ["Connected", "gaps", "message", "con nected"] {
        server.publish(json!({"topic": "a", "data": 1, "event": name})).await;
    }
    still_serves(&server).await;
}

#[tokio::test]
async fn a_payload_may_have_64_kib_and_not_a_byte_more() {
    let server = server().await;
    let mut stream = Stream::subscribe(server.addr, "topic=a").await;
    let most = 64 * 1024;
    // As text; as JSON; and as text whose JSON is twice as long as itself.
    let taken = [json!("x".repeat(most)), json!(["x".repeat(most - 4)]), json!("\n".repeat(most))];
    let too_large =
        [json!("x".repeat(most + 1)), json!(["x".repeat(most - 3)]), json!("\n".repeat(most + 1))];
    for data in taken {
        server.publish(json!({"topic": "a", "data": data})).await;
        let received = stream.next().await.data;
        assert_eq!(received.len(), most);
        assert_eq!(data.as_str().unwrap_or(&data.to_string()), received);
    }
    for data in too_large {
        let event = json!({"topic": "a", "data": data});
        refused(&try_publish(server.addr, &event).await, 413, "payload_too_large");
        let array = try_publish(server.addr, &json!([{"topic": "a", "data": 1}, event])).await;
        refused(&array, 413, "payload_too_large");
        let lines = [("Content-Type", "application/x-ndjson")];
        let line =
            request(server.addr, "POST", "/events/publish", &lines, event.to_string().as_bytes())
                .await;
        assert_eq!(line.json()["error"]["code"], "payload_too_large");
    }
    assert_eq!(server.stats().await["published"], 3);
    drop(stream);
    still_serves(&server).await;
}

#[tokio::test]
async fn an_array_with_a_bad_event_is_refused_whole() {
    let server = server().await;
    let array = json!([{"topic": "a", "data": 1}, {"topic": "a::b", "data": 2}]);
    let response = try_publish(server.addr, &array).await;
    refused(&response, 400, "bad_topic");
    assert_eq!(response.json()["error"]["index"], 1);
    assert_eq!(server.stats().await["published"], 0);
}

#[tokio::test]
async fn paths_that_are_not_there_are_404() {
    let server = server().await;
    for path in [
        "/nothing",
        "/events",
        "/events/",
        "/events/streams",
        "/health",
        "/events/stream/a",
        "/%00",
        "/..",
    ] {
        for method in ["GET", "POST", "DELETE"] {
            refused(&request(server.addr, method, path, &[], b"").await, 404, "not_found");
        }
    }
}

#[tokio::test]
async fn methods_that_a_resource_lacks_are_405_and_name_those_it_has() {
    let server = server().await;
    let resources: [(&str, &str, &[&str]); 6] = [
        ("/events/stream?topic=a", "GET, HEAD, POST", &["PUT", "DELETE", "PATCH", "SUBSCRIBE"]),
        ("/events/publish", "POST", &["GET", "PUT", "DELETE"]),
        ("/health/live", "GET", &["POST", "DELETE"]),
        ("/health/ready", "GET", &["POST"]),
        ("/stats", "GET", &["POST"]),
        ("/metrics", "GET", &["PUT"]),
    ];
    for (path, allowed, methods) in resources {
        for method in methods {
            let response = request(server.addr, method, path, &[], b"").await;
            refused(&response, 405, "method_not_allowed");
            let allow = response.header("allow").unwrap_or_else(|| panic!("{path}: no Allow"));
            assert!(allowed.split(", ").all(|method| allow.contains(method)), "{path}: {allow}");
        }
    }
}

#[tokio::test]
async fn half_a_request_leaves_nothing_behind() {
    let server = server().await;
    let body = json!({"topic": "a", "data": "never"}).to_string();
    let publish = request_head(server.addr, "POST", "/events/publish", &[], body.as_bytes());
    let subscribe = request_head(server.addr, "GET", "/events/stream?topic=a", &[], b"");
    let ndjson = [("Content-Type", "application/x-ndjson"), ("Content-Length", "1000")];
    let lines = request_head(server.addr, "POST", "/events/publish", &ndjson, b"");
    let halves: Vec<Vec<u8>> = vec![
        Vec::new(),
        b"G".to_vec(),
        subscribe[..subscribe.len() / 2].to_vec(),
        subscribe[..subscribe.len() - 2].to_vec(),
        publish[..publish.len() - 1].to_vec(),
        publish.clone(),
        [&publish[..], &body.as_bytes()[..body.len() - 1]].concat(),
        lines.clone(),
        // Without its line end, the last line may be incomplete.
        [&lines[..], body.as_bytes()].concat(),
        [&lines[..], &body.as_bytes()[..10]].concat(),
    ];
    for bytes in halves {
        for is_reset in [false, true] {
            let mut socket = TcpStream::connect(server.addr).await.expect("the server accepts");
            socket.write_all(&bytes).await.expect("the server reads");
            if is_reset {
                socket.set_zero_linger().expect("a TCP socket");
            }
        }
    }
    still_serves(&server).await;
    assert_eq!(server.stats().await["published"], 1, "only the event of still_serves");
}

#[tokio::test]
async fn lines_before_a_cut_are_taken_and_the_cut_line_is_not() {
    let server = server().await;
    let mut stream = Stream::subscribe(server.addr, "topic=a").await;
    let mut lines =
        Lines::open(server.addr, &json!({"topic": "a", "data": "whole"}).to_string()).await;
    assert_eq!(lines.reader.next().await.expect("an answer")["success"], true);
    lines.writer.send_part(&json!({"topic": "a", "data": "cut"}).to_string()).await;
    drop(lines);
    assert_eq!(stream.next().await.data, "whole");
    server.publish(json!({"topic": "a", "data": "after"})).await;
    assert_eq!(stream.next().await.data, "after");
    assert_eq!(server.stats().await["published"], 2);
}

#[tokio::test]
async fn heads_of_a_mebibyte_are_refused() {
    let server = server().await;
    let mebibyte = "x".repeat(1024 * 1024);
    let heads = [
        format!("GET /events/stream?topic={mebibyte} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        format!(
            "GET /events/stream?topic=a HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: {mebibyte}\r\n\r\n"
        ),
        format!(
            "POST /events/publish HTTP/1.1\r\nHost: localhost\r\n{}\r\n",
            "X-A: b\r\n".repeat(150_000)
        ),
        mebibyte,
    ];
    for head in heads {
        let answer = raw_exchange(server.addr, head.as_bytes()).await;
        let status = String::from_utf8_lossy(&answer[..answer.len().min(12)]).into_owned();
        // The server closes over unread bytes, so the reset may overtake its answer.
        assert!(answer.is_empty() || status.starts_with("HTTP/1.1 4"), "{status}");
    }
    for counter in ["fanfare_connections_opened_total", "fanfare_events_published_total"] {
        assert_eq!(server.metric(counter).await, 0.0, "{counter}: a head was served");
    }
    still_serves(&server).await;
}

#[tokio::test]
async fn bytes_that_are_not_http_are_refused() {
    let server = server().await;
    let inputs: [&[u8]; 5] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /events/stream?topic=a\0b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"GET /events/stream?topic=\xff HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"POST /events/publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\nConnection: close\r\n\r\n",
    ];
    for bytes in inputs {
        let answer = raw_exchange(server.addr, bytes).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 4"), "{answer:?} for {bytes:?}");
    }
    still_serves(&server).await;
}

#[tokio::test]
async fn a_full_hub_refuses_for_now() {
    let server = Server::with_config("[hub]\nmax_connections = 2").await;
    let streams = [
        Stream::subscribe(server.addr, "topic=a").await,
        Stream::subscribe(server.addr, "topic=a").await,
    ];
    let path = "/events/stream?topic=a";

    for _ in 0..20 {
        let response = get(server.addr, path).await;
        refused(&response, 503, "at_capacity");
        let seconds: u64 =
            response.header("retry-after").expect("Retry-After").parse().expect("seconds");
        assert!((1..=60).contains(&seconds), "{seconds}");
    }

    let mut retries = Vec::new();
    for _ in 0..20 {
        let mut refusal = Stream::open(server.addr, path, &[("Sec-Fetch-Mode", "cors")]).await;
        let events = refusal.rest().await;
        assert!(refusal.is_ended_cleanly());
        let [shutdown] = events.as_slice() else { panic!("only shutdown: {events:?}") };
        assert_eq!(shutdown.event, "shutdown");
        let data = shutdown.json();
        assert_eq!(data["reason"], "capacity");
        let retry = refusal.retry().expect("retry");
        assert_eq!(data["reconnectMs"], retry);
        assert!(
            refusal.raw_text().starts_with(&format!("retry: {retry}\nevent: shutdown\ndata: "))
        );
        retries.push(retry);
    }
    retries.sort_unstable();
    retries.dedup();
    assert!(retries.len() > 10, "jittered: {retries:?}");

    assert_eq!(server.stats().await["connections"], 2);
    drop(streams);
    server.settled().await;
    let stream = Stream::subscribe(server.addr, "topic=a").await;
    drop(stream);
    server.settled().await;
}

#[tokio::test]
async fn room_is_given_back_whatever_becomes_of_a_stream() {
    let server = Server::with_config("[hub]\nmax_connections = 3").await;
    for round in 0..20 {
        let mut streams = Vec::new();
        let deadline = Instant::now() + Duration::from_secs(10);
        while streams.len() < 3 {
            let stream =
                Stream::request(server.addr, "GET", "/events/stream?topic=a", &[], b"").await;
            if stream.head.status == 200 {
                streams.push(stream);
            }
            assert!(Instant::now() < deadline, "round {round}: no room was given back");
        }
        for (index, stream) in streams.into_iter().enumerate() {
            match index {
                0 => stream.abort(),
                1 => stream.close().await,
                _ => drop(stream),
            }
        }
    }
    server.settled().await;
}

#[tokio::test]
async fn pages_of_other_sites_may_not_publish() {
    let server = server().await;
    let body = json!({"topic": "a", "data": 1}).to_string();
    let headers = [("Content-Type", "application/json"), ("Origin", "http://evil.example")];
    let response = request(server.addr, "POST", "/events/publish", &headers, body.as_bytes()).await;
    assert_eq!(response.status, 403);
    response.code();
    assert_eq!(server.stats().await["published"], 0);
}

#[tokio::test]
async fn a_publisher_over_its_share_of_ids_is_refused_and_others_are_not() {
    let server =
        Server::with_config("[publish]\nmax_remembered_bytes = \"4KiB\"\n[hub]\npartitions = 1")
            .await;
    let publish =
        |number: usize| json!({"topic": "a", "data": number, "id": format!("id-{number}")});
    let mut taken = 0;
    let refusal = loop {
        let response = try_publish(server.addr, &publish(taken)).await;
        if response.status != 200 {
            break response;
        }
        taken += 1;
        assert!(taken <= 4096 / 2 / 128, "at most half of the budget");
    };
    refused(&refusal, 429, "too_many_ids");
    assert!(refusal.header("retry-after").is_some());
    assert_eq!(server.stats().await["published"], taken);
    let mut stream = Stream::subscribe(server.addr, "topic=a&last_event_id=earliest").await;
    let data: Vec<String> = (0..taken).map(|number: usize| number.to_string()).collect();
    assert_eq!(stream.take_data(taken).await, data);
    let known: Value = try_publish(server.addr, &publish(0)).await.json();
    assert_eq!(known["success"], true, "a repeated publish needs no more room");
    assert_eq!(server.stats().await["published"], taken);
    let remembered = server.metric("fanfare_remembered_id_bytes").await;
    assert!((1024.0..=2048.0).contains(&remembered), "{remembered}");
    let without_id = try_publish(server.addr, &json!({"topic": "a", "data": "no id"})).await;
    assert_eq!(without_id.status, 200);
    let other = try_publish_from([127, 0, 0, 2], server.addr, &publish(taken)).await;
    assert_eq!(other.status, 200, "{}", other.text());
}
