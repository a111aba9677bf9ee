//! Resume: nothing lost, nothing twice, or a `gap`.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::Server;
use crate::support::{Event, Stream, until, wait::DEADLINE};

/// Spread over most of the 16 partitions.
const TOPIC_COUNT: usize = 30;

async fn server() -> Server {
    Server::start(&["--no-demo"]).await
}

async fn publish_numbers(
    server: &Server,
    topic: &str,
    numbers: std::ops::Range<usize>,
) -> Vec<String> {
    let events: Vec<Value> =
        numbers.map(|number| json!({"topic": topic, "data": number.to_string()})).collect();
    let answers = server.publish(Value::from(events)).await;
    let ids = answers.as_array().expect("an array").iter();
    ids.map(|answer| answer["eventId"].as_str().expect("an id").to_owned()).collect()
}

fn strings(numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(|number| number.to_string()).collect()
}

/// Events of many topics, each `[topic, number]`. The numbers of a topic count from 0.
async fn publish_to_all(server: &Server, rounds: std::ops::Range<usize>) {
    let events: Vec<Value> = rounds
        .flat_map(|round| (0..TOPIC_COUNT).map(move |topic| (topic, round)))
        .map(|(topic, round)| json!({"topic": format!("m:{topic}"), "data": [topic, round]}))
        .collect();
    server.publish(Value::from(events)).await;
}

/// The numbers of each topic, in order of arrival.
fn by_topic(events: &[Event]) -> BTreeMap<u64, Vec<u64>> {
    let mut topics: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for event in events {
        assert_eq!(event.event, "message", "{event:?}");
        let json = event.json();
        let number = |index: usize| json[index].as_u64().expect("a number");
        topics.entry(number(0)).or_default().push(number(1));
    }
    topics
}

fn assert_whole(events: &[Event], rounds: u64) {
    let topics = by_topic(events);
    assert_eq!(topics.len(), TOPIC_COUNT);
    for (topic, numbers) in topics {
        assert_eq!(numbers, (0..rounds).collect::<Vec<u64>>(), "topic {topic}");
    }
}

fn gap(event: &Event) -> Value {
    assert_eq!(event.event, "gap", "{event:?}");
    event.json()
}

#[tokio::test]
async fn a_client_that_comes_back_gets_what_it_missed_by_header_and_by_query() {
    let server = server().await;
    let mut stream = Stream::subscribe(server.addr, "topic=a").await;
    publish_numbers(&server, "a", 0..3).await;
    assert_eq!(stream.take_data(3).await, strings(0..3));
    let id = stream.last_id().to_owned();
    stream.abort();
    publish_numbers(&server, "a", 3..10).await;

    for query in [format!("last_event_id={id}"), format!("lastEventId={id}")] {
        let mut stream = Stream::subscribe(server.addr, &format!("topic=a&{query}")).await;
        assert_eq!(stream.connected["resumed"], true);
        assert_eq!(stream.take_data(7).await, strings(3..10));
    }
    let mut stream = Stream::resume(server.addr, "topic=a", &id).await;
    assert_eq!(stream.connected["resumed"], true);
    assert_eq!(stream.take_data(7).await, strings(3..10));
    publish_numbers(&server, "a", 10..12).await;
    assert_eq!(stream.take_data(2).await, strings(10..12));
    assert_eq!(server.metric("fanfare_replays_total{result=\"complete\"}").await, 3.0);
}

#[tokio::test]
async fn the_header_wins_over_the_query() {
    let server = server().await;
    let ids = publish_numbers(&server, "a", 0..10).await;
    for query in [
        format!("last_event_id={}", ids[2]),
        "last_event_id=earliest".to_owned(),
        "last_event_id=garbage".to_owned(),
    ] {
        let mut stream = Stream::resume(server.addr, &format!("topic=a&{query}"), &ids[6]).await;
        assert_eq!(stream.take_data(3).await, strings(7..10), "{query}");
    }
}

#[tokio::test]
async fn a_stream_over_many_partitions_can_be_cut_after_any_event() {
    const ROUNDS: usize = 8;
    let server = server().await;
    for query in ["topic=m:*", "topic=m:**"] {
        let query = format!("{query}&last_event_id=earliest");
        if server.stats().await["published"] == 0 {
            publish_to_all(&server, 0..ROUNDS).await;
        }
        let mut whole = Stream::subscribe(server.addr, &query).await;
        let events = whole.take(ROUNDS * TOPIC_COUNT).await;
        assert_whole(&events, ROUNDS as u64);
        for cut in (0..events.len()).step_by(7) {
            let mut stream = Stream::resume(server.addr, &query, &events[cut].id).await;
            let rest = stream.take(events.len() - cut - 1).await;
            let all = [&events[..=cut], &rest].concat();
            assert_whole(&all, ROUNDS as u64);
        }
    }
}

