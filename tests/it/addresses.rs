//! The limits of one client address, and of all connections of the process.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::support::{
    Launch, Server, Stream,
    http::{Response, get, request, request_head},
    until,
    wait::DEADLINE,
};

fn refused(response: &Response, status: u16, code: &str) {
    assert_eq!((response.status, response.code().as_str()), (status, code), "{}", response.text());
    assert!(response.header("retry-after").is_some());
}

/// A server behind a trusted proxy: loopback itself has no limits.
async fn server(limits: &str) -> Server {
    let limits = format!("[limits]\ntrusted_proxies = [\"127.0.0.1\"]\n{limits}");
    Server::with_config(&limits).await
}

#[tokio::test]
async fn an_address_has_a_number_of_streams() {
    let server = server("streams = 2").await;
    let of = |address| [("X-Forwarded-For", address)];
    let path = "/events/stream?topic=a";
    let first = Stream::subscribe_with(server.addr, "topic=a", &of("192.0.2.1")).await;
    let _second = Stream::subscribe_with(server.addr, "topic=a", &of("192.0.2.1")).await;
    refused(
        &request(server.addr, "GET", path, &of("192.0.2.1"), b"").await,
        429,
        "too_many_streams",
    );
    let headers = [("Forwarded", "for=192.0.2.1"), ("Content-Type", "application/json")];
    let body = b"{\"topics\":[\"a\"]}";
    let response = request(server.addr, "POST", "/events/stream", &headers, body).await;
    refused(&response, 429, "too_many_streams");
    let path = "/events/feed?user=u";
    refused(
        &request(server.addr, "GET", path, &of("192.0.2.1"), b"").await,
        429,
        "too_many_streams",
    );
    let _other = Stream::subscribe_with(server.addr, "topic=a", &of("192.0.2.2")).await;
    // A client cannot choose its address: the last entry is the proxy's word.
    let forged = of("192.0.2.9, 192.0.2.1");
    let path = "/events/stream?topic=a";
    refused(&request(server.addr, "GET", path, &forged, b"").await, 429, "too_many_streams");
    drop(first);
    until(DEADLINE, "the share is free again", async || {
        request(server.addr, "HEAD", path, &of("192.0.2.1"), b"").await.status == 200
    })
    .await;
    for _ in 0..5 {
        drop(Stream::subscribe(server.addr, "topic=a").await);
    }
}

#[tokio::test]
async fn an_address_has_a_rate_of_requests() {
    let server = server("requests_per_second = 2").await;
    let statuses = async |address: &str| {
        let mut statuses = Vec::new();
        for _ in 0..20 {
            let headers = [("X-Forwarded-For", address)];
            let response = request(server.addr, "GET", "/events/topics/a", &headers, b"").await;
            if response.status == 429 {
                refused(&response, 429, "rate_limited");
            }
            statuses.push(response.status);
        }
        statuses
    };
    let refused = statuses("2001:db8::1").await;
    assert_eq!((refused[0], refused.contains(&429)), (200, true), "{refused:?}");
    assert_eq!(statuses("2001:db8:0:1::1").await[0], 200);
    let headers = [("X-Forwarded-For", "2001:db8::1"), ("Content-Type", "application/json")];
    let event = json!({"topic": "a", "data": 1}).to_string();
    let response =
        request(server.addr, "POST", "/events/publish", &headers, event.as_bytes()).await;
    assert!([200, 429].contains(&response.status));
    // The raw transport counts too.
    let mut has_refused = false;
    for _ in 0..20 {
        let headers = [("X-Forwarded-For", "192.0.2.5")];
        let path = "/events/stream?topic=a";
        has_refused |= request(server.addr, "HEAD", path, &headers, b"").await.status == 429;
    }
    assert!(has_refused);
}

#[tokio::test]
async fn an_address_has_bytes_in_flight() {
    let server = server("request_bytes = \"128KiB\"").await;
    let of = |address| [("X-Forwarded-For", address), ("Content-Type", "application/json")];
    let head = request_head(
        server.addr,
        "POST",
        "/events/publish",
        &of("192.0.2.1"),
        &vec![0; 512 * 1024],
    );
    let mut socket = TcpStream::connect(server.addr).await.expect("the server accepts");
    socket.write_all(&head).await.expect("it is open");
    socket.write_all(&vec![b' '; 120 * 1024]).await.expect("it is open");
    until(DEADLINE, "the bytes are held", async || {
        server.metric("fanfare_request_bytes").await > 100e3
    })
    .await;
    let large = json!({"topic": "a", "data": "x".repeat(60_000)}).to_string();
    let publish = async |address| {
        let body = large.as_bytes();
        request(server.addr, "POST", "/events/publish", &of(address), body).await
    };
    refused(&publish("192.0.2.1").await, 429, "rate_limited");
    assert_eq!(publish("192.0.2.2").await.status, 200);
    drop(socket);
    until(DEADLINE, "the bytes are given back", async || publish("192.0.2.1").await.status == 200)
        .await;
}

