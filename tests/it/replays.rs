//! Long replays: bounded memory, and every event once.

use serde_json::{Value, json};

use crate::support::{Server, Stream, heavy, http::publish, until, wait::DEADLINE};

/// Events of the history: some 20 MB.
const EVENTS: usize = 20_000;
const DATA_BYTES: usize = 1000;
const TOPICS: usize = 50;

const CONFIG: &str = "history.events = 10000\nhub.partitions = 4\nhub.max_replays = 60";

async fn fill(server: &Server) {
    let padding = "x".repeat(DATA_BYTES);
    let numbers: Vec<usize> = (0..EVENTS).collect();
    for some in numbers.chunks(500) {
        let event = |number: &usize| json!({ "topic": format!("t:{}", number % TOPICS), "data": format!("{number} {padding}") });
        let answer = publish(server.addr, Value::Array(some.iter().map(event).collect())).await;
        assert_eq!(answer[some.len() - 1]["success"], true);
    }
}

/// Reads the whole history of a stream of all topics.
async fn read_all(stream: &mut Stream) {
    let mut next = [0; TOPICS];
    for _ in 0..EVENTS {
        let event = stream.next().await;
        assert_eq!(event.event, "message");
        let number: usize = event.data.split_once(' ').unwrap().0.parse().unwrap();
        let topic = number % TOPICS;
        assert_eq!(number, next[topic] * TOPICS + topic, "each topic in order, once");
        next[topic] += 1;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_replays_of_a_large_history_hold_a_page_each() {
    let _heavy = heavy().await;
    let server = Server::with_config(CONFIG).await;
    fill(&server).await;
    let query = "topic=**&last_event_id=earliest";
    let mut reader = Stream::subscribe(server.addr, query).await;
    let before = server.metric("process_resident_memory_bytes").await;
    let mut unread = Vec::new();
    for _ in 0..50 {
        unread.push(Stream::open(server.addr, &format!("/events/stream?{query}"), &[]).await);
    }
    until(DEADLINE, "all replays have begun", async || {
        server.metric("fanfare_replays_in_flight").await >= 50.0
    })
    .await;
    // Not a byte of 50 times the history: a page of references each, and the kernel's buffers.
    let grown = server.metric("process_resident_memory_bytes").await - before;
    assert!(grown < 50.0 * 400_000.0, "{grown} bytes for 50 unread replays");
    read_all(&mut reader).await;
    publish(server.addr, json!({ "topic": "t:0", "data": "live" })).await;
    assert_eq!(reader.next().await.data, "live");
    drop(unread);
    until(DEADLINE, "no replay is left", async || {
        server.metric("fanfare_replays_in_flight").await == 0.0
    })
    .await;
}
