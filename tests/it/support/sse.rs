//! A strict client of event streams: WHATWG HTML §9.2, and the contract's promises to clients less
//! forgiving than the standard.

use std::{collections::VecDeque, net::SocketAddr, time::Duration};

use bytes::BytesMut;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout_at},
};

use super::{
    http::request_head,
    message::{Framing, Head, Piece},
};

/// Longest wait for the next event.
const EVENT_DEADLINE: Duration = Duration::from_secs(10);

/// Bytes of the body kept for checks.
const MAX_RAW_BYTES: usize = 1024 * 1024;

/// Longest allowed id.
const MAX_ID_BYTES: usize = 256;

/// Up to this size the contract promises one write per event.
const SMALL_CHUNK_BYTES: usize = 16 * 1024;

/// An event from a page's view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// `message` if the publisher named none.
    pub event: String,
    pub data: String,
    pub id: String,
}

impl Event {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// An open stream. Dropping it closes the connection.
#[derive(Debug)]
pub struct Stream {
    pub head: Head,
    /// The data of `connected`, after it is read.
    pub connected: Value,
    socket: TcpStream,
    buffer: BytesMut,
    framing: Framing,
    parser: Parser,
    last_id: String,
    raw: Vec<u8>,
    is_cut: bool,
    chunk_bytes: usize,
    chunk_count: usize,
}

impl Stream {
    /// Sends `GET path` and reads the head; it must be a stream's.
    pub async fn open(addr: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Self {
        let stream = Self::request(addr, "GET", path, headers, b"").await;
        assert_eq!(stream.head.status, 200, "{:?}", stream.head);
        let content_type = stream.head.header("content-type");
        assert_eq!(content_type, Some("text/event-stream; charset=utf-8"));
        stream
    }

    /// Opens `/events/stream?query` and reads `connected`: every event published afterwards
    /// arrives.
    pub async fn subscribe(addr: SocketAddr, query: &str) -> Self {
        Self::subscribe_with(addr, query, &[]).await
    }

    /// Resumes with the last id.
    pub async fn resume(addr: SocketAddr, query: &str, last_event_id: &str) -> Self {
        Self::subscribe_with(addr, query, &[("Last-Event-ID", last_event_id)]).await
    }

    pub async fn subscribe_with(addr: SocketAddr, query: &str, headers: &[(&str, &str)]) -> Self {
        let mut stream = Self::open(addr, &format!("/events/stream?{query}"), headers).await;
        stream.read_connected().await;
        stream
    }

    /// Sends any request and reads any head.
    pub async fn request(
        addr: SocketAddr,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Self {
        let socket = TcpStream::connect(addr).await.expect("the server accepts");
        Self::request_on(socket, method, path, headers, body).await
    }

    /// The same on a given socket.
    pub async fn request_on(
        socket: TcpStream,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Self {
        let addr = socket.peer_addr().expect("connected");
        let mut request = request_head(addr, method, path, headers, body);
        request.extend_from_slice(body);
        let deadline = Instant::now() + EVENT_DEADLINE;
        let stream = timeout_at(deadline, Self::exchange(socket, &request)).await;
        stream.expect("a head in time").expect("a sent request and a whole head")
    }

    /// Sends `GET path` and reads any head, without a deadline.
    ///
    /// # Errors
    /// The connection fails, or ends before the head does.
    pub async fn try_get(
        addr: SocketAddr,
        path: &str,
        headers: &[(&str, &str)],
    ) -> std::io::Result<Self> {
        let socket = TcpStream::connect(addr).await?;
        Self::exchange(socket, &request_head(addr, "GET", path, headers, b"")).await
    }

    async fn exchange(mut socket: TcpStream, request: &[u8]) -> std::io::Result<Self> {
        socket.write_all(request).await?;
        let mut buffer = BytesMut::new();
        let head = Head::read(&mut socket, &mut buffer).await?;
        Ok(Self {
            framing: Framing::of(&head),
            head,
            connected: Value::Null,
            socket,
            buffer,
            parser: Parser::default(),
            last_id: String::new(),
            raw: Vec::new(),
            is_cut: false,
            chunk_bytes: 0,
            chunk_count: 0,
        })
    }

    /// Reads the first event; it must be `connected`.
    pub async fn read_connected(&mut self) {
        let event = self.next().await;
        assert_eq!(event.event, "connected", "{event:?}");
        self.connected = event.json();
    }

    /// The next event.
    ///
    /// # Panics
    /// No event within the deadline, an ended stream, or bytes violating the contract.
    pub async fn next(&mut self) -> Event {
        self.next_before(Instant::now() + EVENT_DEADLINE).await
    }

    /// The next event before this deadline.
    pub async fn next_before(&mut self, deadline: Instant) -> Event {
        let event = timeout_at(deadline, self.read_event()).await;
        let event = event.unwrap_or_else(|_| panic!("no event in time after {:?}", self.last()));
        event.unwrap_or_else(|| panic!("the stream ended after {:?}", self.last()))
    }

    /// The next `count` events.
    pub async fn take(&mut self, count: usize) -> Vec<Event> {
        let mut events = Vec::with_capacity(count);
        while events.len() < count {
            events.push(self.next().await);
        }
        events
    }

    /// The data of the next `count` events. A control event panics.
    pub async fn take_data(&mut self, count: usize) -> Vec<String> {
        let mut data = Vec::with_capacity(count);
        for event in self.take(count).await {
            let is_control = ["connected", "gap", "shutdown"].contains(&event.event.as_str());
            assert!(!is_control, "{event:?}");
            data.push(event.data);
        }
        data
    }

    /// The next event; `None` if the stream ends before it.
    pub async fn next_or_end(&mut self) -> Option<Event> {
        let deadline = Instant::now() + EVENT_DEADLINE;
        let event = timeout_at(deadline, self.read_event()).await;
        event.unwrap_or_else(|_| panic!("no event and no end after {:?}", self.last()))
    }

    /// All events until the stream ends.
    pub async fn rest(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(event) = self.next_or_end().await {
            events.push(event);
        }
        events
    }

    /// Reads up to the next comment; earlier events stay queued.
    pub async fn next_comment(&mut self, deadline: Duration) -> String {
        let deadline = Instant::now() + deadline;
        let seen = self.parser.comments.len();
        let read = timeout_at(deadline, async {
            while self.parser.comments.len() == seen {
                assert!(self.read_more().await, "the stream ended before a comment");
            }
        });
        read.await.expect("a comment in time");
        self.parser.comments[seen].clone()
    }

    /// The next event, without a deadline; `None` after the stream's end or a cut. Cancelling loses
    /// nothing.
    pub async fn read_event(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.parser.events.pop_front() {
                self.last_id.clone_from(&event.id);
                return Some(event);
            }
            if !self.read_more().await {
                return None;
            }
        }
    }

    /// Reads one piece; false at the end. Cancelling loses nothing.
    async fn read_more(&mut self) -> bool {
        loop {
            match self.framing.next(&mut self.buffer) {
                Some(Piece::Data(bytes)) => {
                    let room = (MAX_RAW_BYTES + 1).saturating_sub(self.raw.len());
                    self.raw.extend_from_slice(&bytes[..bytes.len().min(room)]);
                    self.chunk_bytes += bytes.len();
                    self.parser.feed(&bytes);
                    return true;
                }
                Some(Piece::ChunkEnd) => self.on_chunk_end(),
                Some(Piece::End) => {
                    self.parser.finish();
                    return false;
                }
                None if self.is_cut || matches!(self.framing, Framing::Done) => return false,
                None => {
                    let count = self.socket.read_buf(&mut self.buffer).await;
                    self.is_cut = count.unwrap_or(0) == 0;
                }
            }
        }
    }

    fn on_chunk_end(&mut self) {
        if self.chunk_bytes < SMALL_CHUNK_BYTES {
            assert!(self.parser.is_between_events(), "an event is split over two writes");
        }
        self.chunk_bytes = 0;
        self.chunk_count += 1;
    }

    /// A client's `Last-Event-ID`: the id of the last event returned to the test.
    pub fn last_id(&self) -> &str {
        &self.last_id
    }

    /// The body so far.
    pub fn raw(&self) -> &[u8] {
        assert!(self.raw.len() <= MAX_RAW_BYTES, "more was read than is kept");
        &self.raw
    }

    pub fn raw_text(&self) -> &str {
        std::str::from_utf8(self.raw()).expect("UTF-8, and not cut within a character")
    }

    /// The value of `retry:`, in milliseconds.
    pub fn retry(&self) -> Option<u64> {
        self.parser.retry
    }

    /// Comments so far.
    pub fn comment_count(&self) -> usize {
        self.parser.comments.len()
    }

    /// Complete chunks so far: the number of writes.
    pub fn chunk_count(&self) -> usize {
        self.chunk_count
    }

    /// Whether the body ended by its HTTP framing, not by a cut.
    pub fn is_ended_cleanly(&self) -> bool {
        matches!(self.framing, Framing::Done)
    }

    /// Resets the connection (RST).
    pub fn abort(self) {
        self.socket.set_zero_linger().expect("a TCP socket");
    }

    /// Closes the connection (FIN).
    pub async fn close(mut self) {
        // The server may have closed it before.
        let _ = self.socket.shutdown().await;
    }

    fn last(&self) -> &str {
        let shown = self.raw.len().saturating_sub(300);
        std::str::from_utf8(&self.raw[shown..]).unwrap_or("(within a character)")
    }
}

/// The standard's "interpreting an event stream". It panics on input forbidden by the contract but
/// forgiven by the standard.
#[derive(Debug, Default)]
struct Parser {
    /// Bytes of the incomplete line.
    line: Vec<u8>,
    block: Block,
    /// Parsed events, not yet returned.
    events: VecDeque<Event>,
    /// The standard's "last event ID buffer".
    last_id: String,
    retry: Option<u64>,
    comments: Vec<String>,
    is_connected: bool,
}

/// The fields since the last blank line.
#[derive(Debug, Default)]
struct Block {
    event: Option<String>,
    data: Option<String>,
    id: Option<String>,
}

impl Parser {
    fn feed(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.line.extend_from_slice(&rest[..end]);
            rest = &rest[end + 1..];
            let line = String::from_utf8(std::mem::take(&mut self.line)).expect("valid UTF-8");
            self.on_line(&line);
        }
        self.line.extend_from_slice(rest);
    }

    fn on_line(&mut self, line: &str) {
        assert!(!line.contains('\r'), "lines end in LF only: {line:?}");
        assert!(!line.contains('\0'), "no NUL: {line:?}");
        assert!(!line.starts_with('\u{feff}'), "no BOM: {line:?}");
        if line.is_empty() {
            return self.dispatch();
        }
        if let Some(comment) = line.strip_prefix(':') {
            assert!(self.block.is_empty(), "a comment within an event: {line:?}");
            self.comments.push(comment.to_owned());
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => set(&mut self.block.event, value, line),
            "id" => set(&mut self.block.id, value, line),
            "data" => match &mut self.block.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.block.data = Some(value.to_owned()),
            },
            "retry" => {
                assert!(value.bytes().all(|byte| byte.is_ascii_digit()), "{line:?}");
                self.retry = Some(value.parse().expect("a retry in digits"));
            }
            _ => panic!("an unknown field: {line:?}"),
        }
    }

