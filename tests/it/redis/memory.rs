//! Local memory is a cache of Redis. Its size changes no stream.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{Instances, RedisServer, Stream, http::publish, redis::Options};

const TOPICS: usize = 4;
const ROUNDS: usize = 3;
/// Events of a topic published while all clients are away, and while they return.
const AWAY: usize = 300;
const RETURNING: usize = 100;
const EACH_ROUND: usize = AWAY + RETURNING;

/// Publishes these numbers to every topic, in one array each time.
async fn publish_numbers(addr: SocketAddr, numbers: std::ops::Range<usize>) {
    for number in numbers {
        let event = |topic| json!({ "topic": format!("t:{topic}"), "data": format!("{number}") });
        let answer = publish(addr, Value::Array((0..TOPICS).map(event).collect())).await;
        assert_eq!(answer[TOPICS - 1]["success"], true, "{answer}");
    }
}

/// One client: it returns with its last id and reads all events of the round.
async fn visit(addr: SocketAddr, query: String, last_id: String, round: usize) -> String {
    let topics = if query.contains('*') { TOPICS } else { 1 };
    let mut stream = match last_id.as_str() {
        "" => Stream::subscribe(addr, &query).await,
        id => Stream::resume(addr, &query, id).await,
    };
    assert_eq!(stream.connected["resumed"], round > 0, "{query}, round {round}");
    let numbers = match round {
        0 => 0..0,
        _ => (round - 1) * EACH_ROUND..round * EACH_ROUND,
    };
    for number in numbers {
        for _ in 0..topics {
            let event = stream.next().await;
            assert_eq!((&*event.event, event.data), ("message", number.to_string()), "{query}");
        }
    }
    stream.last_id().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_size_of_local_memory_delivers_the_same_events() {
    for max_bytes in ["0B", "1KiB", "64KiB"] {
        let redis = RedisServer::start(Options::default()).await;
        let settings = [("history.max_bytes", max_bytes), ("hub.partitions", "1")];
        let instances = Instances::start(&[redis.url()], &settings).await;
        let addr = instances.addr(0);
        let queries = (0..3 * TOPICS).map(|number| match number % 3 {
            0 => "topic=t:*".to_owned(),
            _ => format!("topic=t:{}", number % TOPICS),
        });
        let mut clients: Vec<(String, String)> = queries.map(|q| (q, String::new())).collect();
        for round in 0..=ROUNDS {
            let first = round.saturating_sub(1) * EACH_ROUND;
            if round > 0 {
                publish_numbers(addr, first..first + AWAY).await;
            }
            let mut visits = JoinSet::new();
            for (query, id) in clients.drain(..) {
                visits.spawn(async move {
                    let id = visit(addr, query.clone(), id, round).await;
                    (query, id)
                });
            }
            if round > 0 {
                publish_numbers(addr, first + AWAY..first + EACH_ROUND).await;
            }
            clients = visits.join_all().await;
        }
    }
}

const LONG_EVENTS: usize = 4000;
const LONG_TOPICS: usize = 200;
const LONG_DATA_BYTES: usize = 1000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_replay_without_local_memory_reads_each_part_of_the_log_about_once() {
    let redis = RedisServer::start(Options::default()).await;
    let settings = [("history.max_bytes", "0B"), ("hub.partitions", "1")];
    let instances = Instances::start(&[redis.url()], &settings).await;
    let addr = instances.addr(0);
    let padding = "x".repeat(LONG_DATA_BYTES);
    let numbers: Vec<usize> = (0..LONG_EVENTS).collect();
    // Half of the events are of one topic, the others spread.
    let topic = |number: usize| if number.is_multiple_of(2) { 0 } else { number % LONG_TOPICS };
    for some in numbers.chunks(500) {
        let event = |number: &usize| json!({ "topic": format!("t:{}", topic(*number)), "data": format!("{number} {padding}") });
        publish(addr, Value::Array(some.iter().map(event).collect())).await;
    }
    let sent = net_output_bytes(&redis).await;
    let mut stream = Stream::subscribe(addr, "topic=t:**&last_event_id=earliest").await;
    let kept = numbers.iter().filter(|number| **number % 2 == 1 || **number >= LONG_EVENTS - 2000);
    for number in kept {
        let event = stream.next().await;
        assert_eq!(event.event, "message", "{event:?}");
        assert_eq!(event.data.split_once(' ').map(|(read, _)| read), Some(&*number.to_string()));
    }
    let sent = net_output_bytes(&redis).await - sent;
    let data = (LONG_EVENTS - 1000) * LONG_DATA_BYTES;
    assert!(sent < 4 * data, "{sent} bytes for {data} bytes of events");
    publish(addr, json!({ "topic": "t:0", "data": "live" })).await;
    assert_eq!(stream.next().await.data, "live");
}

async fn net_output_bytes(redis: &RedisServer) -> usize {
    let stats = redis.lines(&["INFO", "stats"]).await;
    let mut values = stats.iter().filter_map(|line| line.strip_prefix("total_net_output_bytes:"));
    values.next().and_then(|value| value.trim().parse().ok()).expect("a number")
}
