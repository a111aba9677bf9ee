//! Long replays: bounded memory, and every event once.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{
    Server, Stream, heavy,
    http::{Response, publish, request},
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

/// A client of topic `a` and a topic of another partition comes back without the latter, after
/// `count` events of 61 kB there. Returns its stream and this topic.
async fn return_without_a_topic(server: &Server, count: usize) -> (Stream, String) {
    let first = partition_of(server, "a").await;
    let mut left = "b0".to_owned();
    for number in 1.. {
        if partition_of(server, &left).await != first {
            break;
        }
        left = format!("b{number}");
    }
    let mut stream = Stream::subscribe(server.addr, &format!("topics=a,{left}")).await;
    publish(server.addr, json!({ "topic": left, "data": "seen" })).await;
    assert_eq!(stream.next().await.data, "seen");
    let id = stream.last_id().to_owned();
    stream.abort();
    let padding = "x".repeat(PADDING_BYTES);
    for number in 0..count {
        let data = format!("{number} {padding}");
        publish(server.addr, json!({ "topic": left, "data": data })).await;
    }
    (Stream::resume(server.addr, "topic=a", &id).await, left)
}

const PADDING_BYTES: usize = 61_000;

async fn add(server: &Server, stream: &Stream, topic: &str) -> Response {
    let client = stream.connected["clientId"].as_str().expect("a client id");
    let path = format!("/events/streams/{client}/topics");
    let change = json!({ "add": [topic] }).to_string();
    let json_type = [("Content-Type", "application/json")];
    request(server.addr, "POST", &path, &json_type, change.as_bytes()).await
}

async fn take_numbers(stream: &mut Stream, count: usize) {
    for number in 0..count {
        let data = stream.next().await.data;
        assert_eq!(data.split_once(' ').expect("a number").0, number.to_string());
    }
}

/// 64 MiB of missed events of an added topic, and the client does not read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_unread_replay_of_an_added_topic_holds_a_page() {
    const ADDED: usize = 1100;
    let _heavy = heavy().await;
    let server = Server::with_config("history.events = 2000\nhub.partitions = 2").await;
    let (mut stream, added) = return_without_a_topic(&server, ADDED).await;
    let before = server.metric("fanfare_events_delivered_total").await;
    let answer = add(&server, &stream, &added).await;
    assert_eq!(answer.status, 200, "answered with the first page: {}", answer.text());
    // Each publish is a turn of the partition: without the client's reading, no further page comes.
    for _ in 0..300 {
        publish(server.addr, json!({ "topic": added, "data": "live" })).await;
    }
    assert_eq!(server.metric("fanfare_replays_in_flight").await, 1.0);
    let outbox = server.metric("fanfare_outbox_bytes").await;
    assert!(outbox <= 1024.0 * 1024.0, "{outbox} bytes in the outbox");
    let taken = server.metric("fanfare_events_delivered_total").await - before;
    assert!(taken * (PADDING_BYTES as f64) < 8e6, "the sockets hold {taken} events");
    take_numbers(&mut stream, ADDED).await;
    assert_eq!(stream.take_data(300).await, vec!["live"; 300]);
    publish(server.addr, json!({ "topic": added, "data": "last" })).await;
    assert_eq!(stream.next().await.data, "last");
    assert_eq!(server.metric("fanfare_replays_in_flight").await, 0.0);
}

/// Changes wait for the end of the replay. Their callers give up before, and the changes stay.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_waiting_for_an_unread_replay_are_bounded() {
    const ADDED: usize = 200;
    let server = Server::with_config("hub.partitions = 2").await;
    let (mut stream, added) = return_without_a_topic(&server, ADDED).await;
    assert_eq!(add(&server, &stream, &added).await.status, 200);
    let codes = async |names: std::ops::Range<usize>| {
        let names: Vec<String> = names.map(|number| format!("c:{number}")).collect();
        let answers = join_all(names.iter().map(|name| add(&server, &stream, name))).await;
        let count = |code| answers.iter().filter(|answer| answer.code() == code).count();
        (count("unconfirmed"), count("at_capacity"))
    };
    assert_eq!(codes(0..40).await, (16, 24));
    // The callers of the waiting changes are gone, and leave no room.
    assert_eq!(codes(40..50).await, (0, 10));
    take_numbers(&mut stream, ADDED).await;
    until(DEADLINE, "the waiting changes are done", async || {
        let stats = server.stats().await;
        stats["subscriptions"] == json!(2 + 16)
    })
    .await;
    assert_eq!(add(&server, &stream, "last").await.status, 200);
}
