//! The cost of a stream and of a delivery: `cargo bench --bench streams`.
//!
//! Starts the real server in its own process, opens streams over TCP from this process, and prints
//! as Markdown:
//! - for both transports: memory per stream at 10,000 idle streams, before and after a few events
//!   each; idle CPU; CPU time per delivery at 1,000 and 10,000 streams;
//! - latency in the three flush modes.
//!
//! CPU time is the server's alone. Latency is from the publish call to the read of the bytes. It
//! includes this process, sharing the machine's cores with the server.

mod support;

use std::{
    fs,
    time::{Duration, Instant},
};

use tokio::time::sleep;

use support::{Crowd, Server, publish, quantiles, row};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    // `cargo test --all-targets` runs benches too, but must not measure.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    println!("| measured | value |\n|---|---|");
    for transport in ["raw", "body"] {
        idle(transport, 10_000).await;
        for streams in [1000, 10_000] {
            cost(transport, streams).await;
        }
    }
    for flush in ["tick", "leading", "immediate"] {
        latency(flush).await;
    }
}

/// Memory and CPU of idle streams.
async fn idle(transport: &str, count: usize) {
    let server = server(transport, "tick");
    // The first streams cause one-time allocations; do not count them as memory of a stream.
    let warm = Crowd::open(server.address, 200).await;
    drop(warm);
    let before = memory_bytes(&server);
    let crowd = Crowd::open(server.address, count).await;
    let memory = |state: &str| {
        let bytes = memory_bytes(&server).saturating_sub(before);
        let per_stream = bytes as f64 / count as f64 / 1024.0;
        let name = format!("{transport}: memory a stream, {count} idle streams{state}");
        row(&name, &format!("{per_stream:.2} KiB"));
    };
    memory("");
    let cpu = server.cpu();
    let window = Duration::from_secs(10);
    sleep(window).await;
    let share = (server.cpu() - cpu).as_secs_f64() / window.as_secs_f64() * 100.0;
    row(&format!("{transport}: idle CPU, {count} streams"), &format!("{share:.2} % of a core"));
    publish(server.address, &crowd, 5, Duration::ZERO).await;
    memory(", 5 events each");
}

/// CPU time per delivery: one topic, one event per write.
async fn cost(transport: &str, count: usize) {
    let server = server(transport, "immediate");
    let crowd = Crowd::open(server.address, count).await;
    let events = 200_000 / count + 20;
    publish(server.address, &crowd, 5, Duration::ZERO).await;
    let before = server.cpu();
    let start = Instant::now();
    publish(server.address, &crowd, events, Duration::ZERO).await;
    let deliveries = (events * count) as f64;
    let cpu = (server.cpu() - before).as_secs_f64() / deliveries * 1e6;
    let rate = deliveries / start.elapsed().as_secs_f64();
    row(
        &format!("{transport}: CPU a delivery, {count} streams, one event at a time"),
        &format!("{cpu:.2} µs ({rate:.0} deliveries/s)"),
    );
}

/// From publish to the client's bytes: 100 streams, 4 publishes per second. The topic is mostly
/// quiet, like notifications, so the flush `leading` differs from `tick`.
async fn latency(flush: &str) {
    let server = server("raw", flush);
    let crowd = Crowd::open(server.address, 100).await;
    publish(server.address, &crowd, 5, Duration::from_millis(50)).await;
    crowd.latencies.lock().await.reset();
    publish(server.address, &crowd, 60, Duration::from_millis(233)).await;
    let value = quantiles(&*crowd.latencies.lock().await, 1);
    row(&format!("latency, flush `{flush}`, 100 streams, 4 events/s"), &value);
}

fn server(transport: &str, flush: &str) -> Server {
    let environment =
        [("FANFARE__SERVER__TRANSPORT", transport), ("FANFARE__DELIVERY__FLUSH", flush)];
    Server::start(&["--no-demo"], &environment)
}

/// Proportional set size of the server.
fn memory_bytes(server: &Server) -> u64 {
    let path = format!("/proc/{}/smaps_rollup", server.process.id());
    let text = fs::read_to_string(path).expect("Linux");
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).expect("a Pss line");
    let kibibytes = line.trim().trim_end_matches(" kB");
    kibibytes.parse::<u64>().expect("a number") * 1024
}