#[tokio::test]
async fn live_streams_cut_again_and_again_lose_nothing() {
    const ROUNDS: usize = 40;
    let server = server().await;
    let topics: Vec<String> = (0..TOPIC_COUNT).map(|topic| format!("m:{topic}")).collect();
    let publish = async {
        for round in 0..ROUNDS {
            publish_to_all(&server, round..round + 1).await;
        }
    };
    let follow = async |query: String, step: usize| {
        let mut events: Vec<Event> = Vec::new();
        let mut stream =
            Stream::subscribe(server.addr, &format!("{query}&last_event_id=earliest")).await;
        while events.len() < ROUNDS * TOPIC_COUNT {
            let count = step.min(ROUNDS * TOPIC_COUNT - events.len());
            events.extend(stream.take(count).await);
            let id = stream.last_id().to_owned();
            stream.abort();
            stream = Stream::resume(server.addr, &query, &id).await;
            assert_eq!(stream.connected["resumed"], true);
        }
        assert_whole(&events, ROUNDS as u64);
    };
    let by_list = format!("topics={}", topics.join(","));
    tokio::join!(
        publish,
        follow("topic=m:*".to_owned(), 37),
        follow(by_list, 53),
        follow("topics=m:*,m:1,m:2,**".to_owned(), 101),
    );
    server.settled().await;
}

#[tokio::test]
async fn an_added_topic_comes_live_or_since_the_id() {
    let server = server().await;
    let mut stream = Stream::subscribe(server.addr, "topic=a").await;
    for topic in 0..20 {
        publish_numbers(&server, &format!("b:{topic}"), 0..2).await;
    }
    // Events of the id's own millisecond would come again.
    let published_at = Instant::now();
    until(DEADLINE, "a later millisecond", async || {
        published_at.elapsed() > Duration::from_millis(1)
    })
    .await;
    publish_numbers(&server, "a", 0..1).await;
    assert_eq!(stream.take_data(1).await, ["0"]);
    let id = stream.last_id().to_owned();
    drop(stream);
    publish_numbers(&server, "a", 1..4).await;
    let added: Vec<String> = (0..20).map(|topic| format!("b:{topic}")).collect();
    for topic in &added {
        publish_numbers(&server, topic, 2..4).await;
    }
    let query = format!("topics=a,{}", added.join(","));
    let mut stream = Stream::resume(server.addr, &query, &id).await;
    for topic in &added {
        publish_numbers(&server, topic, 4..5).await;
    }
    publish_numbers(&server, "a", 4..5).await;
    let (mut of_a, mut live) = (0, 0);
    while of_a < 4 || live < added.len() {
        let event = stream.next().await;
        assert!(["message", "gap"].contains(&event.event.as_str()), "{event:?}");
        // 1 to 3 may be of `a` or of an added topic. Events before the id never come.
        assert_ne!(event.data, "0");
        if event.data == "4" {
            live += 1;
        }
        of_a += usize::from(["1", "2", "3", "4"].contains(&event.data.as_str()));
    }
}

#[tokio::test]
async fn earliest_replays_all_of_history() {
    let server = server().await;
    publish_numbers(&server, "a", 0..50).await;
    let mut stream = Stream::subscribe(server.addr, "topic=a&last_event_id=earliest").await;
    assert_eq!(stream.connected["resumed"], false);
    assert_eq!(stream.take_data(50).await, strings(0..50));
    publish_numbers(&server, "a", 50..51).await;
    assert_eq!(stream.take_data(1).await, ["50"]);
    let mut stream = Stream::resume(server.addr, "topic=a", "earliest").await;
    assert_eq!(stream.take_data(51).await, strings(0..51));
}

#[tokio::test]
async fn the_id_of_a_publish_can_be_resumed_from() {
    let server = server().await;
    let ids = publish_numbers(&server, "a", 0..5).await;
    for (index, id) in ids.iter().enumerate() {
        let mut stream = Stream::resume(server.addr, "topic=a", id).await;
        publish_numbers(&server, "a", 5 + index..6 + index).await;
        assert_eq!(stream.take_data(5).await, strings(index + 1..index + 6));
    }
}

