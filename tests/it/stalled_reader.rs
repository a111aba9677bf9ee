//! One of a thousand streams stops reading: the others see no difference, and it can resume.

use std::time::{Duration, Instant};

use super::Server;
use crate::support::{
    crowd::{Crowd, Plan, Publisher, eventually, p99, pace},
    heavy,
};

const STREAM_COUNT: usize = 1000;
const EVENTS_PER_SECOND: u32 = 50;
const PAYLOAD_BYTES: usize = 4096;

/// Events of a measured phase: three seconds.
const PHASE_EVENTS: u32 = 150;

/// Small enough for the kernel to buffer only a few events for a stalled client.
const SMALL_BUFFER_BYTES: u32 = 4096;

/// Events per request while filling the stalled stream.
const FILL_EVENTS: usize = 32;

/// Every stream subscribes to `stall:feed`. Only the stalled stream subscribes to `stall:fill`, so
/// filling it puts no load on the others.
const FEED: usize = 0;
const FILL: usize = 1;

const CLOSED_AS_SLOW: &str = "fanfare_connections_closed_total{reason=\"slow\"}";
const DROPPED_AS_SLOW: &str = "fanfare_events_dropped_total{reason=\"slow\"}";

/// Longest time between two heartbeats of an idle stream: 200 ms by configuration, and a margin for
/// a busy machine.
const MAX_HEARTBEAT_GAP: Duration = Duration::from_secs(2);

