//! The cost of linking instances by Redis: `cargo bench --bench redis`.
//!
//! Starts a real `redis-server` without disk storage and two instances linked by it, each in its
//! own process. Needs `redis-server` and `redis-benchmark`. Prints, as Markdown:
//! - events per second published by one instance, over NDJSON, on topics of all partitions; and
//!   the CPU time per event of Redis, of this instance, and of another instance with a stream of
//!   another topic;
//! - the same for the script called by `redis-benchmark`, one event per call: Redis alone. Both
//!   take turns in one run, so a slow moment of the machine affects both;
//! - latency from the publish call at one instance to the bytes of a stream of the other, flushed
//!   at once, and the round trip of a `PING` from this process.
//!
//! Redis reports its own CPU time (`INFO cpu`), the kernel reports the instances'. All processes
//! share the machine's cores, this one included: rates are of the whole.

mod support;

use std::{
    collections::BTreeSet,
    fs,
    net::{SocketAddr, TcpListener},
    ops::AddAssign,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use redis::aio::MultiplexedConnection;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpStream, tcp},
    time::{sleep, timeout},
};

use support::{Crowd, DEADLINE, PAYLOAD_BYTES, Server, histogram, publish, quantiles, row};

/// The publish script, the interface for other programs.
const SCRIPT: &str = include_str!("../crates/redis/src/publish.lua");

/// Rounds of each way of publishing, in turn.
const ROUNDS: usize = 3;
const EVENTS_A_ROUND: usize = 200_000;

/// Connections publishing NDJSON. Each may have 256 events in flight.
const CONNECTIONS: usize = 8;

/// Enough for several topics in each partition.
const TOPICS: usize = 64;
const PARTITIONS: usize = 16;

/// Lines per write.
const LINES_A_WRITE: usize = 100;

/// The policy of the topic for latency. All other topics have the defaults.
const CONFIG: &str = "[[topics]]\npattern = \"bench\"\nflush = \"immediate\"\n";

/// Events and pings of the latency measurement; about 200 per second.
const TIMED: usize = 4000;
const PAUSE: Duration = Duration::from_millis(4);

#[tokio::main(flavor = "current_thread")]
async fn main() {
    // `cargo test --all-targets` runs benches too, but must not measure.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let mut redis = Redis::start().await;
    let publisher = instance(&redis).await;
    let other = instance(&redis).await;
    // The other instance has a subscription, but to no topic of the throughput rounds.
    let crowd = Crowd::open(other.address, 1).await;
    println!("| measured | value |\n|---|---|");
    throughput(&mut redis, &publisher, &other).await;
    latency(&redis, publisher.address, &crowd).await;
}

