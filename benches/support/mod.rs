//! The shared parts of the benchmarks: the server in its own process, streams, and the table.

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

pub const PAYLOAD_BYTES: usize = 100;
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Prints a line of the table.
pub fn row(name: &str, value: &str) {
    println!("| {name} | {value} |");
}

/// Median and p99 of times in microseconds, printed in milliseconds with `decimals` decimals.
pub fn quantiles(micros: &Histogram<u64>, decimals: usize) -> String {
    let at = |quantile| micros.value_at_quantile(quantile) as f64 / 1000.0;
    format!("p50 {:.decimals$} ms, p99 {:.decimals$} ms", at(0.5), at(0.99))
}

/// A histogram of times in microseconds.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("valid bounds")
}

/// Publishes events to all streams. Without a pause, it publishes the next event once all streams
/// have the last one.
pub async fn publish(address: SocketAddr, crowd: &Crowd, count: usize, pause: Duration) {
    let mut connection = TcpStream::connect(address).await.expect("the server listens");
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

/// Many streams on the topic `bench`.
pub struct Crowd {
    streams: usize,
    start: Instant,
    received: Arc<AtomicUsize>,
    /// From publish to read, in microseconds.
    pub latencies: Arc<Mutex<Histogram<u64>>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Crowd {
    /// Opens the streams and waits until all are connected.
    pub async fn open(address: SocketAddr, streams: usize) -> Self {
        let mut crowd = Self {
            streams,
            start: Instant::now(),
            received: Arc::default(),
            latencies: Arc::new(Mutex::new(histogram())),
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
            // Few enough opening at once, or this process would measure its own queue.
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
            // Allocate only with bytes to read: most of many streams are idle.
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
pub struct Server {
    pub process: Child,
    pub address: SocketAddr,
}

impl Server {
    /// Starts the server and waits until it listens.
    pub fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_fanfare"))
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(arguments)
            .env("RUST_LOG", "warn")
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary is built");
        let mut lines = BufReader::new(process.stdout.take().expect("piped")).lines();
        let line = lines.next().expect("a first line").expect("text");
        let address = line.rsplit("http://").next().and_then(|text| text.trim().parse().ok());
        Self { process, address: address.expect("an address in the first line") }
    }

    /// CPU time of all threads so far.
    pub fn cpu(&self) -> Duration {
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
