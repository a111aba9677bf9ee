//! Pages of other origins admitted by `[cors]`: preflight requests, streams and refusals. The whole
//! module runs on both transports.

use super::Server;
use crate::support::{
    Stream,
    http::{Response, request},
};

const APP: &str = "https://app.example";
const CONFIG: &str =
    "[cors]\norigins = [\"https://app.example\"]\ncredentials = true\nmax_age = \"5m\"";

async fn preflight(server: &Server, origin: &str, path: &str, method: &str) -> Response {
    let headers = [
        ("Origin", origin),
        ("Access-Control-Request-Method", method),
        ("Access-Control-Request-Headers", "authorization,content-type,last-event-id"),
    ];
    request(server.addr, "OPTIONS", path, &headers, b"").await
}

#[tokio::test]
async fn preflight_requests_of_admitted_origins_are_answered() {
    let server = Server::with_config(CONFIG).await;
    for (path, method) in [
        ("/events/publish", "POST"),
        ("/events/stream", "POST"),
        ("/events/follows/a/b", "DELETE"),
        ("/events/preferences/a", "PUT"),
        ("/stats", "GET"),
    ] {
        let answer = preflight(&server, APP, path, method).await;
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), Some(APP));
        assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
        assert_eq!(answer.header("access-control-max-age"), Some("300"));
        assert!(answer.header("access-control-allow-methods").unwrap().contains(method));
        let allowed = answer.header("access-control-allow-headers").unwrap();
        assert!(allowed.contains("authorization"), "{allowed}");

        let answer = preflight(&server, "https://evil.example", path, method).await;
        assert_eq!(answer.header("access-control-allow-origin"), None, "{path}");
    }
}

#[tokio::test]
async fn a_stream_of_an_admitted_origin_has_the_headers_and_stays_raw() {
    let server = Server::with_config(CONFIG).await;
    let path = "/events/stream?topic=a";
    let stream = Stream::open(server.addr, path, &[("Origin", APP)]).await;
    assert_eq!(stream.head.header("access-control-allow-origin"), Some(APP));
    assert_eq!(stream.head.header("access-control-allow-credentials"), Some("true"));
    assert!(stream.head.header("vary").unwrap().contains("Origin"));
    let foreign = [("Origin", "https://evil.example")];
    let stream = Stream::open(server.addr, path, &foreign).await;
    assert_eq!(stream.head.header("access-control-allow-origin"), None);
    assert!(stream.head.header("vary").unwrap().contains("Origin"));
    let raw_count = server.metric("fanfare_raw_streams_opened_total").await;
    assert!(raw_count == 0.0 || raw_count == 2.0, "{raw_count}");
}

#[tokio::test]
async fn a_refusal_is_readable_for_a_page_of_an_admitted_origin() {
    let server = Server::with_config(CONFIG).await;
    for (origin, admitted) in [(APP, Some(APP)), ("https://evil.example", None)] {
        let refusal =
            request(server.addr, "GET", "/events/stream", &[("Origin", origin)], b"").await;
        assert_eq!(refusal.status, 400);
        assert_eq!(refusal.header("access-control-allow-origin"), admitted);
        assert!(refusal.header("access-control-expose-headers").unwrap().contains("retry-after"));
        assert!(refusal.header("vary").unwrap().contains("Origin"));
    }
}

#[tokio::test]
async fn any_origin_is_admitted_without_credentials_only() {
    let server = Server::with_config("[cors]\norigins = [\"*\"]").await;
    let origin = [("Origin", "https://any.example")];
    let stream = Stream::open(server.addr, "/events/stream?topic=a", &origin).await;
    assert_eq!(stream.head.header("access-control-allow-origin"), Some("*"));
    assert_eq!(stream.head.header("access-control-allow-credentials"), None);
    let answer = request(
        server.addr,
        "POST",
        "/events/publish",
        &[("Origin", "https://any.example"), ("Content-Type", "application/json")],
        br#"{"topic":"a","data":1}"#,
    )
    .await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
}

#[tokio::test]
async fn without_cors_the_hub_sends_no_cors_headers() {
    let server = Server::start(&["--no-demo"]).await;
    let stream = Stream::open(server.addr, "/events/stream?topic=a", &[("Origin", APP)]).await;
    assert_eq!(stream.head.header("access-control-allow-origin"), None);
    assert_eq!(stream.head.header("vary"), None);
    assert_eq!(preflight(&server, APP, "/events/publish", "POST").await.status, 405);
}