#[tokio::test]
async fn the_id_of_connected_can_be_resumed_from() {
    let server = server().await;
    publish_numbers(&server, "a", 0..3).await;
    for query in ["topic=a", "topic=*", "topics=a,b,c"] {
        let stream = Stream::subscribe(server.addr, query).await;
        let id = stream.last_id().to_owned();
        stream.abort();
        publish_numbers(&server, "a", 3..6).await;
        let mut stream = Stream::resume(server.addr, query, &id).await;
        assert_eq!(stream.take_data(3).await, strings(3..6), "{query}");
    }
}

#[tokio::test]
async fn past_the_events_of_a_topic_a_gap_and_all_that_is_left() {
    let server = Server::with_config("[history]\nevents = 10").await;
    let ids = publish_numbers(&server, "a", 0..2).await;
    publish_numbers(&server, "a", 2..32).await;
    let mut stream = Stream::resume(server.addr, "topic=a", &ids[0]).await;
    assert_eq!(stream.connected["resumed"], false);
    let gap = gap(&stream.next().await);
    assert_eq!(gap["reason"], "history");
    assert_eq!(gap["topics"], json!(["a"]));
    assert_eq!(gap["partitions"].as_array().map(Vec::len), Some(1));
    assert_eq!(stream.take_data(10).await, strings(22..32));
    publish_numbers(&server, "a", 32..33).await;
    assert_eq!(stream.take_data(1).await, ["32"]);
    assert_eq!(server.metric("fanfare_replays_total{result=\"gap\"}").await, 1.0);
    // The next resume after the gap is complete again.
    let id = stream.last_id().to_owned();
    let mut stream = Stream::resume(server.addr, "topic=a", &id).await;
    assert_eq!(stream.connected["resumed"], true);
    publish_numbers(&server, "a", 33..34).await;
    assert_eq!(stream.take_data(1).await, ["33"]);
}

#[tokio::test]
async fn a_gap_s_own_id_is_no_way_around_it() {
    let server = Server::with_config("[history]\nevents = 3").await;
    let ids = publish_numbers(&server, "a", 0..10).await;
    let mut stream = Stream::resume(server.addr, "topic=a", &ids[0]).await;
    let event = stream.next().await;
    gap(&event);
    // A client cut right behind the gap still gets all remaining events.
    let mut stream = Stream::resume(server.addr, "topic=a", &event.id).await;
    let mut data = Vec::new();
    while data.len() < 3 {
        let event = stream.next().await;
        if event.event != "gap" {
            data.push(event.data);
        }
    }
    assert_eq!(data, strings(7..10));
}

#[tokio::test]
async fn the_end_of_history_of_one_topic_is_no_gap_for_another() {
    let server = Server::with_config("[history]\nevents = 5\n[hub]\npartitions = 1").await;
    let ids = publish_numbers(&server, "quiet", 0..2).await;
    publish_numbers(&server, "busy", 0..500).await;
    let mut stream = Stream::resume(server.addr, "topic=quiet", &ids[0]).await;
    assert_eq!(stream.connected["resumed"], true);
    assert_eq!(stream.take_data(1).await, ["1"]);
}

#[tokio::test]
async fn past_the_byte_budget_a_gap_and_all_that_is_left() {
    let server =
        Server::with_config("[history]\nmax_bytes = \"64KiB\"\n[hub]\npartitions = 1").await;
    let ids = publish_numbers(&server, "a", 0..1).await;
    let filler = "x".repeat(1000);
    let events: Vec<Value> = (0..200)
        .map(|number| json!({"topic": "a", "data": format!("{number} {filler}")}))
        .collect();
    server.publish(Value::from(events)).await;
    let history_bytes = server.metric("fanfare_history_bytes").await;
    assert!((30_000.0..=65_536.0).contains(&history_bytes), "{history_bytes}");
    let mut stream = Stream::resume(server.addr, "topic=a", &ids[0]).await;
    assert_eq!(gap(&stream.next().await)["reason"], "history");
    let first = stream.next().await;
    let mut number: usize =
        first.data.split(' ').next().and_then(|n| n.parse().ok()).expect("a number");
    assert!(number > 100, "the newest are kept");
    while number < 199 {
        number += 1;
        assert!(stream.next().await.data.starts_with(&format!("{number} ")));
    }
}

