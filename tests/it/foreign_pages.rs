//! Pages of other sites and names pointed at the hub: what a browser in the hub's network could be
//! made to send.

use serde_json::json;

use crate::support::{
    Server,
    http::{Response, exchange, raw_exchange, request},
};

const ALL_CHANGES: [(&str, &str); 8] = [
    ("POST", "/events/publish"),
    ("POST", "/events/fanout"),
    ("POST", "/events/follows"),
    ("PUT", "/events/follows/a/b"),
    ("DELETE", "/events/follows/a/b"),
    ("PUT", "/events/preferences/a"),
    ("POST", "/events/streams/00000000000000000000000000000000/topics"),
    ("POST", "/events/publish?x"),
];

fn refused(response: &Response, status: u16, code: &str) {
    assert_eq!((response.status, response.code().as_str()), (status, code), "{}", response.text());
}

#[tokio::test]
async fn a_change_from_another_origin_is_refused() {
    let server =
        Server::with_config("[cors]\norigins = [\"https://app.example\"]\n[server]\nhosts = []")
            .await;
    let own = format!("http://{}", server.addr);
    let foreign =
        ["http://evil.example", "null", "https://app.example.evil", "http://127.0.0.1:1", "x"];
    for (method, path) in ALL_CHANGES {
        for origin in foreign {
            // Pages can choose the first two media types without asking; a preflight asks for JSON.
            for media_type in ["text/plain", "application/json"] {
                let headers = [("Origin", origin), ("Content-Type", media_type)];
                let response = request(server.addr, method, path, &headers, b"{}").await;
                refused(&response, 403, "cross_site");
            }
        }
        let response =
            request(server.addr, method, path, &[("Sec-Fetch-Site", "cross-site")], b"{}").await;
        refused(&response, 403, "cross_site");
        for origin in [own.as_str(), "https://app.example"] {
            let headers = [("Origin", origin), ("Content-Type", "application/json")];
            let response = request(server.addr, method, path, &headers, b"{}").await;
            assert_ne!(response.status, 403, "{method} {path}");
        }
    }
    assert_eq!(server.stats().await["published"], 0);
}

#[tokio::test]
async fn a_body_needs_the_media_type_of_json() {
    let server = Server::start(&["--no-demo"]).await;
    let event = json!({"topic": "a", "data": 1}).to_string();
    let publish = async |media_type: &str| {
        let headers = [("Content-Type", media_type)];
        request(server.addr, "POST", "/events/publish", &headers, event.as_bytes()).await
    };
    for media_type in
        ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "x"]
    {
        refused(&publish(media_type).await, 415, "unsupported_media_type");
    }
    for media_type in ["application/json", "Application/JSON; charset=utf-8", "application/ld+json"]
    {
        assert_eq!(publish(media_type).await.json()["success"], true, "{media_type}");
    }
    // A program without a type is believed, a page is not.
    let path = "/events/publish";
    assert_eq!(request(server.addr, "POST", path, &[], event.as_bytes()).await.status, 200);
    let own = format!("http://{}", server.addr);
    let response = request(server.addr, "POST", path, &[("Origin", &own)], event.as_bytes()).await;
    refused(&response, 415, "unsupported_media_type");
}

async fn exchange_as(server: &Server, host: &str, path: &str) -> String {
    let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    String::from_utf8(raw_exchange(server.addr, head.as_bytes()).await).expect("text")
}

#[tokio::test]
async fn other_hosts_are_refused_except_by_the_health_checks() {
    let server = Server::start(&["--no-demo"]).await;
    let own = server.addr.to_string();
    for host in [own.as_str(), "localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:8080"] {
        assert!(exchange_as(&server, host, "/stats").await.starts_with("HTTP/1.1 200"), "{host}");
    }
    for host in ["evil.example", "192.0.2.1", "localhost.evil.example"] {
        for path in ["/stats", "/", "/nothing", "/events/stream?topic=a", "/events/feed?user=a"] {
            let answer = exchange_as(&server, host, path).await;
            assert!(answer.starts_with("HTTP/1.1 421"), "{host} {path}: {answer}");
            assert!(answer.contains("\"wrong_host\""), "{answer}");
        }
        let answer = exchange_as(&server, host, "/health/live").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    assert_eq!(server.metric("fanfare_connections_opened_total").await, 0.0);

    let server = Server::with_config("[server]\nhosts = [\"hub.example\"]").await;
    let answer = exchange_as(&server, "Hub.Example:8080", "/stats").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let answer = exchange_as(&server, "localhost", "/events/stream?topic=a").await;
    assert!(answer.starts_with("HTTP/1.1 421"), "{answer}");
}

#[tokio::test]
async fn a_browser_over_plain_http_gets_a_temporary_refusal_as_a_stream() {
    let server = Server::with_config("[hub]\nmax_connections = 1").await;
    let _first = crate::support::Stream::subscribe(server.addr, "topic=a").await;
    let agent = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
    let path = "/events/stream?topic=a";
    for method in ["GET", "POST"] {
        let body: &[u8] = if method == "POST" { b"{\"topics\":[\"a\"]}" } else { b"" };
        let response = request(server.addr, method, path, &[("User-Agent", agent)], body).await;
        assert_eq!(response.status, 200);
        assert!(response.text().starts_with("retry: "), "{}", response.text());
        assert!(response.text().contains("event: shutdown"), "{}", response.text());
        let response = request(server.addr, method, path, &[("User-Agent", "curl/8")], body).await;
        refused(&response, 503, "at_capacity");
    }
}

#[tokio::test]
async fn a_request_for_websocket_is_answered_at_once() {
    let server = Server::start(&["--no-demo"]).await;
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    let event = json!({"topic": "a", "data": 1}).to_string();
    let length = event.len();
    let requests = [
        format!("GET /events/stream?topic=a HTTP/1.1\r\nHost: localhost\r\n{upgrade}\r\n"),
        format!("GET /events/feed?user=a HTTP/1.1\r\nHost: localhost\r\n{upgrade}\r\n"),
        format!(
            "POST /events/publish HTTP/1.1\r\nHost: localhost\r\n{upgrade}\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{event}"
        ),
    ];
    for text in requests {
        let answer = exchange(server.addr, text.as_bytes(), false).await;
        refused(&answer, 400, "upgrade_unsupported");
    }
    // HTTP/2 over plain text is offered by ordinary clients, and may be ignored.
    let text = format!(
        "POST /events/publish HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings, \
         close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{event}"
    );
    let answer = raw_exchange(server.addr, text.as_bytes()).await;
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
}
