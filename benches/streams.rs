//! What a stream and a delivery cost: `cargo bench --bench streams`.
//!
//! Starts the real server as a process of its own and opens streams over TCP from this one.
//! Prints, as Markdown: memory a stream at 10,000 idle streams, idle CPU, CPU time a
//! delivery at 1,000 and 10,000 streams, and latency in the three flush modes. CPU time is
//! the server's alone; latency is from the publish call to the bytes read here, and includes
//! this process, which shares the machine's cores with the server.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Mutex,
    time::{sleep, timeout},
};

const PAYLOAD_BYTES: usize = 100;
const DEADLINE: Duration = Duration::from_secs(60);

#[tokio::main(flavor = "current_thread")]
async fn main() {
    // `cargo test --all-targets` runs benches too, and is no place for figures.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    println!("| measured | value |\n|---|---|");
    idle(10_000).await;
    for streams in [1000, 10_000] {
        cost(streams).await;
    }
    for flush in ["tick", "leading", "immediate"] {
        latency(flush).await;
    }
}

/// Memory and CPU of streams that have nothing to say.
async fn idle(count: usize) {
    let server = Server::start("tick");
    // What is allocated once, by the first streams, is not theirs.
    let warm = Crowd::open(server.address, 200).await;
    drop(warm);
    let before = server.memory_bytes();
    let crowd = Crowd::open(server.address, count).await;
    let bytes = server.memory_bytes().saturating_sub(before);
    let per_stream = bytes as f64 / count as f64 / 1024.0;
    row(&format!("memory a stream, {count} idle streams"), &format!("{per_stream:.1} KiB"));
    let cpu = server.cpu();
    let window = Duration::from_secs(10);
    sleep(window).await;
    let share = (server.cpu() - cpu).as_secs_f64() / window.as_secs_f64() * 100.0;
    row(&format!("idle CPU, {count} streams"), &format!("{share:.2} % of a core"));
    drop(crowd);
}

/// CPU time a delivery, one topic, an event a write.
async fn cost(count: usize) {
    let server = Server::start("immediate");
    let crowd = Crowd::open(server.address, count).await;
    let events = 200_000 / count + 20;
    publish(&server, &crowd, 5, Duration::ZERO).await;
    let before = server.cpu();
    let start = Instant::now();
    publish(&server, &crowd, events, Duration::ZERO).await;
    let deliveries = (events * count) as f64;
    let cpu = (server.cpu() - before).as_secs_f64() / deliveries * 1e6;
    let rate = deliveries / start.elapsed().as_secs_f64();
    row(
        &format!("CPU a delivery, {count} streams, one event at a time"),
        &format!("{cpu:.2} µs ({rate:.0} deliveries/s)"),
    );
}

/// From publish to the client's bytes, 100 streams, 4 publishes a second: a topic that is
/// mostly quiet, as notifications are, so that leading differs from the tick.
async fn latency(flush: &str) {
    let server = Server::start(flush);
    let crowd = Crowd::open(server.address, 100).await;
    publish(&server, &crowd, 5, Duration::from_millis(50)).await;
    crowd.latencies.lock().await.reset();
    publish(&server, &crowd, 60, Duration::from_millis(233)).await;
    let latencies = crowd.latencies.lock().await;
    let at = |quantile| latencies.value_at_quantile(quantile) as f64 / 1000.0;
    let value = format!("p50 {:.1} ms, p99 {:.1} ms", at(0.5), at(0.99));
    row(&format!("latency, flush `{flush}`, 100 streams, 4 events/s"), &value);
}

fn row(name: &str, value: &str) {
    println!("| {name} | {value} |");
}