#[tokio::test]
async fn past_the_time_to_live_there_is_a_gap() {
    let server = Server::with_config("[history]\nttl = \"200ms\"").await;
    let ids = publish_numbers(&server, "a", 0..5).await;
    until(Duration::from_secs(10), "history is empty", async || {
        server.metric("fanfare_history_bytes").await == 0.0
    })
    .await;
    let mut stream = Stream::resume(server.addr, "topic=a", &ids[0]).await;
    let gap = gap(&stream.next().await);
    assert_eq!((&gap["reason"], &gap["topics"]), (&json!("history"), &json!(["a"])));
    // A client at the newest event has missed nothing.
    let other = Stream::resume(server.addr, "topic=a", &ids[4]).await;
    assert_eq!(other.connected["resumed"], true);
    publish_numbers(&server, "a", 5..6).await;
    assert_eq!(stream.take_data(1).await, ["5"]);
}

#[tokio::test]
async fn a_restart_of_the_hub_is_a_gap_of_its_epoch() {
    let server = server().await;
    let mut stream = Stream::subscribe(server.addr, "topic=a").await;
    publish_numbers(&server, "a", 0..5).await;
    stream.take_data(5).await;
    let id = stream.last_id().to_owned();
    let server = server.restart().await;
    assert!(stream.rest().await.is_empty());
    assert!(!stream.is_ended_cleanly(), "the process was killed");
    publish_numbers(&server, "a", 100..103).await;
    let mut stream = Stream::resume(server.addr, "topic=a", &id).await;
    assert_eq!(stream.connected["resumed"], false);
    assert_eq!(gap(&stream.next().await)["reason"], "epoch");
    assert_eq!(stream.take_data(3).await, strings(100..103));
    publish_numbers(&server, "a", 103..104).await;
    assert_eq!(stream.take_data(1).await, ["103"]);
    let id = stream.last_id().to_owned();
    let stream = Stream::resume(server.addr, "topic=a", &id).await;
    assert_eq!(stream.connected["resumed"], true, "the new id is of the new epoch");
}

#[tokio::test]
async fn a_filtered_stream_resumes_over_what_it_does_not_want() {
    let server = server().await;
    let query = "topic=a&types=like";
    let mut stream = Stream::subscribe(server.addr, query).await;
    let publish = async |event: &str, number: u32| {
        server.publish(json!({"topic": "a", "event": event, "data": number})).await;
    };
    publish("like", 1).await;
    publish("view", 2).await;
    assert_eq!(stream.take_data(1).await, ["1"]);
    let id = stream.last_id().to_owned();
    drop(stream);
    publish("view", 3).await;
    publish("like", 4).await;
    let mut stream = Stream::resume(server.addr, query, &id).await;
    publish("view", 5).await;
    publish("like", 6).await;
    assert_eq!(stream.take_data(2).await, ["4", "6"]);
}

#[tokio::test]
async fn a_large_history_is_replayed_whole() {
    let server = Server::with_config("[history]\nevents = 20000").await;
    let ids = publish_numbers(&server, "a", 0..5000).await;
    publish_numbers(&server, "a", 5000..10_000).await;
    let mut stream = Stream::resume(server.addr, "topic=a", &ids[0]).await;
    let publish = publish_numbers(&server, "a", 10_000..10_500);
    let (data, _) = tokio::join!(stream.take_data(10_499), publish);
    assert_eq!(data, strings(1..10_500));
}

#[tokio::test]
async fn evicted_events_of_unwanted_types_are_no_gap() {
    let server = Server::with_config("[history]\nevents = 10").await;
    let mut stream = Stream::subscribe(server.addr, "topic=a&types=like").await;
    server.publish(json!({"topic": "a", "event": "like", "data": "wanted"})).await;
    assert_eq!(stream.take_data(1).await, ["wanted"]);
    let id = stream.last_id().to_owned();
    stream.close().await;
    let others: Vec<Value> =
        (0..50).map(|number| json!({"topic": "a", "event": "other", "data": number})).collect();
    server.publish(Value::from(others)).await;
    server.publish(json!({"topic": "a", "event": "like", "data": "missed"})).await;
    let mut back = Stream::resume(server.addr, "topic=a&types=like", &id).await;
    assert_eq!(back.take_data(1).await, ["missed"]);
    assert!(back.raw_text().contains("\"resumed\":true"));
    assert!(!back.raw_text().contains("event: gap"));
}
