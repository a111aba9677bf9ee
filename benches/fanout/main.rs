//! The cost of a fan-out: `cargo bench --bench fanout`.
//!
//! The graph has a realistic shape (Zipf): 100,000 users, about two million edges, and a celebrity
//! followed by all users. 10,000 feeds are open. Prints, as Markdown: the cost of a fan-out against
//! one publish per follower, and the latency of small authors' posts, alone and beside the
//! celebrity's. CPU time is the server's alone. This process measures the times, and shares the
//! machine's cores with the server. Every feed must get each post once.

#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "other benchmarks use the rest")]
mod support;

mod feeds;
mod graph;

use std::{
    fs,
    time::{Duration, Instant},
};

use tokio::time::sleep;

use feeds::{Client, Feeds};
use graph::Graph;
use support::{Server, quantiles, row};

const USERS: usize = 100_000;
const FEEDS: usize = 10_000;
/// Small authors: some hundred followers each.
const SMALL: std::ops::Range<usize> = 200..1200;
/// Posts of small authors a second.
const RATE: usize = 100;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    // `cargo test --all-targets` runs benches too, but must not measure.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    println!("| measured | value |\n|---|---|");
    let graph = Graph::zipf(USERS);
    let above = (10 * USERS).to_string();
    let server = Server::start(&["--no-demo"], &[("FANFARE__FANOUT__PULL_ABOVE", &above)]);
    let mut client = Client::connect(server.address).await;
    let start = Instant::now();
    graph.import(&mut client).await;
    drop(client);
    let rate = graph.edge_count() as f64 / start.elapsed().as_secs_f64();
    row("edges imported", &format!("{} ({rate:.0} a second)", graph.edge_count()));
    let before = peak_bytes(&server, "VmRSS");
    row("resident memory, graph alone", &mebibytes(before));
    let feeds = Feeds::open(server.address, (0..USERS).step_by(USERS / FEEDS)).await;
    let opened = peak_bytes(&server, "VmRSS");
    row(&format!("resident memory, and {FEEDS} feeds"), &mebibytes(opened));

    // A new connection: the server closes idle ones, and opening the feeds takes long.
    let mut client = Client::connect(server.address).await;
    let push = celebrity(&server, &feeds, &graph, "push", &mut client).await;
    celebrity(&server, &feeds, &graph, "pull", &mut client).await;
    let naive = one_publish_a_follower(&server, &feeds, &graph, &mut client).await;
    row(
        "CPU a follower, one publish to one by push",
        &format!("{:.1} times as much", naive / push),
    );

    let alone = small_authors(&server, &feeds, &graph).await;
    let beside = beside_celebrity(&server, &feeds, &graph).await;
    row(
        "small authors' p99 beside the celebrity to alone",
        &format!("{:.2} times", beside / alone),
    );
    row("peak resident memory", &mebibytes(peak_bytes(&server, "VmHWM")));
    feeds.assert_each_once();
}

/// Fan-outs of the celebrity. Returns the CPU time per follower in µs.
async fn celebrity(
    server: &Server,
    feeds: &Feeds,
    graph: &Graph,
    mode: &str,
    client: &mut Client,
) -> f64 {
    let (mut last, cpu) = (Vec::new(), server.cpu());
    let posts = 5;
    for _ in 0..posts {
        let start = Instant::now();
        let goal = feeds.received() + FEEDS;
        client.fan_out(0, mode).await;
        feeds.wait_for(goal).await;
        last.push(start.elapsed());
    }
    last.sort_unstable();
    let cpu = (server.cpu() - cpu).as_secs_f64() * 1e6 / (posts * graph.followers(0)) as f64;
    let name = format!("celebrity, {} followers, {FEEDS} online, {mode}", graph.followers(0));
    row(&format!("{name}: until the last stream has it"), &millis(last[posts / 2]));
    row(&format!("{name}: CPU a follower"), &format!("{cpu:.2} µs"));
    cpu
}

/// The same by one request per follower, one after the other, and by one NDJSON line per follower.
/// Returns the CPU time per follower in µs of the first.
async fn one_publish_a_follower(
    server: &Server,
    feeds: &Feeds,
    graph: &Graph,
    client: &mut Client,
) -> f64 {
    let (start, cpu, goal) = (Instant::now(), server.cpu(), feeds.received() + FEEDS);
    for user in 0..graph.followers(0) {
        client.publish_to(user).await;
    }
    feeds.wait_for(goal).await;
    let each = (server.cpu() - cpu).as_secs_f64() * 1e6 / graph.followers(0) as f64;
    row("one publish a follower: until the last stream has it", &millis(start.elapsed()));
    row("one publish a follower: CPU a follower", &format!("{each:.2} µs"));
    let (start, cpu, goal) = (Instant::now(), server.cpu(), feeds.received() + FEEDS);
    client.publish_lines(graph.followers(0)).await;
    feeds.wait_for(goal).await;
    let lines = (server.cpu() - cpu).as_secs_f64() * 1e6 / graph.followers(0) as f64;
    row("one NDJSON line a follower: until the last stream has it", &millis(start.elapsed()));
    row("one NDJSON line a follower: CPU a follower", &format!("{lines:.2} µs"));
    each
}

/// A thousand small authors, one post each. Returns the p99 in ms.
async fn small_authors(server: &Server, feeds: &Feeds, graph: &Graph) -> f64 {
    let followers: usize = SMALL.map(|author| graph.followers(author)).sum();
    let cpu = server.cpu();
    post_small(server, feeds, graph).await;
    let cpu = (server.cpu() - cpu).as_secs_f64() * 1e6 / followers as f64;
    row("a thousand small authors: CPU a follower", &format!("{cpu:.2} µs"));
    report(feeds, "small authors' posts alone")
}

/// The same, while the celebrity posts without a pause.
async fn beside_celebrity(server: &Server, feeds: &Feeds, graph: &Graph) -> f64 {
    let address = server.address;
    let celebrity = tokio::spawn(async move {
        let mut client = Client::connect(address).await;
        loop {
            client.fan_out(0, "push").await;
        }
    });
    post_small(server, feeds, graph).await;
    celebrity.abort();
    report(feeds, "small authors' posts beside the celebrity's")
}

async fn post_small(server: &Server, feeds: &Feeds, graph: &Graph) {
    let mut client = Client::connect(server.address).await;
    feeds.reset_latencies();
    let start = Instant::now();
    let mut due = 0;
    for (number, author) in SMALL.enumerate() {
        let at = Duration::from_secs_f64(number as f64 / RATE as f64);
        sleep(at.saturating_sub(start.elapsed())).await;
        due += graph.online_followers(author, USERS / FEEDS);
        client.fan_out(author, "push").await;
    }
    feeds.wait_for_small(due).await;
}

fn report(feeds: &Feeds, name: &str) -> f64 {
    let latencies = feeds.latencies();
    row(&format!("{name}, {RATE} a second: publish to arrival"), &quantiles(&latencies, 1));
    latencies.value_at_quantile(0.99) as f64 / 1000.0
}

fn peak_bytes(server: &Server, name: &str) -> u64 {
    let path = format!("/proc/{}/status", server.process.id());
    let text = fs::read_to_string(path).expect("Linux");
    let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("a line of it");
    let kibibytes = line.trim_start_matches(':').trim().trim_end_matches(" kB");
    kibibytes.parse::<u64>().expect("a number") * 1024
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes / 1024 / 1024)
}

fn millis(time: Duration) -> String {
    format!("{:.0} ms", time.as_secs_f64() * 1000.0)
}
