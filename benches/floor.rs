//! The floor: the least possible cost of pushing an event to many streams. `scripts/compare`
//! measures the other systems against it. One thread, one epoll instance, one `write` of the same
//! bytes to each socket. The topics are a map, and the only queue is the unsent bytes of a socket.
//! No history, no limits, no chunked coding, no heartbeat: not a server for real use. With `--together`, one
//! system call sends to up to 256 sockets (io_uring).
//!
//! `GET /sub/TOPIC,TOPIC` opens a stream, `POST /pub/TOPIC` sends its body to a topic's streams.
//!
//! ```sh
//! cargo bench --bench floor -- --listen 127.0.0.1:8090
//! ```

use std::{
    collections::HashMap,
    io::{ErrorKind, Read, Result, Write},
    net::SocketAddr,
    os::fd::AsRawFd,
};

use fanfare_uring::{Ring, Send};
use mio::{
    Events, Interest, Poll, Token,
    net::{TcpListener, TcpStream},
};
use slab::Slab;
use socket2::{Domain, Socket, Type};

const LISTENER: Token = Token(usize::MAX);

/// Room for all connections opened at once.
const BACKLOG: i32 = 16_384;

const STREAM_HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
     cache-control: no-cache\r\nconnection: close\r\n\r\n";

const TAKEN: &str = "HTTP/1.1 204 No Content\r\n\r\n";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    // `cargo test --benches` runs this too, without an address.
    let Some(at) = arguments.iter().position(|argument| argument == "--listen") else {
        return Ok(());
    };
    let address = arguments.get(at + 1).and_then(|text| text.parse().ok());
    let mut floor = Floor::listen(address.expect("--listen ADDRESS:PORT"))?;
    if arguments.iter().any(|argument| argument == "--together") {
        floor.ring = Some(Ring::new()?);
    }
    floor.run()
}

struct Floor {
    poll: Poll,
    listener: TcpListener,
    connections: Slab<Connection>,
    /// The connections of each topic's streams.
    topics: HashMap<String, Vec<usize>>,
    /// Count of published events.
    sequence: u64,
    /// For sends together.
    ring: Option<Ring>,
}

#[derive(Debug)]
struct Connection {
    socket: TcpStream,
    /// Bytes of incomplete requests.
    request: Vec<u8>,
    /// Bytes not yet accepted by the socket.
    unsent: Vec<u8>,
    /// The topics of a stream; empty for a publisher.
    topics: Vec<String>,
}

