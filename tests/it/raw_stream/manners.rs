//! Slow clients, clients sending more after their request, and clients going away.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use super::{Server, raw_streams};
use crate::support::{Stream, process::cpu_time, until, wait::DEADLINE};

/// The head deadline of `fanfare serve`, and a margin for head sniffing.
const HEAD_DEADLINE: Duration = Duration::from_secs(10 + 1);

const REQUEST: &[u8] = b"GET /events/stream?topic=a HTTP/1.1\r\nHost: localhost\r\n\r\n";

async fn server() -> Server {
    Server::start(&["--no-demo"]).await
}

/// A stream's socket with small buffers.
async fn connected(server: &Server, topic: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a TCP socket");
    let mut socket = socket.connect(server.addr).await.expect("the server accepts");
    let request = format!("GET /events/stream?topic={topic} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    socket.write_all(request.as_bytes()).await.expect("the server reads");
    read_until(&mut socket, "event: connected\n").await;
    socket
}

async fn read_until(socket: &mut TcpStream, wanted: &str) {
    let mut bytes = Vec::new();
    let read = timeout(DEADLINE, async {
        while !bytes.windows(wanted.len()).any(|window| window == wanted.as_bytes()) {
            assert_ne!(socket.read_buf(&mut bytes).await.expect("it can be read"), 0);
        }
    });
    read.await.unwrap_or_else(|_| panic!("{wanted:?} in time"));
}

/// All bytes until the server closes.
async fn rest(mut socket: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    while socket.read_buf(&mut bytes).await.is_ok_and(|count| count > 0) {}
    bytes
}

#[tokio::test]
async fn heads_that_do_not_come_to_an_end_cost_neither_time_nor_cpu() {
    let server = server().await;
    let start = Instant::now();
    let mut sockets = Vec::new();
    for length in 0..REQUEST.len() {
        let mut socket = TcpStream::connect(server.addr).await.expect("the server accepts");
        socket.write_all(&REQUEST[..length]).await.expect("the server reads");
        sockets.push(socket);
    }
    for socket in sockets {
        let answer = timeout(2 * HEAD_DEADLINE, rest(socket)).await.expect("it is closed");
        let answer = String::from_utf8(answer).expect("ASCII");
        assert!(answer.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{answer}");
        assert!(answer.contains("content-length: 0\r\n"), "{answer}");
    }
    assert!(start.elapsed() < HEAD_DEADLINE + Duration::from_secs(4), "{:?}", start.elapsed());
    let cpu = cpu_time(server.pid());
    assert!(cpu < Duration::from_secs(2), "{cpu:?} of CPU");
    server.settled().await;
}

#[tokio::test]
async fn what_a_client_says_behind_its_request_is_dropped_up_to_a_bound() {
    let server = server().await;
    let mut socket = connected(&server, "a").await;
    for _ in 0..100 {
        socket.write_all(&[b'x'; 100]).await.expect("the server reads");
    }
    server.publish(json!({"topic": "a", "data": "still here"})).await;
    read_until(&mut socket, "data: still here\n").await;
    let talk = async { while socket.write_all(&[b'x'; 1000]).await.is_ok() {} };
    timeout(DEADLINE, talk).await.expect("it is closed");
    server.until_streams(0).await;
    assert_eq!(raw_streams(&server).await, 1.0);
}

#[tokio::test]
async fn a_client_that_goes_away_is_noticed_at_once_even_if_it_did_not_read() {
    let server = Server::with_config("[delivery]\nflush = \"immediate\"").await;
    for is_reset in [false, true] {
        for is_stalled in [false, true] {
            let mut socket = connected(&server, "a").await;
            if is_stalled {
                fill(&server).await;
            }
            if is_reset {
                socket.set_zero_linger().expect("a TCP socket");
                drop(socket);
            } else {
                // The socket stays open: dropping it with unread data would send RST instead of
                // FIN.
                socket.shutdown().await.expect("connected");
                server.until_streams(0).await;
            }
            server.until_streams(0).await;
        }
    }
    assert_eq!(server.metric("fanfare_connections_closed_total{reason=\"client\"}").await, 4.0);
}

/// Publishes until the stream's socket is full.
async fn fill(server: &Server) {
    let filler = "x".repeat(60_000);
    until(DEADLINE, "the socket is full", async || {
        server.publish(json!({"topic": "a", "data": filler})).await;
        server.metric("fanfare_outbox_bytes").await > 200_000.0
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_was_used_before_goes_on_with_a_stream() {
    let server = server().await;
    let mut socket = TcpStream::connect(server.addr).await.expect("the server accepts");
    socket
        .write_all(b"HEAD /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await
        .expect("it is sent");
    read_until(&mut socket, "\r\n\r\n").await;
    let mut stream = Stream::request_on(socket, "GET", "/events/stream?topic=a", &[], b"").await;
    stream.read_connected().await;
    assert_eq!(raw_streams(&server).await, 0.0);
}

#[tokio::test]
async fn a_stalled_stream_s_socket_is_given_back_at_its_limit() {
    let config = "[stream]\nwrite_timeout = \"2s\"\n[outbox]\nmax_bytes = \"256KiB\"\n\
                  [delivery]\nflush = \"immediate\"";
    let server = Server::with_config(config).await;
    let _idle = connected(&server, "a").await;
    let before = server.metric("process_open_fds").await;
    let _stalled = connected(&server, "b").await;
    let slow = "fanfare_connections_closed_total{reason=\"slow\"}";
    let filler = "x".repeat(60_000);
    until(DEADLINE, "the stream has ended", async || {
        server.publish(json!({"topic": "b", "data": filler})).await;
        server.metric(slow).await == 1.0
    })
    .await;
    until(DEADLINE, "the socket is closed", async || {
        server.metric("process_open_fds").await <= before
    })
    .await;
    server.until_streams(1).await;
}
