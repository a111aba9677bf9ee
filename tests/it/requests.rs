//! Requests as ordinary programs send them: media types, marks, encodings, `HEAD` and `Accept`.

use serde_json::{Value, json};

use crate::support::{
    Server, Stream,
    http::{Response, raw_exchange, request, try_publish},
};

fn refused(response: &Response, status: u16, code: &str) {
    assert_eq!((response.status, response.code().as_str()), (status, code), "{}", response.text());
}

async fn server() -> Server {
    Server::start(&["--no-demo"]).await
}

#[tokio::test]
async fn a_byte_order_mark_is_skipped() {
    let server = server().await;
    let event = b"\xef\xbb\xbf{\"topic\":\"a\",\"data\":1}";
    for media_type in ["application/json", "application/x-ndjson"] {
        let headers = [("Content-Type", media_type)];
        let response = request(server.addr, "POST", "/events/publish", &headers, event).await;
        assert_eq!(response.json()["success"], true, "{media_type}: {}", response.text());
    }
    let array = b"\xef\xbb\xbf[{\"topic\":\"a\",\"data\":1}]";
    let response = request(server.addr, "POST", "/events/publish", &[], array).await;
    assert_eq!(response.json()[0]["success"], true, "{}", response.text());
}

#[tokio::test]
async fn every_name_of_ndjson_is_taken() {
    let server = server().await;
    let lines = b"{\"topic\":\"a\",\"data\":1}\n{\"topic\":\"a\",\"data\":2}\n";
    for name in ["x-ndjson", "ndjson", "jsonl", "x-jsonlines", "JSONL; charset=utf-8"] {
        let media_type = format!("application/{name}");
        let headers = [("Content-Type", media_type.as_str())];
        let response = request(server.addr, "POST", "/events/publish", &headers, lines).await;
        assert_eq!(response.text().lines().count(), 2, "{name}: {}", response.text());
    }
}

#[tokio::test]
async fn a_compressed_body_is_refused_by_its_name() {
    let server = server().await;
    let event = json!({"topic": "a", "data": 1}).to_string();
    for path in ["/events/publish", "/events/stream", "/events/fanout"] {
        let headers = [("Content-Encoding", "gzip"), ("Content-Type", "application/json")];
        let response = request(server.addr, "POST", path, &headers, event.as_bytes()).await;
        refused(&response, 415, "unsupported_media_type");
    }
    let headers = [("Content-Encoding", "identity"), ("Content-Type", "application/json")];
    let response =
        request(server.addr, "POST", "/events/publish", &headers, event.as_bytes()).await;
    assert_eq!(response.status, 200);
}

#[tokio::test]
async fn an_unknown_field_of_an_event_is_refused_by_its_name() {
    let server = server().await;
    for field in ["evnet", "dta", "eventtype", "ttl_ms"] {
        let response =
            try_publish(server.addr, &json!({"topic": "a", "data": 1, field: "x"})).await;
        refused(&response, 400, "bad_json");
        assert!(response.text().contains(field), "{}", response.text());
    }
    let body = json!({"author": "a", "data": 1, "topic": "x"}).to_string();
    let response = request(server.addr, "POST", "/events/fanout", &[], body.as_bytes()).await;
    refused(&response, 400, "bad_json");
    assert_eq!(server.stats().await["published"], 0);
}

#[tokio::test]
async fn the_head_of_a_stream_is_the_same_without_its_body() {
    let server = server().await;
    for (path, has_length) in [("/events/stream?topic=a", false), ("/", true)] {
        let text = format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let answer = raw_exchange(server.addr, text.as_bytes()).await;
        let answer = String::from_utf8(answer).expect("a head").to_ascii_lowercase();
        assert!(answer.starts_with("http/1.1 200"), "{path}: {answer}");
        assert_eq!(answer.contains("\r\ncontent-length: "), has_length, "{answer}");
        assert!(!answer.contains("\r\ncontent-length: 0\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    }
    server.settled().await;
}

#[tokio::test]
async fn metrics_come_in_the_accepted_format() {
    let server = server().await;
    for (accept, format) in [
        ("*/*", "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        (
            "application/openmetrics-text;version=1.0.0,text/plain;q=0.5",
            "application/openmetrics-text",
        ),
        ("text/plain;version=0.0.4", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/plain, application/openmetrics-text;q=0", "text/plain"),
    ] {
        let response = request(server.addr, "GET", "/metrics", &[("Accept", accept)], b"").await;
        let media_type = response.header("content-type").unwrap_or_default();
        assert!(media_type.starts_with(format), "{accept}: {media_type}");
        assert!(response.text().contains("\nfanfare_connections 0\n"));
    }
}

#[tokio::test]
async fn a_batch_has_the_line_ends_as_published() {
    let server = server().await;
    let mut stream = Stream::subscribe(server.addr, "topic=a&batch=json").await;
    for data in ["a\r\nb", "a\rb", "a\nb\n"] {
        server.publish(json!({"topic": "a", "data": data})).await;
        let batch = stream.next().await.json();
        assert_eq!(batch[0]["data"], Value::from(data));
    }
}