impl Floor {
    fn listen(address: SocketAddr) -> Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let mut listener = TcpListener::from_std(socket.into());
        let poll = Poll::new()?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        println!("listening on http://{}", listener.local_addr()?);
        let (connections, topics) = (Slab::new(), HashMap::new());
        Ok(Self { poll, listener, connections, topics, sequence: 0, ring: None })
    }

    fn run(mut self) -> Result<()> {
        let mut events = Events::with_capacity(1024);
        loop {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            for event in &events {
                let Token(number) = event.token();
                if event.token() == LISTENER {
                    self.accept()?;
                    continue;
                }
                let is_written = !event.is_writable() || self.write_unsent(number);
                if !is_written || (event.is_readable() && !self.read(number)) {
                    self.close(number);
                }
            }
        }
    }

    fn accept(&mut self) -> Result<()> {
        while let Ok((mut socket, _)) = self.listener.accept() {
            socket.set_nodelay(true)?;
            let entry = self.connections.vacant_entry();
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut socket, Token(entry.key()), interest)?;
            let (request, unsent) = (Vec::new(), Vec::new());
            entry.insert(Connection { socket, request, unsent, topics: Vec::new() });
        }
        Ok(())
    }

    fn close(&mut self, number: usize) {
        let Some(connection) = self.connections.try_remove(number) else { return };
        for topic in &connection.topics {
            let others = self.topics.get_mut(topic).into_iter();
            others.for_each(|others| others.retain(|other| *other != number));
        }
    }

    /// Reads and answers requests. False if the connection is to be closed.
    fn read(&mut self, number: usize) -> bool {
        let mut buffer = [0; 16 * 1024];
        loop {
            let Some(connection) = self.connections.get_mut(number) else { return false };
            match connection.socket.read(&mut buffer) {
                Ok(0) => return false,
                Ok(length) => connection.request.extend_from_slice(&buffer[..length]),
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
            while let Some(request) = self.take_request(number) {
                if !self.answer(number, request) {
                    return false;
                }
            }
        }
    }

    /// The next complete request.
    fn take_request(&mut self, number: usize) -> Option<Request> {
        let bytes = &mut self.connections.get_mut(number)?.request;
        let (request, length) = Request::parse(bytes)?;
        bytes.drain(..length);
        if bytes.is_empty() {
            *bytes = Vec::new();
        }
        Some(request)
    }

    fn answer(&mut self, number: usize, request: Request) -> bool {
        let Request { path, body } = request;
        if let Some(topic) = path.strip_prefix("/pub/") {
            self.publish(topic, &body);
            return self.connections[number].write(TAKEN.as_bytes());
        }
        let Some(topics) = path.strip_prefix("/sub/") else { return false };
        let connection = &mut self.connections[number];
        connection.topics = topics.split(',').map(str::to_owned).collect();
        for topic in &connection.topics {
            self.topics.entry(topic.clone()).or_default().push(number);
        }
        connection.write(STREAM_HEAD.as_bytes())
    }

    fn publish(&mut self, topic: &str, body: &str) {
        self.sequence += 1;
        let event = format!("id: {:016x}-{}\ndata: {body}\n\n", 1, self.sequence);
        let mut gone = Vec::new();
        let Some(numbers) = self.topics.get(topic) else { return };
        if let Some(ring) = &mut self.ring {
            send_together(ring, &mut self.connections, numbers, event.as_bytes(), &mut gone);
        } else {
            for number in numbers {
                if !self.connections[*number].write(event.as_bytes()) {
                    gone.push(*number);
                }
            }
        }
        gone.into_iter().for_each(|number| self.close(number));
    }

    fn write_unsent(&mut self, number: usize) -> bool {
        let Some(connection) = self.connections.get_mut(number) else { return true };
        let unsent = std::mem::take(&mut connection.unsent);
        unsent.is_empty() || connection.write(&unsent)
    }
}

/// Sends the same bytes to these connections, and finds the failed ones.
fn send_together(
    ring: &mut Ring,
    connections: &mut Slab<Connection>,
    numbers: &[usize],
    bytes: &[u8],
    gone: &mut Vec<usize>,
) {
    let (free, full): (Vec<usize>, Vec<usize>) =
        numbers.iter().partition(|number| connections[**number].unsent.is_empty());
    full.iter().for_each(|number| connections[*number].unsent.extend_from_slice(bytes));
    let send = |number: &usize| Send { socket: connections[*number].socket.as_raw_fd(), bytes };
    let sends: Vec<Send<'_>> = free.iter().map(send).collect();
    ring.send_all(&sends, |place, result| {
        let taken = match result {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(_) => return gone.push(free[place]),
        };
        connections[free[place]].unsent.extend_from_slice(&bytes[taken..]);
    });
}

impl Connection {
    /// Writes, or queues the bytes not accepted by the socket. False if the connection failed.
    fn write(&mut self, bytes: &[u8]) -> bool {
        if !self.unsent.is_empty() {
            self.unsent.extend_from_slice(bytes);
            return true;
        }
        match self.socket.write(bytes) {
            Ok(length) => self.unsent.extend_from_slice(&bytes[length..]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.unsent.extend_from_slice(bytes);
            }
            Err(_) => return false,
        }
        true
    }
}

struct Request {
    path: String,
    body: String,
}

impl Request {
    /// The first request of these bytes and its length. None if it is incomplete.
    fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut request = httparse::Request::new(&mut headers);
        let httparse::Status::Complete(head) = request.parse(bytes).ok()? else { return None };
        let length =
            request.headers.iter().find(|it| it.name.eq_ignore_ascii_case("content-length"));
        let length = length.and_then(|it| std::str::from_utf8(it.value).ok()?.parse().ok());
        let end = head + length.unwrap_or(0);
        let body = std::str::from_utf8(bytes.get(head..end)?).ok()?.to_owned();
        Some((Self { path: request.path?.to_owned(), body }, end))
    }
}
