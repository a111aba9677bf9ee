//! Long replays: bounded memory, and every event once.

use serde_json::{Value, json};

use crate::support::{
    Server, Stream, heavy,
    http::{publish, request},
    until,
    wait::DEADLINE,
};

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

/// The partition of a topic.
async fn partition_of(server: &Server, topic: &str) -> Value {
    server.publish(json!({ "topic": topic, "data": "probe" })).await["partition"].clone()
}

/// A client comes back without one of its topics, adds it again and does not read: 64 MiB were
/// published there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_unread_replay_of_an_added_topic_holds_a_page() {
    const ADDED: usize = 1100;
    let _heavy = heavy().await;
    let server = Server::with_config("history.events = 2000\nhub.partitions = 2").await;
    let first = partition_of(&server, "a").await;
    let mut added = "b0".to_owned();
    for number in 1.. {
        if partition_of(&server, &added).await != first {
            break;
        }
        added = format!("b{number}");
    }
    let mut stream = Stream::subscribe(server.addr, &format!("topics=a,{added}")).await;
    publish(server.addr, json!({ "topic": added, "data": "seen" })).await;
    assert_eq!(stream.next().await.data, "seen");
    let id = stream.last_id().to_owned();
    stream.abort();
    let padding = "x".repeat(61_000);
    for number in 0..ADDED {
        let data = format!("{number} {padding}");
        publish(server.addr, json!({ "topic": added, "data": data })).await;
    }
    let mut stream = Stream::resume(server.addr, "topic=a", &id).await;
    let before = server.metric("fanfare_events_delivered_total").await;
    let client = stream.connected["clientId"].as_str().expect("a client id");
    let path = format!("/events/streams/{client}/topics");
    let change = json!({ "add": [added] }).to_string();
    let json_type = [("Content-Type", "application/json")];
    let answer = request(server.addr, "POST", &path, &json_type, change.as_bytes()).await;
    assert_eq!(answer.status, 200, "answered with the first page: {}", answer.text());
    // Each publish is a turn of the partition: without the client's reading, no further page comes.
    for _ in 0..300 {
        publish(server.addr, json!({ "topic": added, "data": "live" })).await;
    }
    assert_eq!(server.metric("fanfare_replays_in_flight").await, 1.0);
    let outbox = server.metric("fanfare_outbox_bytes").await;
    assert!(outbox <= 1024.0 * 1024.0, "{outbox} bytes in the outbox");
    let taken = server.metric("fanfare_events_delivered_total").await - before;
    assert!(taken * 61_000.0 < 8e6, "the sockets hold {taken} events");
    for number in 0..ADDED {
        let data = stream.next().await.data;
        assert_eq!(data.split_once(' ').expect("a number").0, number.to_string());
    }
    assert_eq!(stream.take_data(300).await, vec!["live"; 300]);
    publish(server.addr, json!({ "topic": added, "data": "last" })).await;
    assert_eq!(stream.next().await.data, "last");
    assert_eq!(server.metric("fanfare_replays_in_flight").await, 0.0);
}