/// Starts an instance and waits until it is ready.
async fn instance(redis: &Redis) -> Server {
    let (url, config) = (format!("redis://{}", redis.address), redis.directory.join("config.toml"));
    fs::write(&config, CONFIG).expect("a directory of its own");
    let config = config.to_str().expect("a path that is text");
    let server = Server::start(&["--no-demo", "--redis", &url, "--config", config], &[]);
    let ready = async {
        while !is_ready(server.address).await {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(DEADLINE, ready).await.expect("the instance gets ready");
    server
}

async fn is_ready(address: SocketAddr) -> bool {
    let mut connection = TcpStream::connect(address).await.expect("the server listens");
    let request = "GET /health/ready HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n";
    connection.write_all(request.as_bytes()).await.expect("the server reads");
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).await.expect("the server answers");
    answer.starts_with(b"HTTP/1.1 200")
}

/// The cost of some rounds.
#[derive(Default)]
struct Spent {
    events: usize,
    time: Duration,
    calls: f64,
    redis_cpu: Duration,
    publisher_cpu: Duration,
    other_cpu: Duration,
}

impl AddAssign for Spent {
    fn add_assign(&mut self, more: Self) {
        self.events += more.events;
        self.time += more.time;
        self.calls += more.calls;
        self.redis_cpu += more.redis_cpu;
        self.publisher_cpu += more.publisher_cpu;
        self.other_cpu += more.other_cpu;
    }
}

impl Spent {
    fn rate(&self) -> f64 {
        self.events as f64 / self.time.as_secs_f64()
    }

    /// CPU time per event, in microseconds.
    fn micros(&self, cpu: Duration) -> f64 {
        cpu.as_secs_f64() * 1e6 / self.events as f64
    }

    fn percent(&self, cpu: Duration) -> f64 {
        cpu.as_secs_f64() * 100.0 / self.time.as_secs_f64()
    }
}

/// Throughput and CPU time of publishing through an instance and by `redis-benchmark`.
async fn throughput(redis: &mut Redis, publisher: &Server, other: &Server) {
    let sha = redis.load_script().await;
    let server = redis.field("replication", "master_replid").await;
    // Warm-up: connections, the script, and full histories.
    publish_lines(publisher.address, 2000 * TOPICS).await;
    let (mut fanfare, mut alone, mut idle) = (Spent::default(), Spent::default(), Spent::default());
    for _ in 0..ROUNDS {
        let work = publish_lines(publisher.address, EVENTS_A_ROUND);
        fanfare += spent(redis, publisher, other, EVENTS_A_ROUND, work).await;
        let work = redis_benchmark(redis.address, &sha, &server);
        alone += spent(redis, publisher, other, EVENTS_A_ROUND, work).await;
        let work = sleep(Duration::from_secs(3));
        idle += spent(redis, publisher, other, 0, work).await;
    }
    let cpu = |spent: &Spent, cpu| format!("{:.2} µs", spent.micros(cpu));
    let through = format!("through one instance, NDJSON, {CONNECTIONS} connections");
    row(&format!("publishes {through}"), &format!("{:.0} events/s", fanfare.rate()));
    row(
        "events a call of the script, so",
        &format!("{:.1}", fanfare.events as f64 / fanfare.calls),
    );
    row("Redis' CPU an event, so", &cpu(&fanfare, fanfare.redis_cpu));
    row("the publishing instance's CPU an event, so", &cpu(&fanfare, fanfare.publisher_cpu));
    row(
        "CPU an event of another instance, which has no stream of its topic",
        &format!(
            "{} ({:.2} % of a core; {:.2} % with nothing published)",
            cpu(&fanfare, fanfare.other_cpu),
            fanfare.percent(fanfare.other_cpu),
            idle.percent(idle.other_cpu),
        ),
    );
    row(
        "the same script by `redis-benchmark -c 50 -P 16`, an event a call",
        &format!("{:.0} events/s", alone.rate()),
    );
    row("Redis' CPU an event, so", &cpu(&alone, alone.redis_cpu));
    row(
        "publishes through one instance to those of `redis-benchmark`",
        &format!("{:.2} times as many", fanfare.rate() / alone.rate()),
    );
}

/// Runs `work` and returns its cost.
async fn spent(
    redis: &mut Redis,
    publisher: &Server,
    other: &Server,
    events: usize,
    work: impl Future,
) -> Spent {
    let (calls, redis_cpu) = (redis.calls().await, redis.cpu().await);
    let (publisher_cpu, other_cpu) = (publisher.cpu(), other.cpu());
    let start = Instant::now();
    work.await;
    Spent {
        events,
        time: start.elapsed(),
        publisher_cpu: publisher.cpu() - publisher_cpu,
        other_cpu: other.cpu() - other_cpu,
        redis_cpu: redis.cpu().await.saturating_sub(redis_cpu),
        calls: redis.calls().await - calls,
    }
}

fn topic(number: usize) -> String {
    format!("bench:{:02}", number % TOPICS)
}

/// Publishes NDJSON and waits until every event is answered.
async fn publish_lines(address: SocketAddr, count: usize) {
    let share = count / CONNECTIONS;
    assert_eq!(count, CONNECTIONS * share, "all connections publish as many");
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..CONNECTIONS {
        let connection = TcpStream::connect(address).await.expect("the server listens");
        connection.set_nodelay(true).expect("a TCP socket");
        let (reader, mut writer) = connection.into_split();
        // Keep the writing half as long as the reading one: dropping it closes the connection for
        // writing, and the server would see the client leave.
        tasks
            .spawn(async move { tokio::join!(send(&mut writer, share), receive(reader, share)).1 });
    }
    let partitions: BTreeSet<Vec<u8>> = tasks.join_all().await.into_iter().flatten().collect();
    assert_eq!(partitions.len(), PARTITIONS, "topics are of all partitions");
}

async fn send(writer: &mut tcp::OwnedWriteHalf, count: usize) {
    let head = "POST /events/publish HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\
        content-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n";
    writer.write_all(head.as_bytes()).await.expect("the server reads");
    let data = "x".repeat(PAYLOAD_BYTES);
    let line = |number| format!("{{\"topic\":\"{}\",\"data\":\"{data}\"}}\n", topic(number));
    for first in (0..count).step_by(LINES_A_WRITE) {
        let numbers = first..count.min(first + LINES_A_WRITE);
        let lines: String = numbers.map(line).collect();
        let chunk = format!("{:x}\r\n{lines}\r\n", lines.len());
        writer.write_all(chunk.as_bytes()).await.expect("the server reads");
    }
    writer.write_all(b"0\r\n\r\n").await.expect("the server reads");
}

/// Reads the answers, and returns the partitions named in them.
async fn receive(reader: tcp::OwnedReadHalf, count: usize) -> BTreeSet<Vec<u8>> {
    let mut reader = BufReader::with_capacity(64 * 1024, reader);
    let (mut partitions, mut answers, mut line) = (BTreeSet::new(), 0, Vec::new());
    while answers < count {
        line.clear();
        let read = timeout(DEADLINE, reader.read_until(b'\n', &mut line)).await;
        assert_ne!(read.expect("answers in time").expect("an open socket"), 0, "answers to all");
        // Skip the response head and the chunk sizes.
        if !line.starts_with(b"{") {
            continue;
        }
        assert!(line.starts_with(br#"{"success":true"#), "refused");
        answers += 1;
        if answers <= TOPICS {
            let text = std::str::from_utf8(&line).expect("JSON");
            let partition = text.split_once(r#""partition":"#).expect("an answer").1;
            partitions.insert(partition.bytes().take_while(u8::is_ascii_digit).collect());
        }
    }
    partitions
}

/// Calls the script with one event per call and the arguments of an instance with default settings.
/// The key prefix is as long as an instance's.
async fn redis_benchmark(address: SocketAddr, sha: &str, server: &str) {
    let (base, topic, data) = ("benches:{0}:", topic(0), "x".repeat(PAYLOAD_BYTES));
    let heads =
        ["seq", "epoch", "lineage", "topics", "evicted"].map(|name| format!("{base}{name}"));
    let log = format!("{base}log:{topic}");
    let output = tokio::process::Command::new("redis-benchmark")
        .args(["-p", &address.port().to_string(), "-n", &EVENTS_A_ROUND.to_string()])
        .args(["-c", "50", "-P", "16", "--csv", "EVALSHA", sha, "8"])
        .args(heads)
        .args([&log, &format!("{base}keys:{topic}"), &log])
        .args(["1", server, "0", "62500", &topic, "text", &data, "", "", ""])
        .args(["300000", "0", "1000", "3600000", "none"])
        .output();
    let output = output.await.expect("redis-benchmark is there");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaint.is_empty(), "redis-benchmark: {complaint}");
}

/// From publish at one instance to a stream's bytes at the other, and Redis' round trip.
async fn latency(redis: &Redis, address: SocketAddr, crowd: &Crowd) {
    let mut connection = TcpStream::connect(redis.address).await.expect("Redis listens");
    connection.set_nodelay(true).expect("a TCP socket");
    let mut pings = histogram();
    for _ in 0..TIMED {
        let start = Instant::now();
        connection.write_all(b"PING\r\n").await.expect("Redis reads");
        let mut answer = [0; 7];
        connection.read_exact(&mut answer).await.expect("Redis answers");
        pings.saturating_record(start.elapsed().as_micros().max(1) as u64);
        assert_eq!(&answer, b"+PONG\r\n");
        sleep(PAUSE).await;
    }
    publish(address, crowd, 200, PAUSE).await;
    crowd.latencies.lock().await.reset();
    let start = Instant::now();
    publish(address, crowd, TIMED, PAUSE).await;
    let rate = TIMED as f64 / start.elapsed().as_secs_f64();
    let latencies = crowd.latencies.lock().await;
    assert_eq!(latencies.len(), TIMED as u64, "every event arrives");
    row(
        &format!(
            "latency from instance to instance, flush `immediate`, 1 stream, {rate:.0} events/s"
        ),
        &quantiles(&latencies, 2),
    );
    row("round trip of a `PING` to Redis, as often", &quantiles(&pings, 2));
}

/// The Redis process, in a directory of its own.
struct Redis {
    process: Child,
    address: SocketAddr,
    directory: PathBuf,
    connection: MultiplexedConnection,
}

impl Redis {
    async fn start() -> Self {
        let name = format!("bench-redis-{}", std::process::id());
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&directory).expect("the temporary directory takes directories");
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        drop(listener);
        let process = Command::new("redis-server")
            .args(["--port", &address.port().to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no"])
            .arg("--dir")
            .arg(&directory)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is there");
        let client = redis::Client::open(format!("redis://{address}")).expect("a URL");
        let connected = async {
            loop {
                match client.get_multiplexed_async_connection().await {
                    Ok(connection) => return connection,
                    Err(_) => sleep(Duration::from_millis(10)).await,
                }
            }
        };
        let connection = timeout(DEADLINE, connected).await.expect("Redis answers");
        Self { process, address, directory, connection }
    }

    async fn load_script(&mut self) -> String {
        let mut load = redis::cmd("SCRIPT");
        load.arg("LOAD").arg(SCRIPT);
        load.query_async(&mut self.connection).await.expect("Redis takes it")
    }

    /// A field of a section of `INFO`.
    async fn field(&mut self, section: &str, name: &str) -> String {
        let mut info = redis::cmd("INFO");
        let text = info.arg(section).query_async::<String>(&mut self.connection).await;
        let text = text.expect("Redis answers");
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).to_owned()
    }

    /// CPU time of all threads so far.
    async fn cpu(&mut self) -> Duration {
        let mut sum = Duration::ZERO;
        for name in ["used_cpu_user", "used_cpu_sys"] {
            let seconds = self.field("cpu", name).await.parse().expect("a number");
            sum += Duration::from_secs_f64(seconds);
        }
        sum
    }

    /// Calls of all scripts; almost all are publishes.
    async fn calls(&mut self) -> f64 {
        let text = self.field("commandstats", "cmdstat_evalsha").await;
        let calls = text.split([',', '=']).nth(1).expect("calls=…");
        calls.parse().expect("a number")
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}