fn config(slow_consumer: &str, max_outbox: &str) -> String {
    format!(
        r#"
        [stream]
        heartbeat = "200ms"
        write_timeout = "5m"
        [outbox]
        max_bytes = "{max_outbox}"
        slow_consumer = "{slow_consumer}"
        [history]
        events = 20000
        [delivery]
        flush = "immediate"
        "#
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_reader_delays_nobody_and_resumes_without_loss_after_its_disconnect() {
    let _heavy = heavy().await;
    let Scene { server, others, idle, stalled, mut publisher } =
        Scene::new(&config("disconnect", "1MiB")).await;

    let without = phase(&mut publisher, &others).await;
    stalled.stall();
    // The outbox has space for the events of a phase on top of this.
    fill_until(&server, "fanfare_outbox_bytes", 64.0 * 1024.0, &mut publisher).await;
    let with = phase(&mut publisher, &others).await;
    assert_not_slower(&with, &without);
    assert_heartbeats(&idle).await;
    assert_eq!(server.metric(CLOSED_AS_SLOW).await, 0.0, "the stalled stream was closed");

    fill_until(&server, CLOSED_AS_SLOW, 1.0, &mut publisher).await;
    publisher.publish(FEED, "stall:feed", "after its end").await;
    others.until_number(FEED, publisher.last(FEED)).await;
    others.assert_whole(FEED, publisher.last(FEED));
    assert_eq!(server.metric("fanfare_connections_closed_total").await, 1.0);
    others.assert_only_cut();

    stalled.read();
    for lane in [FEED, FILL] {
        stalled.until_number(lane, publisher.last(lane)).await;
        stalled.assert_whole(lane, publisher.last(lane));
    }
    let seen = stalled.first();
    assert_eq!((seen.connected, seen.resumed), (2, 1), "{}", seen.story());
    assert_eq!(seen.gaps, [], "{}", seen.story());
    assert_eq!(seen.shutdowns.len(), 1, "{}", seen.story());
    assert_eq!(seen.shutdowns[0]["reason"], "slow");
    assert_eq!(seen.events_after_shutdown, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_reader_that_may_miss_events_gets_a_gap_and_then_the_newest() {
    let _heavy = heavy().await;
    let Scene { server, others, idle, stalled, mut publisher } =
        Scene::new(&config("drop-oldest", "256KiB")).await;

    let without = phase(&mut publisher, &others).await;
    stalled.stall();
    fill_until(&server, DROPPED_AS_SLOW, 1.0, &mut publisher).await;
    let with = phase(&mut publisher, &others).await;
    assert_not_slower(&with, &without);
    assert_heartbeats(&idle).await;
    others.assert_whole(FEED, publisher.last(FEED));
    others.assert_only_cut();

    // The newest event of each topic is not dropped.
    publisher.publish(FILL, "stall:fill", "the newest").await;
    publisher.publish(FEED, "stall:feed", "the newest").await;
    let dropped = server.metric(DROPPED_AS_SLOW).await;
    stalled.read();
    for lane in [FEED, FILL] {
        stalled.until_number(lane, publisher.last(lane)).await;
    }
    assert_eq!(server.metric(DROPPED_AS_SLOW).await, dropped, "dropped while it read");
    assert_eq!(server.metric("fanfare_connections_closed_total").await, 0.0);
    let seen = stalled.first();
    assert_eq!((seen.connected, &seen.ends[..]), (1, &[][..]), "{}", seen.story());
    let mut missed_count = 0;
    for lane in [FEED, FILL] {
        let numbers = seen.numbers(lane);
        assert!(numbers.is_sorted_by(|a, b| a < b), "twice or out of order: {numbers:?}");
        missed_count += publisher.last(lane) as usize - numbers.len();
    }
    assert_eq!(missed_count as f64, dropped, "{}", seen.story());
    assert_ne!(missed_count, 0);
    assert!(!seen.gaps.is_empty(), "{}", seen.story());
    assert!(seen.gaps.iter().all(|(_, gap)| gap["reason"] == "slow"), "{}", seen.story());
    // Every hole has a gap exactly there.
    let numbers = seen.numbers(FEED);
    let holes = numbers.windows(2).enumerate().filter(|(_, pair)| pair[1] != pair[0] + 1);
    for (before, pair) in holes {
        let has_gap = seen.gaps.iter().any(|(count, _)| *count == before + 1);
        assert!(has_gap, "nothing tells of the hole between {pair:?}: {}", seen.story());
    }
}

/// A thousand streams, one of them about to stall, and one more without events.
struct Scene {
    server: Server,
    others: Crowd,
    idle: Crowd,
    stalled: Crowd,
    publisher: Publisher,
}

impl Scene {
    async fn new(config: &str) -> Self {
        let server = Server::with_config(config).await;
        let plan = |query: &str| Plan { query: query.to_owned(), ..Plan::default() };
        let others = Crowd::of(server.addr, STREAM_COUNT - 1, &plan("topic=stall:feed"));
        let idle = Crowd::of(server.addr, 1, &plan("topic=stall:idle"));
        let slow = Plan {
            comes_back: true,
            receive_buffer_bytes: Some(SMALL_BUFFER_BYTES),
            ..plan("topics=stall:feed,stall:fill")
        };
        let stalled = Crowd::of(server.addr, 1, &slow);
        for crowd in [&others, &idle, &stalled] {
            crowd.until_connected(1).await;
        }
        let publisher = Publisher::connect(server.addr).await;
        Self { server, others, idle, stalled, publisher }
    }
}

/// The other streams' measurements.
#[derive(Debug)]
struct Phase {
    latency_p99: Duration,
    answer_p99: Duration,
}

/// Publishes the events of a phase at the fixed rate.
async fn phase(publisher: &mut Publisher, others: &Crowd) -> Phase {
    let text = "x".repeat(PAYLOAD_BYTES);
    let first = publisher.last(FEED) + 1;
    publisher.answer_micros.clear();
    let mut pace = pace(EVENTS_PER_SECOND);
    for _ in 0..PHASE_EVENTS {
        pace.tick().await;
        publisher.publish(FEED, "stall:feed", &text).await;
    }
    others.until_number(FEED, publisher.last(FEED)).await;
    publisher.answer_micros.sort_unstable();
    Phase {
        latency_p99: p99(&others.latencies(FEED, first..=publisher.last(FEED))),
        answer_p99: p99(&publisher.answer_micros),
    }
}

/// Publishes to the stalled stream alone until the metric reaches `least`.
async fn fill_until(server: &Server, metric: &str, least: f64, publisher: &mut Publisher) {
    let text = "y".repeat(PAYLOAD_BYTES);
    eventually(metric, async || {
        let events = (0..FILL_EVENTS).map(|_| publisher.next(FILL, "stall:fill", &text));
        let events = serde_json::Value::Array(events.collect());
        publisher.send(&events).await;
        server.metric(metric).await >= least
    })
    .await;
}

fn assert_not_slower(with: &Phase, without: &Phase) {
    println!("with a stalled reader: {with:?}, without: {without:?}");
    // Waiting for the stalled reader would take its write timeout, five minutes. The rest is room for
    // a busy machine.
    let bound = |without: Duration| 3 * without + Duration::from_secs(3);
    assert!(with.latency_p99 < bound(without.latency_p99), "{with:?}, before {without:?}");
    assert!(with.answer_p99 < bound(without.answer_p99), "{with:?}, before {without:?}");
}

/// Heartbeats have come regularly and still do.
async fn assert_heartbeats(idle: &Crowd) {
    let before = idle.first().heartbeats.len();
    let start = Instant::now();
    idle.until_all("more heartbeats", |seen| seen.heartbeats.len() >= before + 3).await;
    assert!(start.elapsed() < 3 * MAX_HEARTBEAT_GAP);
    let seen = idle.first();
    let gaps = seen.heartbeats.windows(2).map(|pair| pair[1] - pair[0]);
    let longest = gaps.max().expect("there are some");
    assert!(longest < MAX_HEARTBEAT_GAP, "no heartbeat for {longest:?}");
}