/// Publishes events and waits until every stream has each. With no pause, the next is
/// published when all have the last.
async fn publish(server: &Server, crowd: &Crowd, count: usize, pause: Duration) {
    let mut connection = TcpStream::connect(server.address).await.expect("the server listens");
    connection.set_nodelay(true).expect("a TCP socket");
    for _ in 0..count {
        let goal = crowd.received.load(Ordering::Relaxed) + crowd.streams;
        let sent = crowd.start.elapsed().as_nanos();
        let data = format!("{sent:020}{}", "x".repeat(PAYLOAD_BYTES - 20));
        let body = format!(r#"{{"topic":"bench","data":"{data}"}}"#);
        let head = "POST /events/publish HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json";
        let request = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        connection.write_all(request.as_bytes()).await.expect("the server reads");
        let mut answer = [0; 1024];
        let read = connection.read(&mut answer).await.expect("the server answers");
        assert!(answer[..read].starts_with(b"HTTP/1.1 200"), "refused");
        if pause.is_zero() {
            crowd.wait_for(goal).await;
        } else {
            sleep(pause).await;
        }
    }
    if !pause.is_zero() {
        // The last tick.
        sleep(Duration::from_millis(300)).await;
    }
}

/// Many streams on one topic.
struct Crowd {
    streams: usize,
    start: Instant,
    received: Arc<AtomicUsize>,
    latencies: Arc<Mutex<Histogram<u64>>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Crowd {
    async fn open(address: SocketAddr, streams: usize) -> Self {
        let latencies = Histogram::new_with_bounds(1, 60_000_000, 3).expect("valid bounds");
        let mut crowd = Self {
            streams,
            start: Instant::now(),
            received: Arc::default(),
            latencies: Arc::new(Mutex::new(latencies)),
            tasks: Vec::new(),
        };
        let connected = Arc::new(AtomicU64::new(0));
        for index in 0..streams {
            let stream = Reader {
                start: crowd.start,
                received: crowd.received.clone(),
                latencies: crowd.latencies.clone(),
                connected: connected.clone(),
            };
            crowd.tasks.push(tokio::spawn(stream.run(address)));
            // Few enough under way that this process does not measure its own queue.
            while index as u64 > connected.load(Ordering::Relaxed) + 500 {
                tokio::task::yield_now().await;
            }
        }
        let all = async {
            while connected.load(Ordering::Relaxed) < streams as u64 {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(DEADLINE, all).await.expect("all streams open");
        crowd
    }

    async fn wait_for(&self, goal: usize) {
        let all = async {
            while self.received.load(Ordering::Relaxed) < goal {
                tokio::task::yield_now().await;
            }
        };
        timeout(DEADLINE, all).await.expect("every stream gets every event");
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// One stream.
struct Reader {
    start: Instant,
    received: Arc<AtomicUsize>,
    latencies: Arc<Mutex<Histogram<u64>>>,
    connected: Arc<AtomicU64>,
}

impl Reader {
    async fn run(self, address: SocketAddr) {
        let mut socket = TcpStream::connect(address).await.expect("the server listens");
        let request = "GET /events/stream?topic=bench HTTP/1.1\r\nhost: bench\r\n\r\n";
        socket.write_all(request.as_bytes()).await.expect("the server reads");
        let mut rest = Vec::new();
        let mut is_connected = false;
        loop {
            // Only once there is something to read does it need room.
            socket.readable().await.expect("an open socket");
            let mut buffer = [0; 4096];
            match socket.try_read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => rest.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
                Err(_) => return,
            }
            let now = self.start.elapsed().as_nanos() as u64;
            while let Some(end) = rest.windows(2).position(|bytes| bytes == b"\n\n") {
                let block: Vec<u8> = rest.drain(..end + 2).collect();
                if let Some(at) = find(&block, b"data: 0") {
                    let sent = std::str::from_utf8(&block[at + 6..at + 26]).expect("digits");
                    let sent: u64 = sent.parse().expect("digits");
                    let micros = now.saturating_sub(sent) / 1000;
                    self.latencies.lock().await.saturating_record(micros.max(1));
                    self.received.fetch_add(1, Ordering::Relaxed);
                } else if !is_connected && find(&block, b"event: connected").is_some() {
                    is_connected = true;
                    self.connected.fetch_add(1, Ordering::Relaxed);
                }
            }
            if rest.is_empty() {
                rest = Vec::new();
            }
        }
    }
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|bytes| bytes == wanted)
}

/// The server process.
struct Server {
    process: Child,
    address: SocketAddr,
}

impl Server {
    fn start(flush: &str) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_fanfare"))
            .args(["serve", "--listen", "127.0.0.1:0", "--no-demo"])
            .env("FANFARE__DELIVERY__FLUSH", flush)
            .env("RUST_LOG", "warn")
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary is built");
        let mut lines = BufReader::new(process.stdout.take().expect("piped")).lines();
        let line = lines.next().expect("a first line").expect("text");
        let address = line.rsplit("http://").next().and_then(|text| text.trim().parse().ok());
        Self { process, address: address.expect("an address in the first line") }
    }

    /// Proportional set size of the process.
    fn memory_bytes(&self) -> u64 {
        let path = format!("/proc/{}/smaps_rollup", self.process.id());
        let text = fs::read_to_string(path).expect("Linux");
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).expect("a Pss line");
        let kibibytes = line.trim().trim_end_matches(" kB");
        kibibytes.parse::<u64>().expect("a number") * 1024
    }

    /// Time on a core, of all threads.
    fn cpu(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.process.id())).expect("Linux");
        let nanos = tasks.filter_map(|task| {
            let text = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(nanos.sum())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