#[tokio::test]
async fn clients_behind_a_proxy_have_shares_of_remembered_ids() {
    let server = server("[publish]\nmax_remembered_bytes = \"4KiB\"").await;
    let publish = async |address, number: usize| {
        let headers = [("X-Forwarded-For", address), ("Content-Type", "application/json")];
        let event = json!({"topic": "a", "data": 1, "id": format!("{address} {number}")});
        let body = event.to_string();
        request(server.addr, "POST", "/events/publish", &headers, body.as_bytes()).await
    };
    let mut number = 0;
    let refusal = loop {
        let response = publish("192.0.2.1", number).await;
        if response.status != 200 {
            break response;
        }
        number += 1;
        assert!(number < 16, "at most half of the budget");
    };
    refused(&refusal, 429, "too_many_ids");
    assert_eq!(publish("192.0.2.2", 0).await.status, 200);
}

#[tokio::test]
async fn beyond_the_limit_of_connections_health_and_metrics_are_served() {
    let launch =
        Launch { args: vec!["--no-demo".to_owned()], open_files: Some(300), ..Launch::default() };
    let server = Server::launch(launch).await;
    // 300 files less 200 spare are 100 streams, and half of a hundred more connections.
    let mut idle = Vec::new();
    for _ in 0..160 {
        idle.push(TcpStream::connect(server.addr).await.expect("the kernel accepts"));
    }
    let refusals = async || {
        let response = get(server.addr, "/events/topics/a").await;
        response.status == 503 && response.code() == "at_capacity"
    };
    until(DEADLINE, "further connections are refused", refusals).await;
    for path in ["/health/live", "/health/ready", "/metrics", "/stats"] {
        assert_eq!(get(server.addr, path).await.status, 200, "{path}");
    }
    assert!(server.metric("process_open_fds").await < 300.0);
    drop(idle);
    until(DEADLINE, "there is room again", async || {
        get(server.addr, "/events/topics/a").await.status == 200
    })
    .await;
    assert!(!server.log().contains("Too many open files"), "{}", server.log());
}

/// An address of this machine besides loopback: the source of its packets to others.
fn own_address() -> IpAddr {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    // Sends nothing: it only chooses the route.
    socket.connect("192.0.2.1:9").expect("the machine has a network");
    socket.local_addr().expect("just bound").ip()
}

#[tokio::test]
async fn an_address_has_a_number_of_connections() {
    let launch = Launch {
        args: ["--no-demo", "--open-to-network"].map(str::to_owned).to_vec(),
        config: Some("[limits]\nconnections = 3".to_owned()),
        ..Launch::default()
    };
    let server = Server::spawn_on(SocketAddr::from((own_address(), 0)), launch).await;
    let connect = async || TcpStream::connect(server.addr).await.expect("the server accepts");
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut socket = connect().await;
        // Answered, so it is counted.
        socket.write_all(b"HEAD /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        assert!(first_bytes(&mut socket).await.starts_with("HTTP/1.1 200"));
        held.push(socket);
    }
    let refused = first_bytes(&mut connect().await).await;
    assert!(refused.starts_with("HTTP/1.1 429"), "{refused}");
    assert!(
        refused.contains("too_many_connections") && refused.contains("retry-after"),
        "{refused}"
    );
    held.pop();
    until(DEADLINE, "the share is free again", async || {
        let mut socket = connect().await;
        let request = b"HEAD /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n";
        // A refusing server may close before it reads.
        let _ = socket.write_all(request).await;
        first_bytes(&mut socket).await.starts_with("HTTP/1.1 200")
    })
    .await;
}

async fn first_bytes(socket: &mut TcpStream) -> String {
    let mut bytes = [0; 1000];
    let count = timeout(DEADLINE, socket.read(&mut bytes)).await.expect("an answer in time");
    String::from_utf8_lossy(&bytes[..count.unwrap_or(0)]).into_owned()
}
