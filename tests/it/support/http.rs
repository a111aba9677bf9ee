//! Requests with an immediate answer, and the streaming publisher.

use std::{fmt::Write as _, net::SocketAddr, time::Duration};

use bytes::BytesMut;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
    time::timeout,
};

use super::message::{Framing, Head, Piece};

/// Bound of an answer on a busy machine.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// A complete answer.
#[derive(Debug, Clone)]
pub struct Response {
    pub head: Head,
    pub status: u16,
    pub body: Vec<u8>,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body in UTF-8")
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {}: {:?}", self.status, self.text()))
    }

    /// The error code of a refusal. Checks the form of the refusal against the contract.
    pub fn code(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/json"), "{}", self.text());
        let json = self.json();
        assert!(json["error"]["message"].as_str().is_some_and(|text| !text.is_empty()), "{json}");
        json["error"]["code"].as_str().unwrap_or_else(|| panic!("no code: {json}")).to_owned()
    }
}

/// Sends one request on its own connection.
pub async fn request(
    addr: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Response {
    let mut bytes = request_head(addr, method, path, headers, body);
    bytes.extend_from_slice(body);
    exchange(addr, &bytes, method == "HEAD").await
}

/// The bytes of a request's head. Adds `Host` and `Content-Length` unless given.
pub fn request_head(
    addr: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\n");
    let has = |name: &str| headers.iter().any(|(key, _)| key.eq_ignore_ascii_case(name));
    if !has("host") {
        let _ = write!(head, "Host: {addr}\r\n");
    }
    let has_length = has("content-length") || has("transfer-encoding");
    if !has_length && (!body.is_empty() || method == "POST") {
        let _ = write!(head, "Content-Length: {}\r\n", body.len());
    }
    for (name, value) in headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    head.push_str("\r\n");
    head.into_bytes()
}

/// Sends these bytes unchanged and reads one answer.
pub async fn exchange(addr: SocketAddr, bytes: &[u8], is_head: bool) -> Response {
    let socket = TcpStream::connect(addr).await.expect("the server accepts");
    exchange_on(socket, bytes, is_head).await
}

async fn exchange_on(mut socket: TcpStream, bytes: &[u8], is_head: bool) -> Response {
    let answered = timeout(ANSWER_DEADLINE, async {
        // An early refusal may close the connection before all bytes are sent.
        let _ = socket.write_all(bytes).await;
        let mut buffer = BytesMut::new();
        let head = Head::read(&mut socket, &mut buffer).await.expect("a whole head");
        let body = if is_head { Vec::new() } else { read_body(&mut socket, &head, buffer).await };
        Response { status: head.status, head, body }
    });
    answered.await.unwrap_or_else(|_| panic!("no answer within {ANSWER_DEADLINE:?}"))
}

async fn read_body(socket: &mut TcpStream, head: &Head, mut buffer: BytesMut) -> Vec<u8> {
    let mut framing = Framing::of(head);
    let mut body = Vec::new();
    loop {
        match framing.next(&mut buffer) {
            Some(Piece::Data(bytes)) => body.extend_from_slice(&bytes),
            Some(Piece::ChunkEnd) => {}
            Some(Piece::End) => return body,
            None => {
                if socket.read_buf(&mut buffer).await.expect("the body can be read") == 0 {
                    assert!(matches!(framing, Framing::UntilClose), "cut body: {body:?}");
                    return body;
                }
            }
        }
    }
}

pub async fn get(addr: SocketAddr, path: &str) -> Response {
    request(addr, "GET", path, &[], b"").await
}

/// Posts JSON to `/events/publish`. Returns any answer.
pub async fn try_publish(addr: SocketAddr, json: &Value) -> Response {
    let headers = [("Content-Type", "application/json")];
    request(addr, "POST", "/events/publish", &headers, json.to_string().as_bytes()).await
}

/// The same from another loopback address of this machine.
pub async fn try_publish_from(source: [u8; 4], addr: SocketAddr, json: &Value) -> Response {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((source, 0).into()).expect("a loopback address");
    let socket = socket.connect(addr).await.expect("the server accepts");
    let (headers, body) = ([("Content-Type", "application/json")], json.to_string());
    let mut bytes = request_head(addr, "POST", "/events/publish", &headers, body.as_bytes());
    bytes.extend_from_slice(body.as_bytes());
    exchange_on(socket, &bytes, false).await
}

/// Publishes and returns the answer.
///
/// # Panics
/// The answer is a refusal.
pub async fn publish(addr: SocketAddr, json: Value) -> Value {
    let response = try_publish(addr, &json).await;
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()
}

/// An NDJSON request: its answers are read while its lines are still being sent.
pub struct Lines {
    pub writer: LineWriter,
    pub reader: LineReader,
}

pub struct LineWriter {
    socket: OwnedWriteHalf,
}

pub struct LineReader {
    socket: OwnedReadHalf,
    buffer: BytesMut,
    framing: Framing,
    text: Vec<u8>,
    is_finished: bool,
}

impl Lines {
    /// Sends the head of a publish and the first line. The server may delay its answer until a line
    /// arrives.
    pub async fn open(addr: SocketAddr, first: &str) -> Self {
        Self::open_at(addr, "/events/publish", first).await
    }

    /// The same for another endpoint.
    pub async fn open_at(addr: SocketAddr, path: &str, first: &str) -> Self {
        let mut socket = TcpStream::connect(addr).await.expect("the server accepts");
        socket.set_nodelay(true).expect("a TCP socket");
        let headers = [("Content-Type", "application/x-ndjson"), ("Transfer-Encoding", "chunked")];
        let head = request_head(addr, "POST", path, &headers, b"");
        socket.write_all(&head).await.expect("the head is sent");
        socket.write_all(&chunk(first)).await.expect("the line is sent");
        let mut buffer = BytesMut::new();
        let head = timeout(ANSWER_DEADLINE, Head::read(&mut socket, &mut buffer)).await;
        let head = head.expect("an answer in time").expect("a whole head");
        assert_eq!(head.status, 200);
        assert_eq!(head.header("content-type"), Some("application/x-ndjson"));
        let framing = Framing::of(&head);
        let (reader, writer) = socket.into_split();
        let text = Vec::new();
        let reader = LineReader { socket: reader, buffer, framing, text, is_finished: false };
        Self { writer: LineWriter { socket: writer }, reader }
    }
}

impl LineWriter {
    /// Sends lines, given without the last line end.
    pub async fn send(&mut self, lines: &str) {
        self.socket.write_all(&chunk(lines)).await.expect("the server reads");
    }

    /// Sends a part of a line.
    pub async fn send_part(&mut self, part: &str) {
        let bytes = format!("{:x}\r\n{part}\r\n", part.len());
        self.socket.write_all(bytes.as_bytes()).await.expect("the server reads");
    }

    /// Ends the body.
    pub async fn finish(&mut self) {
        self.socket.write_all(b"0\r\n\r\n").await.expect("the server reads");
    }
}

impl LineReader {
    /// The next line's answer; `None` after the last.
    pub async fn next(&mut self) -> Option<Value> {
        timeout(ANSWER_DEADLINE, self.read()).await.expect("an answer in time")
    }

    async fn read(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.text.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.text.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).expect("a line of JSON"));
            }
            if self.is_finished {
                assert!(self.text.is_empty(), "half a line");
                return None;
            }
            match self.framing.next(&mut self.buffer) {
                Some(Piece::Data(bytes)) => self.text.extend_from_slice(&bytes),
                Some(Piece::ChunkEnd) => {}
                Some(Piece::End) => self.is_finished = true,
                None => {
                    let count = self.socket.read_buf(&mut self.buffer).await;
                    assert_ne!(count.expect("answers can be read"), 0, "cut between answers");
                }
            }
        }
    }
}

fn chunk(line: &str) -> Vec<u8> {
    format!("{:x}\r\n{line}\n\r\n", line.len() + 1).into_bytes()
}

/// Sends bytes and reads until the server closes or resets the connection.
pub async fn raw_exchange(addr: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let answered = timeout(ANSWER_DEADLINE, async {
        let mut socket = TcpStream::connect(addr).await.expect("the server accepts");
        // The server may close before it has read everything.
        let _ = socket.write_all(bytes).await;
        let mut answer = Vec::new();
        while socket.read_buf(&mut answer).await.is_ok_and(|count| count > 0) {}
        answer
    });
    answered.await.expect("the server closes the connection in time")
}
