//! A client reading slowly is served by policy for as long as it reads. Only a client acknowledging
//! nothing is ended by the write timeout.

use std::{net::SocketAddr, time::Duration};

use serde_json::{Value, json};
use tokio::{
    net::TcpSocket,
    time::{Interval, interval},
};

use super::Server;
use crate::support::{Stream, until, wait::DEADLINE};

/// Shorter than the slow reading, and still far above the pauses of a reader on a busy machine.
const WRITE_TIMEOUT: &str = "10s";

/// For a client without any reads.
const SHORT_WRITE_TIMEOUT: &str = "1s";

/// Read at [`READ_PAUSE`], an event each time: 20 kB a second.
const DATA_BYTES: usize = 2000;
const READ_PAUSE: Duration = Duration::from_millis(100);

/// Events read slowly, for longer than the write timeout.
const SLOW_EVENTS: usize = 120;

/// The last event of a burst past a bound of 256 KiB. A short one: nobody reads meanwhile.
const BURST_END: usize = SLOW_EVENTS + 300;

/// The history of one topic: 4 MB.
const EVENTS: usize = 2000;

const CLOSED_AS_SLOW: &str = "fanfare_connections_closed_total{reason=\"slow\"}";

fn config(outbox: &str, write_timeout: &str) -> String {
    format!(
        "[stream]\nheartbeat = \"1s\"\nwrite_timeout = \"{write_timeout}\"\n[history]\nevents = 10000\n\
         [delivery]\nflush = \"immediate\"\n[outbox]\n{outbox}"
    )
}

async fn publish(server: &Server, numbers: std::ops::Range<usize>) {
    let padding = "x".repeat(DATA_BYTES);
    let numbers: Vec<usize> = numbers.collect();
    for some in numbers.chunks(100) {
        let event =
            |number: &usize| json!({ "topic": "slow", "data": format!("{number} {padding}") });
        server.publish(Value::Array(some.iter().map(event).collect())).await;
    }
}

/// A stream whose own kernel buffers little: it reads no faster than the test.
async fn subscribe(addr: SocketAddr, query: &str) -> Stream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a TCP socket");
    let socket = socket.connect(addr).await.expect("the server accepts");
    let path = format!("/events/stream?{query}");
    let mut stream = Stream::request_on(socket, "GET", &path, &[], b"").await;
    stream.read_connected().await;
    stream
}

fn pace() -> Interval {
    interval(READ_PAUSE)
}

fn number(data: &str) -> usize {
    data.split_once(' ').and_then(|(number, _)| number.parse().ok()).expect("a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_of_a_long_replay_gets_all_of_it() {
    let server = Server::with_config(&config("", WRITE_TIMEOUT)).await;
    publish(&server, 0..EVENTS).await;
    let mut stream = subscribe(server.addr, "topic=slow&last_event_id=earliest").await;
    let mut pace = pace();
    for expected in 0..EVENTS {
        if expected < SLOW_EVENTS {
            pace.tick().await;
        }
        assert_eq!(number(&stream.next().await.data), expected, "each event once, in order");
    }
    assert_eq!(server.metric("fanfare_connections_closed_total").await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_past_the_bound_gets_shutdown_and_resumes() {
    let server = Server::with_config(&config("max_bytes = \"256KiB\"", WRITE_TIMEOUT)).await;
    let mut stream = subscribe(server.addr, "topic=slow").await;
    publish(&server, 0..SLOW_EVENTS).await;
    let mut pace = pace();
    let mut expected = 0;
    let shutdown = loop {
        pace.tick().await;
        let event = stream.next().await;
        if event.event == "shutdown" {
            break event;
        }
        assert_eq!(number(&event.data), expected);
        expected += 1;
        // Slow for longer than the write timeout, and only then past the bound.
        if expected == SLOW_EVENTS / 2 {
            publish(&server, SLOW_EVENTS..BURST_END).await;
        }
    };
    assert_eq!(shutdown.json()["reason"], "slow");
    assert!((SLOW_EVENTS / 2..BURST_END).contains(&expected), "{expected} events");
    let mut stream = Stream::resume(server.addr, "topic=slow", stream.last_id()).await;
    for expected in expected..BURST_END {
        assert_eq!(number(&stream.next().await.data), expected);
    }
    assert_eq!(server.metric(CLOSED_AS_SLOW).await, 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_that_may_miss_events_stays_connected() {
    let config = config("max_bytes = \"64KiB\"\nslow_consumer = \"drop-oldest\"", WRITE_TIMEOUT);
    let server = Server::with_config(&config).await;
    let mut stream = subscribe(server.addr, "topic=slow").await;
    let mut pace = pace();
    let (mut next, mut gaps) = (0, 0);
    for round in 0..SLOW_EVENTS {
        pace.tick().await;
        // Four times as fast as the reader.
        publish(&server, 4 * round..4 * (round + 1)).await;
        read_newer(&mut stream, &mut next, &mut gaps).await;
    }
    while next < 4 * SLOW_EVENTS {
        read_newer(&mut stream, &mut next, &mut gaps).await;
    }
    assert!(gaps >= 1, "dropped without a gap");
    assert_eq!(server.metric("fanfare_connections_closed_total").await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_acknowledges_nothing_is_ended_at_the_write_timeout() {
    let server = Server::with_config(&config("", SHORT_WRITE_TIMEOUT)).await;
    publish(&server, 0..EVENTS).await;
    let before = server.metric("process_open_fds").await;
    let stalled = subscribe(server.addr, "topic=slow&last_event_id=earliest").await;
    until(DEADLINE, "the stalled stream is ended", async || {
        server.metric(CLOSED_AS_SLOW).await == 1.0
    })
    .await;
    until(DEADLINE, "its socket is closed", async || {
        server.metric("process_open_fds").await <= before
    })
    .await;
    server.until_streams(0).await;
    drop(stalled);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unread_stream_holds_few_bytes_in_the_kernel() {
    let server = Server::with_config("[history]\nevents = 10000").await;
    let unread = Stream::subscribe(server.addr, "topic=slow").await;
    let mut most = 0;
    until(6 * DEADLINE, "live events wait for their client", async || {
        publish(&server, 0..100).await;
        most = most.max(queued_bytes(server.addr));
        server.metric("fanfare_outbox_bytes").await > 500_000.0
    })
    .await;
    assert!(most > 0, "the kernel holds something");
    assert!(most < 256 * 1024, "the kernel holds {most} bytes of one stream");
    drop(unread);
}

/// Reads a gap, or an event at or after `next`.
async fn read_newer(stream: &mut Stream, next: &mut usize, gaps: &mut usize) {
    let event = stream.next().await;
    if event.event == "gap" {
        assert_eq!(event.json()["reason"], "slow");
        *gaps += 1;
        return;
    }
    let number = number(&event.data);
    assert!(number >= *next, "twice or out of order: {number} after {next}");
    *next = number + 1;
}

/// The most bytes queued in the kernel for one client of the server: written, and not
/// acknowledged (`tx_queue` of `/proc/net/tcp`).
fn queued_bytes(server: SocketAddr) -> u64 {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux");
    let port = format!(":{:04X}", server.port());
    let lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let queues = lines
        .filter(|fields| fields[1].ends_with(&port))
        .filter_map(|fields| u64::from_str_radix(fields.get(4)?.split(':').next()?, 16).ok());
    queues.max().unwrap_or_default()
}