    fn dispatch(&mut self) {
        let block = std::mem::take(&mut self.block);
        let Some(data) = block.data else {
            // After a live change, an id alone: it dispatches nothing.
            assert!(block.event.is_none() && self.is_connected, "a block without data");
            self.last_id = block.id.expect("a block without data has an id");
            return;
        };
        let event = block.event.unwrap_or_else(|| "message".to_owned());
        if event == "connected" {
            assert!(!self.is_connected, "connected twice");
            self.is_connected = true;
        }
        let is_refusal = event == "shutdown" && !self.is_connected;
        assert!(self.is_connected || is_refusal, "{event} before connected");
        match block.id {
            Some(id) => {
                let is_plain = id.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',');
                assert!(is_plain && !id.is_empty() && id.len() <= MAX_ID_BYTES, "id {id:?}");
                self.last_id = id;
            }
            None => assert!(is_refusal, "{event} without an id: {data}"),
        }
        self.events.push_back(Event { event, data, id: self.last_id.clone() });
    }

    fn is_between_events(&self) -> bool {
        self.line.is_empty() && self.block.is_empty()
    }

    /// Checks at the end of the body.
    fn finish(&self) {
        assert!(
            self.is_between_events(),
            "the stream ended within {:?}{:?}",
            self.block,
            self.line
        );
    }
}

impl Block {
    fn is_empty(&self) -> bool {
        self.event.is_none() && self.data.is_none() && self.id.is_none()
    }
}

fn set(field: &mut Option<String>, value: &str, line: &str) {
    assert!(field.is_none(), "a field is there twice: {line:?}");
    *field = Some(value.to_owned());
}
