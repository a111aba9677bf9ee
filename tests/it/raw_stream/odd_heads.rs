//! Heads, plain and odd. The hub answers each exactly as the framework does, and only plain ones
//! get raw streams.

use super::{Server, answer::Answer, framework, raw_streams};

const REQUEST: &str = "GET /events/stream?topic=a HTTP/1.1\r\n";

/// A stream request with these lines behind the first.
fn stream(lines: &str) -> String {
    format!("{REQUEST}{lines}\r\n")
}

/// Sends each request to both servers and compares the answers. `stream_count` of them must be
/// streams, `raw_count` of those raw streams.
async fn same(requests: &[String], stream_count: usize, raw_count: usize) {
    let (raw, framework) = (Server::start(&["--no-demo"]).await, framework().await);
    let mut streams = 0;
    for request in requests {
        let answer = Answer::to(raw.addr, &[request.as_bytes()]).await;
        let expected = Answer::to(framework.addr, &[request.as_bytes()]).await;
        assert_eq!(answer, expected, "{request:?}");
        streams += usize::from(answer.is_stream());
    }
    assert_eq!(streams, stream_count, "streams");
    assert_eq!(raw_streams(&raw).await, raw_count as f64, "on the bare socket");
    raw.settled().await;
}

#[tokio::test]
async fn plain_heads_get_the_very_head_that_the_framework_writes() {
    let requests = [
        stream("Host: localhost\r\n"),
        stream("host:localhost\r\n"),
        stream("Host: \r\n"),
        stream("Host: localhost\r\nConnection: close\r\n"),
        stream("Host: localhost\r\nConnection: Keep-Alive\r\n"),
        stream("Host: localhost\r\nAccept: text/event-stream\r\nCookie: a=b\r\nCookie: c=d\r\n"),
        stream("Host: localhost\r\nRange: bytes=0-1\r\nIf-None-Match: *\r\nTE: trailers\r\n"),
        stream("Host: localhost\r\nX-Latin: caf\u{e9}\r\n"),
        stream(&format!("Host: localhost\r\nCookie: {}\r\n", "x".repeat(7 * 1024))),
        // The standard allows bare LF.
        stream("Host: localhost\r\n").replace("\r\n", "\n"),
        "GET /events/stream?topic=x:%2A&types=y#part HTTP/1.1\r\nHost: localhost\r\n\r\n"
            .to_owned(),
    ];
    same(&requests, requests.len(), requests.len()).await;
}

#[tokio::test]
async fn heads_that_ask_for_more_get_their_stream_from_the_framework() {
    let with_body =
        |line: &str, body: &str| stream(&format!("Host: localhost\r\n{line}\r\n")) + body;
    let requests = [
        with_body("Content-Length: 0", ""),
        with_body("Content-Length: 5", "hello"),
        with_body("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n"),
        with_body("Content-Length: 5\r\nExpect: 100-continue", "hello"),
        with_body("Upgrade: h2c\r\nConnection: Upgrade", ""),
        with_body("Connection: close, x", ""),
        with_body("Origin: http://elsewhere", ""),
        with_body(&format!("Cookie: {}", "x".repeat(9 * 1024)), ""),
        with_body("X: 1\r\n".repeat(70).trim_end(), ""),
        // Bytes behind the head.
        with_body("X: 1", &stream("Host: localhost\r\n")),
        with_body("X: 1", "\r\n"),
        with_body("X: 1", "garbage"),
        format!("\r\n{}", stream("Host: localhost\r\n")),
        "GET http://localhost/events/stream?topic=a HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        "GET /events/strea%6d?topic=a HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        "GET /events/stream?topic=a HTTP/1.0\r\n\r\n".to_owned(),
        "GET /events/stream?topic=a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".to_owned(),
    ];
    same(&requests, requests.len(), 0).await;
}

#[tokio::test]
async fn what_is_refused_is_refused_by_the_framework() {
    let requests = [
        // Not HTTP, or another version.
        "\u{16}\u{3}\u{1}\u{2}\r\n\r\n".to_owned(),
        "GET /events/stream?topic=a\r\n\r\n".to_owned(),
        "GET /events/stream?topic=a HTTP/1.2\r\nHost: localhost\r\n\r\n".to_owned(),
        "GET  /events/stream?topic=a HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        "GET /events/stream?topic=a b HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        stream("Host: localhost\r\nX: 1\r\n folded\r\n"),
        stream("Host: localhost\r\nX : 1\r\n"),
        stream("Host: localhost\r\nX\r\n"),
        stream("Host: localhost\r\nX: \u{0}\r\n"),
        stream("Host: localhost\r\nHost: localhost\r\n"),
        stream("Host: localhost\r\nhost: b\r\n"),
        stream(""),
        stream("Host: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n"),
        stream("Host: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
        stream("Host: localhost\r\nTransfer-Encoding: gzip\r\n"),
        stream("Host: localhost\r\n").replace("topic=a", "topic="),
        stream("Host: localhost\r\n").replace("topic=a", "topic=%FF"),
        stream("Host: localhost\r\n").replace("topic=a", "topic=a&batch=xml"),
        stream("Host: localhost\r\nLast-Event-ID: nonsense\r\n"),
        // Other methods and paths.
        "get /events/stream?topic=a HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        "PUT /events/stream?topic=a HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        "HEAD /events/stream HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".to_owned(),
        stream("Host: localhost\r\nUpgrade: websocket\r\n"),
        stream("Host: localhost\r\nUpgrade: h2c, WebSocket\r\nConnection: upgrade\r\n"),
        "GET /events/stream/?topic=a HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        "GET //events/stream?topic=a HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        "GET /EVENTS/stream?topic=a HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
    ];
    same(&requests, 0, 0).await;
}

#[tokio::test]
async fn a_head_may_come_in_any_pieces() {
    let (raw, framework) = (Server::start(&["--no-demo"]).await, framework().await);
    let request = stream("Host: localhost\r\nAccept: text/event-stream\r\n").into_bytes();
    let expected = Answer::to(framework.addr, &[&request]).await;
    for at in 1..request.len() {
        let (first, second) = request.split_at(at);
        assert_eq!(Answer::to(raw.addr, &[first, second]).await, expected, "in two at {at}");
    }
    let single: Vec<&[u8]> = request.chunks(1).collect();
    assert_eq!(Answer::to(raw.addr, &single).await, expected, "byte by byte");
    raw.settled().await;
}
