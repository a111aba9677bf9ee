//! The history in Redis is bounded in bytes. A client in need of a trimmed event gets a gap.

use std::{net::SocketAddr, ops::Range};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

use super::expect_gap;
use crate::support::{
    Launch, RedisServer, Server, Stream,
    http::publish,
    redis::{Options, REDIS_DEADLINE},
    until,
};

const MIB: usize = 1024 * 1024;
const TOPICS: usize = 4;
const DATA_BYTES: usize = 60_000;
/// Twelve times the limit.
const EVENTS: usize = 200;
/// Bytes of an entry counted by the script for Redis itself.
const ENTRY_BYTES: usize = 64;

/// No local memory: every event comes from Redis.
const CONFIG: &str = r#"
    history = { max_bytes = "0B", events = 100 }
    hub.partitions = 1
    redis = { max_history_bytes = "1MiB", probe = "100ms" }
    [[topics]]
    pattern = "key:*"
    conflate = "latest-by-key"
    history = { events = 20 }
    [[topics]]
    pattern = "latest:*"
    conflate = "latest"
    [[topics]]
    pattern = "few:*"
    history = { events = 3 }
    [[topics]]
    pattern = "short:*"
    history = { ttl = "50ms" }
"#;

async fn start(redis: &RedisServer) -> Server {
    Server::launch(Launch {
        args: ["--redis", &redis.url(), "--no-demo"].map(str::to_owned).to_vec(),
        config: Some(CONFIG.to_owned()),
        ..Launch::default()
    })
    .await
}

async fn publish_numbers(addr: SocketAddr, numbers: Range<usize>) {
    let padding = "x".repeat(DATA_BYTES);
    for number in numbers {
        let topic = format!("t:{}", number % TOPICS);
        publish(addr, json!({ "topic": topic, "data": format!("{number} {padding}") })).await;
    }
}

fn number(data: &str) -> usize {
    data.split_once(' ').and_then(|(number, _)| number.parse().ok()).expect("a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_events_do_not_fill_redis_and_trimmed_ones_are_told() {
    let redis = RedisServer::start(Options::default()).await;
    let server = start(&redis).await;
    let addr = server.addr;
    // A topic not published to again: all its events will be trimmed.
    let mut idle = Stream::subscribe(addr, "topic=idle").await;
    publish(addr, json!({ "topic": "idle", "data": "first" })).await;
    let idle_id = idle.next().await.id;
    publish(addr, json!({ "topic": "idle", "data": "second" })).await;
    let mut stream = Stream::subscribe(addr, "topic=t:*").await;
    publish_numbers(addr, 0..1).await;
    let oldest_id = stream.next().await.id;
    for live in 1..EVENTS - TOPICS {
        publish_numbers(addr, live..live + 1).await;
        assert_eq!(number(&stream.next().await.data), live, "live, nothing is missing");
    }
    let recent_id = stream.last_id().to_owned();
    publish_numbers(addr, EVENTS - TOPICS..EVENTS).await;

    let used: usize =
        redis.field(&["INFO", "memory"], "used_memory").await.unwrap().parse().unwrap();
    assert!(used < 5 * MIB, "{used} bytes of Redis for a history of 1 MiB");
    until(REDIS_DEADLINE, "the metric has the bytes", async || {
        let bytes = server.metric("fanfare_bridge_history_bytes").await as usize;
        (MIB - 2 * DATA_BYTES..=MIB).contains(&bytes)
    })
    .await;

    let mut recent = Stream::resume(addr, "topic=t:*", &recent_id).await;
    assert_eq!(recent.connected["resumed"], true);
    for number_expected in EVENTS - TOPICS..EVENTS {
        assert_eq!(number(&recent.next().await.data), number_expected);
    }
    let mut old = Stream::resume(addr, "topic=t:*", &oldest_id).await;
    assert_eq!(old.connected["resumed"], false);
    expect_gap(&mut old, "history").await;
    let first = number(&old.next().await.data);
    assert!((EVENTS - MIB / DATA_BYTES..EVENTS - 10).contains(&first), "the oldest kept: {first}");
    for number_expected in first + 1..EVENTS {
        assert_eq!(number(&old.next().await.data), number_expected, "the oldest ones are trimmed");
    }
    let mut idle = Stream::resume(addr, "topic=idle", &idle_id).await;
    assert_eq!(idle.connected["resumed"], false);
    expect_gap(&mut idle, "history").await;
    publish(addr, json!({ "topic": "idle", "data": "third" })).await;
    assert_eq!(idle.next().await.data, "third");
}

/// The bytes of all events in Redis, counted from outside.
async fn bytes_in_redis(redis: &RedisServer) -> usize {
    let script = format!(
        "local sum = 0 \
         for _, log in ipairs(redis.call('KEYS', 'fanfare:{{0}}:log:*')) do \
           for _, entry in ipairs(redis.call('XRANGE', log, '-', '+')) do \
             sum = sum + #entry[2][2] + {ENTRY_BYTES} \
           end \
         end \
         return sum"
    );
    redis.command(&["EVAL", &script, "0"]).await.parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bytes_of_every_kind_of_history_are_counted_exactly() {
    let redis = RedisServer::start(Options::default()).await;
    let server = start(&redis).await;
    let mut rng = StdRng::seed_from_u64(7);
    let mut some = |count: u32| rng.random_range(0..count);
    for round in 0..8 {
        let event = |_| {
            let kind = ["t", "key", "latest", "few", "short"][some(5) as usize];
            let data = "x".repeat(some(20_000) as usize);
            json!({ "topic": format!("{kind}:{}", some(5)), "key": format!("{}", some(30)), "data": data })
        };
        let events: Vec<Value> = (0..100).map(event).collect();
        publish(server.addr, Value::Array(events)).await;
        // Expired topics are still counted; so end their time, and publish to all of them again.
        until(REDIS_DEADLINE, "short histories have expired", async || {
            let keys = redis.lines(&["KEYS", "fanfare:{0}:log:short:*"]).await;
            keys.iter().all(|key| key.is_empty())
        })
        .await;
        let again = (0..5).map(|topic| json!({ "topic": format!("short:{topic}"), "data": "" }));
        publish(server.addr, Value::Array(again.collect())).await;
        let counted = redis.command(&["HGET", "fanfare:{0}:bytes", "*"]).await;
        let counted: usize = counted.parse().expect("a number");
        let short_bytes: usize = 5 * 200;
        let real = bytes_in_redis(&redis).await;
        // The short histories may expire between the two commands.
        assert!(
            (real..=real + short_bytes).contains(&counted),
            "round {round}: {counted} for {real}"
        );
        assert!(counted <= MIB, "{counted}");
    }
    // The script notes the trimmed events of a topic without conflation only at the limit of bytes.
    let trimmed = redis.lines(&["HKEYS", "fanfare:{0}:evicted"]).await;
    assert!(
        trimmed.iter().any(|topic| topic.starts_with("t:")),
        "the limit is reached: {trimmed:?}"
    );
}
