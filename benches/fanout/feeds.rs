//! The clients: readers of feeds, and publishers of posts.

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

use super::support::{DEADLINE, histogram};

/// Posts carry their send time relative to this.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);
static POSTS: AtomicU64 = AtomicU64::new(0);

/// The data of a new post: its author, number and send time.
fn post(author: usize) -> String {
    let (number, at) = (POSTS.fetch_add(1, Relaxed), START.elapsed().as_nanos());
    format!("post {author} {number} {at} {}", "x".repeat(60))
}

/// All open feeds, and the totals of their posts.
pub struct Feeds {
    totals: Arc<Totals>,
}

struct Totals {
    connected: AtomicUsize,
    received: AtomicUsize,
    /// Posts of small authors.
    small: AtomicUsize,
    twice: AtomicUsize,
    latencies: Mutex<Histogram<u64>>,
}

impl Feeds {
    /// Opens the feeds of these users and waits until all are connected.
    pub async fn open(address: SocketAddr, users: impl Iterator<Item = usize>) -> Self {
        let totals = Arc::new(Totals {
            connected: AtomicUsize::new(0),
            received: AtomicUsize::new(0),
            small: AtomicUsize::new(0),
            twice: AtomicUsize::new(0),
            latencies: Mutex::new(histogram()),
        });
        let mut count = 0;
        for user in users {
            tokio::spawn(read(address, user, totals.clone()));
            count += 1;
            // Few enough opening at once, or this process would measure its own queue.
            until("feeds open", || totals.connected.load(Relaxed) + 200 > count).await;
        }
        until("all feeds open", || totals.connected.load(Relaxed) == count).await;
        Self { totals }
    }

    /// Posts received by all feeds so far.
    pub fn received(&self) -> usize {
        self.totals.received.load(Relaxed)
    }

    pub async fn wait_for(&self, goal: usize) {
        until("every feed has every post", || self.received() >= goal).await;
    }

    /// Waits for `goal` posts of small authors since the last reset of the latencies.
    pub async fn wait_for_small(&self, goal: usize) {
        until("every small post arrives", || self.totals.small.load(Relaxed) >= goal).await;
    }

    pub fn reset_latencies(&self) {
        self.totals.latencies.lock().reset();
        self.totals.small.store(0, Relaxed);
    }

    /// Latencies of small authors' posts, from publish to arrival, in microseconds.
    pub fn latencies(&self) -> Histogram<u64> {
        self.totals.latencies.lock().clone()
    }

    pub fn assert_each_once(&self) {
        assert_eq!(self.totals.twice.load(Relaxed), 0, "posts that came twice");
    }
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let all = async {
        while !is_so() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(DEADLINE, all).await.unwrap_or_else(|_| panic!("not within a minute: {what}"));
}

/// Reads one feed for ever.
async fn read(address: SocketAddr, user: usize, totals: Arc<Totals>) {
    let mut socket = TcpStream::connect(address).await.expect("the server listens");
    let request = format!("GET /events/feed?user=u{user} HTTP/1.1\r\nhost: bench\r\n\r\n");
    socket.write_all(request.as_bytes()).await.expect("the server reads");
    let (mut rest, mut seen) = (Vec::new(), HashSet::new());
    loop {
        // Allocate only with bytes to read: most of many feeds are idle.
        socket.readable().await.expect("an open socket");
        let mut buffer = [0; 4096];
        let count = match socket.try_read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(_) => return,
        };
        rest.extend_from_slice(&buffer[..count]);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            take_line(&line, &mut seen, &totals);
        }
        if rest.is_empty() {
            rest = Vec::new();
        }
    }
}

fn take_line(line: &[u8], seen: &mut HashSet<u64>, totals: &Totals) {
    let line = String::from_utf8_lossy(line);
    if line.starts_with("event: connected") {
        totals.connected.fetch_add(1, Relaxed);
    }
    let Some(post) = line.strip_prefix("data: post ") else { return };
    let mut words = post.split(' ').map(|word| word.parse::<u64>().unwrap_or_default());
    let mut word = || words.next().expect("a post has three numbers");
    let (author, number, at) = (word(), word(), word());
    if !seen.insert(number) {
        totals.twice.fetch_add(1, Relaxed);
    }
    totals.received.fetch_add(1, Relaxed);
    if author > 0 {
        let micros = (START.elapsed().as_nanos() as u64).saturating_sub(at) / 1000;
        totals.latencies.lock().saturating_record(micros.max(1));
        totals.small.fetch_add(1, Relaxed);
    }
}

/// A publisher with one connection.
pub struct Client {
    socket: TcpStream,
    address: SocketAddr,
    lines: String,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).await.expect("the server listens");
        socket.set_nodelay(true).expect("a TCP socket");
        Self { socket, address, lines: String::new() }
    }

    pub async fn fan_out(&mut self, author: usize, mode: &str) {
        let data = post(author);
        let body = format!(r#"{{"author":"u{author}","data":"{data}","mode":"{mode}"}}"#);
        self.ask("/events/fanout", "application/json", &body).await;
    }

    pub async fn publish_to(&mut self, user: usize) {
        // Author 0 is the celebrity, so latencies skip this post.
        let data = post(0);
        let body = format!(r#"{{"topic":"notifications:u{user}","data":"{data}"}}"#);
        self.ask("/events/publish", "application/json", &body).await;
    }

    /// Publishes one line to each of `users` users.
    pub async fn publish_lines(&mut self, users: usize) {
        let data = post(0);
        let line = |user| format!("{{\"topic\":\"notifications:u{user}\",\"data\":\"{data}\"}}\n");
        let body: String = (0..users).map(line).collect();
        Self::send_lines(self.address, "/events/publish", &body).await;
    }

    pub async fn follow(&mut self, follower: usize, author: usize) {
        self.lines += &format!("{{\"follower\":\"u{follower}\",\"author\":\"u{author}\"}}\n");
        if self.lines.len() > 8 * 1024 * 1024 {
            self.finish_follows().await;
        }
    }

    pub async fn finish_follows(&mut self) {
        let body = std::mem::take(&mut self.lines);
        Self::send_lines(self.address, "/events/follows", &body).await;
    }

    /// Sends NDJSON on a new connection, and reads the answers at the same time.
    async fn send_lines(address: SocketAddr, path: &str, body: &str) {
        let socket = TcpStream::connect(address).await.expect("the server listens");
        let (mut from, mut to) = socket.into_split();
        let head = head(path, "application/x-ndjson", body.len(), "connection: close\r\n");
        let send = async {
            to.write_all(head.as_bytes()).await.expect("the server reads");
            to.write_all(body.as_bytes()).await.expect("the server reads");
        };
        let mut answer = Vec::new();
        let (_, read) = tokio::join!(send, from.read_to_end(&mut answer));
        read.expect("the server answers");
        assert!(answer.starts_with(b"HTTP/1.1 200"), "refused");
    }

    async fn ask(&mut self, path: &str, content_type: &str, body: &str) {
        let request = head(path, content_type, body.len(), "") + body;
        self.socket.write_all(request.as_bytes()).await.expect("the server reads");
        let mut answer = [0; 1024];
        let read = self.socket.read(&mut answer).await.expect("the server answers");
        assert!(answer[..read].starts_with(b"HTTP/1.1 200"), "refused");
    }
}

fn head(path: &str, content_type: &str, length: usize, more: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: {content_type}\r\n\
         content-length: {length}\r\n{more}\r\n"
    )
}
