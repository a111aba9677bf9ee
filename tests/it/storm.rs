//! Ten thousand streams connect, leave and return at once.

use std::{fs, time::Instant};

use crate::support::{
    Server,
    crowd::{Crowd, Plan, Publisher, eventually},
    heavy,
};

const STREAM_COUNT: usize = 10_000;

/// Open files allowed on top of the number before the first stream: for the test's own requests.
const SPARE_FILES: f64 = 8.0;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_streams_storm_in_leave_and_storm_back_without_loss_or_syn_retry() {
    let _heavy = heavy().await;
    let server = Server::start(&["--no-demo"]).await;
    let open_files = server.metric("process_open_fds").await;
    let kernel_before = Kernel::now();

    let start = Instant::now();
    let plan = Plan { query: "topic=storm:news".to_owned(), ..Plan::default() };
    let streams = Crowd::of(server.addr, STREAM_COUNT, &plan);
    streams.until_connected(1).await;
    // Only now: the server ends a connection without a request after some seconds.
    let mut publisher = Publisher::connect(server.addr).await;
    println!("{STREAM_COUNT} streams opened in {:?}", start.elapsed());
    assert_eq!(server.metric("fanfare_connections").await, STREAM_COUNT as f64);
    assert_eq!(server.metric("fanfare_subscriptions").await, STREAM_COUNT as f64);
    publisher.publish(0, "storm:news", "to all who came").await;
    streams.until_number(0, 1).await;

    streams.leave();
    is_forgotten(&server, open_files).await;
    for _ in 0..3 {
        publisher.publish(0, "storm:news", "while nobody is there").await;
    }

    let start = Instant::now();
    streams.read();
    streams.until_connected(2).await;
    println!("{STREAM_COUNT} streams came back in {:?}", start.elapsed());
    publisher.publish(0, "storm:news", "to all who came back").await;
    streams.until_number(0, publisher.last(0)).await;

    streams.leave();
    is_forgotten(&server, open_files).await;
    // A refusal or a reset by the server would count as another kind of end.
    streams.assert_only_cut();
    streams.assert_whole(0, publisher.last(0));
    for (index, ledger) in streams.ledgers().enumerate() {
        assert_eq!((ledger.connected, ledger.resumed), (2, 1), "stream {index}");
        assert_eq!(ledger.gaps, [], "stream {index}");
    }
    let kernel = Kernel::now();
    assert_eq!(kernel, kernel_before, "the kernel dropped or repeated a SYN");
}

/// Every gauge is back to zero, and no file is left open.
async fn is_forgotten(server: &Server, open_files: f64) {
    let gauges = ["fanfare_connections", "fanfare_subscriptions", "fanfare_outbox_bytes"];
    eventually("all streams are forgotten", async || {
        for gauge in gauges {
            if server.metric(gauge).await != 0.0 {
                return false;
            }
        }
        server.metric("process_open_fds").await <= open_files + SPARE_FILES
    })
    .await;
    server.settled().await;
}

/// The kernel's counters of connections not accepted at once. The client of such a connection tries
/// again after a second.
#[derive(Debug, PartialEq, Eq)]
struct Kernel {
    listen_overflows: u64,
    listen_drops: u64,
    syn_retries: u64,
}

impl Kernel {
    fn now() -> Self {
        Self {
            listen_overflows: tcp_counter("ListenOverflows"),
            listen_drops: tcp_counter("ListenDrops"),
            syn_retries: tcp_counter("TCPSynRetrans"),
        }
    }
}

/// # Panics
/// The kernel does not provide it: a comparison of nothing with nothing would prove nothing.
fn tcp_counter(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/net/netstat").expect("Linux");
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt: "));
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    let at = names.split(' ').position(|other| other == name).expect("the kernel counts it");
    values.split(' ').nth(at).and_then(|value| value.parse().ok()).expect("a number")
}
