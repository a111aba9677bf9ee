//! Plain publishes, answered without the framework: the same answers, in order, and any other request on the same connection.

use std::time::Duration;

use bytes::BytesMut;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::support::{
    Server, Stream,
    http::{raw_exchange, request_head},
    message::{Framing, Head, Piece},
};

const DEADLINE: Duration = Duration::from_secs(20);

async fn server() -> Server {
    Server::start(&["--no-demo"]).await
}

fn request(server: &Server, headers: &[(&str, &str)], body: &str) -> String {
    let headers = [&[("Content-Type", "application/json")], headers].concat();
    let head = request_head(server.addr, "POST", "/events/publish", &headers, body.as_bytes());
    String::from_utf8(head).expect("ASCII") + body
}

fn plain(server: &Server, data: &str) -> String {
    request(server, &[], &format!(r#"{{"topic":"a","data":"{data}"}}"#))
}

/// One connection with all its answers.
struct Connection {
    socket: TcpStream,
    buffer: BytesMut,
}

impl Connection {
    async fn open(server: &Server) -> Self {
        let socket = TcpStream::connect(server.addr).await.expect("the server accepts");
        Self { socket, buffer: BytesMut::new() }
    }

    async fn send(&mut self, text: &str) {
        self.socket.write_all(text.as_bytes()).await.expect("the server reads");
    }

    /// The next answer: its head, and its body as JSON.
    async fn answer(&mut self) -> (Head, Value) {
        let read = async {
            let head = Head::read(&mut self.socket, &mut self.buffer).await.expect("a whole head");
            let (mut framing, mut body) = (Framing::of(&head), Vec::new());
            loop {
                match framing.next(&mut self.buffer) {
                    Some(Piece::Data(bytes)) => body.extend_from_slice(&bytes),
                    Some(Piece::End) => break,
                    Some(Piece::ChunkEnd) => {}
                    None => {
                        let count = self.socket.read_buf(&mut self.buffer).await;
                        assert!(count.is_ok_and(|count| count > 0), "a whole body");
                    }
                }
            }
            (head, serde_json::from_slice(&body).expect("JSON"))
        };
        timeout(DEADLINE, read).await.expect("an answer in time")
    }
}

fn names(head: &Head) -> Vec<String> {
    head.headers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect()
}

#[tokio::test]
async fn a_plain_publish_has_the_answer_of_the_framework() {
    let server = server().await;
    let mut stream = Stream::subscribe(server.addr, "topic=a").await;
    let mut connection = Connection::open(&server).await;
    connection.send(&plain(&server, "1")).await;
    let (plain_head, first) = connection.answer().await;
    // A header unknown to the plain path.
    let body = r#"{"topic":"a","data":"2"}"#;
    connection.send(&request(&server, &[("X-Unknown", "1")], body)).await;
    let (head, second) = connection.answer().await;
    assert_eq!((plain_head.status, names(&plain_head)), (head.status, names(&head)));
    assert_eq!(plain_head.header("content-type"), head.header("content-type"));
    assert_eq!((&first["sequence"], &second["sequence"]), (&1.into(), &2.into()));
    let keys = |answer: &Value| answer.as_object().map(|it| it.keys().cloned().collect::<Vec<_>>());
    assert_eq!(keys(&first), keys(&second));
    assert_eq!(first["receivers"], 1);
    assert_eq!(stream.take_data(2).await, ["1", "2"]);
}

#[tokio::test]
async fn requests_sent_together_are_answered_in_order_whoever_answers() {
    let server = server().await;
    let refused = request(&server, &[], r#"{"topic":"a b","data":1}"#);
    let health = "GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let all = [&plain(&server, "1"), &plain(&server, "2"), &refused, &plain(&server, "3"), health];
    let text = String::from_utf8(raw_exchange(server.addr, all.concat().as_bytes()).await).unwrap();
    let statuses: Vec<&str> = text.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
    assert_eq!(statuses, ["200", "200", "400", "200", "200"], "{text}");
    let sequence = |number: u64| text.find(&format!("\"sequence\":{number},")).expect("a sequence");
    assert!(sequence(1) < sequence(2) && sequence(2) < sequence(3));
    assert!(text.contains("bad_topic"));
}

#[tokio::test]
async fn a_request_in_parts_and_every_request_behind_it_are_answered() {
    let server = server().await;
    let mut connection = Connection::open(&server).await;
    for cut in [1, 40, 150] {
        let whole = plain(&server, "x");
        connection.send(&whole).await;
        assert_eq!(connection.answer().await.0.status, 200);
        let mut parts = Connection::open(&server).await;
        parts.send(&whole).await;
        assert_eq!(parts.answer().await.0.status, 200);
        let (first, second) = whole.split_at(cut.min(whole.len() - 1));
        parts.send(first).await;
        parts.socket.flush().await.unwrap();
        tokio::task::yield_now().await;
        parts.send(second).await;
        assert_eq!(parts.answer().await.0.status, 200, "{cut}");
        parts.send(&whole).await;
        assert_eq!(parts.answer().await.0.status, 200);
    }
}

#[tokio::test]
async fn the_framework_refuses_other_hosts_and_pages_of_other_sites() {
    let server = server().await;
    let body = r#"{"topic":"a","data":1}"#;
    for (header, status, code) in [
        (("Host", "evil.example"), 421, "wrong_host"),
        (("Origin", "http://evil.example"), 403, "cross_site"),
        (("Content-Encoding", "gzip"), 415, "unsupported_media_type"),
    ] {
        let mut connection = Connection::open(&server).await;
        connection.send(&plain(&server, "x")).await;
        assert_eq!(connection.answer().await.0.status, 200);
        connection.send(&request(&server, &[header], body)).await;
        let (head, answer) = connection.answer().await;
        assert_eq!((head.status, answer["error"]["code"].as_str()), (status, Some(code)));
    }
}

#[tokio::test]
async fn an_idle_connection_ends_after_its_time() {
    let server = Server::with_config("[server]\nkeep_alive = \"1s\"").await;
    let mut connection = Connection::open(&server).await;
    connection.send(&plain(&server, "x")).await;
    assert_eq!(connection.answer().await.0.status, 200);
    let end = timeout(DEADLINE, connection.socket.read_u8()).await.expect("it ends");
    assert!(end.is_err());
}
