//! The times of delivery, conflation, limits, and drops of slow consumers.
//!
//! Tests with a tick that must not pass use a tick of one hour. The drain at the end sends the
//! waiting events.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};
use tokio::{net::TcpSocket, time::Instant};

use super::Server;
use crate::support::{Event, Stream, until, wait::DEADLINE};

/// Publishes one event per number to one topic, in one request.
async fn publish_numbers(server: &Server, topic: &str, numbers: std::ops::Range<usize>) {
    let events: Vec<Value> =
        numbers.map(|number| json!({"topic": topic, "data": number})).collect();
    server.publish(Value::from(events)).await;
}

async fn publish_keyed(server: &Server, topic: &str, events: &[(&str, u32)]) {
    let events: Vec<Value> = events
        .iter()
        .map(|(key, data)| json!({"topic": topic, "key": key, "data": data}))
        .collect();
    server.publish(Value::from(events)).await;
}

fn data(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.data.as_str()).collect()
}

/// Waits until the server has counted this many deliveries, and no more. A client may have an event before its worker has
/// counted it.
async fn assert_delivered(server: &Server, count: u64, why: &str) {
    let delivered = async || server.stats().await["delivered"].as_u64().expect("a number");
    until(DEADLINE, why, async || delivered().await >= count).await;
    assert_eq!(delivered().await, count, "{why}");
}

/// Ends the server. Returns the stream's events before its `shutdown`.
async fn drained(server: &Server, stream: &mut Stream) -> Vec<Event> {
    server.terminate();
    let mut events = stream.rest().await;
    assert!(stream.is_ended_cleanly());
    let shutdown = events.pop().expect("a shutdown");
    assert_eq!(shutdown.event, "shutdown");
    assert_eq!(shutdown.json()["reason"], "drain");
    events
}

#[tokio::test]
async fn events_of_a_tick_leave_together_in_one_write() {
    let server = Server::with_config("[delivery]\nflush = \"tick\"\ntick = \"1h\"").await;
    let mut stream = Stream::subscribe(server.addr, "topics=a,b,c,d,e").await;
    let writes = stream.chunk_count();
    for number in 0..10 {
        for topic in ["a", "b", "c", "d", "e"] {
            publish_numbers(&server, topic, number..number + 1).await;
        }
    }
    server.terminate();
    let events = stream.take(50).await;
    assert!(events.iter().all(|event| event.event == "message"));
    assert_eq!(stream.next().await.event, "shutdown");
    // One write for all events. The end of a write is visible only at the start of the next.
    assert!(stream.chunk_count() - writes <= 1 + 1, "{}", stream.chunk_count() - writes);
}

#[tokio::test]
async fn a_tick_ends_by_itself() {
    let server = Server::with_config("[delivery]\nflush = \"tick\"\ntick = \"300ms\"").await;
    let mut stream = Stream::subscribe(server.addr, "topics=a,b").await;
    let start = Instant::now();
    for number in 0..4 {
        publish_numbers(&server, "a", number..number + 1).await;
        assert_eq!(stream.next().await.data, number.to_string());
    }
    // From the second request on, each event waited a whole tick.
    assert!(start.elapsed() >= Duration::from_millis(3 * 300 - 50), "{:?}", start.elapsed());
}

#[tokio::test]
async fn immediate_events_do_not_wait_and_tick_events_do() {
    let server = Server::with_config(
        "[delivery]\nflush = \"tick\"\ntick = \"1h\"\n[[topics]]\npattern = \"now:**\"\nflush = \"immediate\"",
    )
    .await;
    let mut later = Stream::subscribe(server.addr, "topic=later:a").await;
    let mut now = Stream::subscribe(server.addr, "topic=now:a").await;
    publish_numbers(&server, "later:a", 0..3).await;
    publish_numbers(&server, "now:a", 0..3).await;
    assert_eq!(now.take_data(3).await, ["0", "1", "2"]);
    assert_delivered(&server, 3, "the others wait").await;
    let events = drained(&server, &mut later).await;
    assert_eq!(data(&events), ["0", "1", "2"]);
}

#[tokio::test]
async fn a_leading_event_leaves_at_once_if_its_topic_was_quiet() {
    let server = Server::with_config(
        "[delivery]\ntick = \"1h\"\n[[topics]]\npattern = \"now\"\nflush = \"immediate\"",
    )
    .await;
    let mut stream = Stream::subscribe(server.addr, "topic=a").await;
    let mut other = Stream::subscribe(server.addr, "topic=b").await;
    let mut now = Stream::subscribe(server.addr, "topic=now").await;
    publish_numbers(&server, "a", 0..1).await;
    assert_eq!(stream.next().await.data, "0");
    publish_numbers(&server, "a", 1..4).await;
    publish_numbers(&server, "b", 0..1).await;
    assert_eq!(other.next().await.data, "0", "one topic's tick is not another's");
    publish_numbers(&server, "now", 0..1).await;
    now.next().await;
    assert_delivered(&server, 3, "the rest waits for the tick").await;
    let events = drained(&server, &mut stream).await;
    assert_eq!(data(&events), ["1", "2", "3"]);
}

#[tokio::test]
async fn a_leading_topic_goes_on_at_its_ticks() {
    let server = Server::with_config("[delivery]\ntick = \"200ms\"").await;
    let mut stream = Stream::subscribe(server.addr, "topic=a").await;
    for number in 0..10 {
        publish_numbers(&server, "a", number * 3..number * 3 + 3).await;
        let expected: Vec<String> = (number * 3..number * 3 + 3).map(|n| n.to_string()).collect();
        assert_eq!(stream.take_data(3).await, expected);
    }
}

#[tokio::test]
async fn order_holds_over_topics_with_other_ticks_in_one_partition() {
    let server = Server::with_config(
        "[hub]\npartitions = 1\n[delivery]\nflush = \"tick\"\ntick = \"1h\"\n\
         [[topics]]\npattern = \"now:*\"\nflush = \"immediate\"\n\
         [[topics]]\npattern = \"soon:*\"\ntick = \"20ms\"",
    )
    .await;
    let mut all = Stream::subscribe(server.addr, "topic=**").await;
    let mut some = Stream::subscribe(server.addr, "topics=late:a,now:a").await;
    let mut expected = Vec::new();
    for number in 0..60 {
        let topic = ["late:a", "soon:a", "late:b", "now:a"][number % 4];
        publish_numbers(&server, topic, number..number + 1).await;
        expected.push(number.to_string());
    }
    assert_eq!(all.take_data(60).await, expected, "in sequence order");
    let expected: Vec<String> = (0..60)
        .filter(|number| number % 4 == 0 || number % 4 == 3)
        .map(|n| n.to_string())
        .collect();
    assert_eq!(some.take_data(30).await, expected);
    assert!(drained(&server, &mut all).await.is_empty(), "none twice");
}

#[tokio::test]
async fn without_conflation_all_events_of_a_tick_leave() {
    let server =
        Server::with_config("[delivery]\nflush = \"tick\"\ntick = \"1h\"\nconflate = \"none\"")
            .await;
    let mut stream = Stream::subscribe(server.addr, "topic=a").await;
    publish_keyed(&server, "a", &[("k", 1), ("k", 2), ("l", 3), ("k", 4)]).await;
    assert_eq!(data(&drained(&server, &mut stream).await), ["1", "2", "3", "4"]);
}

#[tokio::test]
async fn the_latest_of_a_tick_leaves_alone() {
    let server =
        Server::with_config("[delivery]\nflush = \"tick\"\ntick = \"1h\"\nconflate = \"latest\"")
            .await;
    let mut stream = Stream::subscribe(server.addr, "topics=a,b").await;
    publish_keyed(&server, "a", &[("k", 1), ("l", 2), ("k", 3)]).await;
    publish_keyed(&server, "b", &[("k", 4), ("k", 5)]).await;
    until(DEADLINE, "three are conflated", async || server.stats().await["conflated"] == 3).await;
    assert_eq!(server.metric("fanfare_events_conflated_total").await, 3.0);

    let mut late = Stream::subscribe(server.addr, "topics=a,b&last_event_id=earliest").await;
    let mut view = late.take_data(2).await;
    view.sort_unstable();
    assert_eq!(view, ["3", "5"], "history keeps the conflated view");

    let events = drained(&server, &mut stream).await;
    let mut left = data(&events);
    left.sort_unstable();
    assert_eq!(left, ["3", "5"]);
}

#[tokio::test]
async fn the_latest_of_each_key_leaves() {
    let server = Server::with_config(
        "[delivery]\nflush = \"tick\"\ntick = \"1h\"\nconflate = \"latest-by-key\"",
    )
    .await;
    let mut stream = Stream::subscribe(server.addr, "topic=a").await;
    publish_keyed(&server, "a", &[("k", 1), ("l", 2), ("k", 3), ("m", 4), ("l", 5)]).await;
    publish_numbers(&server, "a", 10..12).await;
    until(DEADLINE, "two are conflated", async || server.stats().await["conflated"] == 2).await;
    let events = drained(&server, &mut stream).await;
    assert_eq!(data(&events), ["3", "4", "5", "10", "11"], "events without a key all leave");
}

#[tokio::test]
async fn a_snapshot_is_the_newest_of_each_key() {
    let server = Server::with_config(
        "[[topics]]\npattern = \"price:**\"\nconflate = \"latest-by-key\"\n\
         [[topics]]\npattern = \"state:*\"\nconflate = \"latest\"",
    )
    .await;
    publish_keyed(&server, "price:x", &[("k", 1), ("l", 2), ("k", 3)]).await;
    publish_keyed(&server, "state:x", &[("k", 4), ("l", 5)]).await;
    publish_numbers(&server, "plain", 0..3).await;
    for query in ["topics=price:x,state:x,plain", "topics=price:*,state:*,plain", "topic=**"] {
        let mut stream = Stream::subscribe(server.addr, &format!("{query}&snapshot=true")).await;
        let mut view = stream.take_data(3).await;
        view.sort_unstable();
        assert_eq!(view, ["2", "3", "5"], "{query}");
    }
    let mut stream = Stream::subscribe(server.addr, "topic=price:x&snapshot=true").await;
    assert_eq!(stream.take_data(2).await, ["2", "3"]);
    assert_eq!(stream.next().await.event, "live");
    let id = stream.last_id().to_owned();
    publish_keyed(&server, "price:x", &[("l", 6)]).await;
    assert_eq!(stream.take_data(1).await, ["6"], "then live");
    let mut stream = Stream::resume(server.addr, "topic=price:x&snapshot=true", &id).await;
    assert_eq!(stream.take_data(1).await, ["6"], "the id wins: earlier events are not sent again");
    let mut stream = Stream::subscribe(server.addr, "topic=price:x").await;
    publish_keyed(&server, "price:x", &[("k", 7)]).await;
    assert_eq!(stream.take_data(1).await, ["7"], "not asked for, no snapshot");
}

#[tokio::test]
async fn superseded_events_are_no_gap_for_who_comes_back() {
    let server = Server::with_config("[delivery]\nconflate = \"latest-by-key\"").await;
    let mut stream = Stream::subscribe(server.addr, "topic=a").await;
    publish_keyed(&server, "a", &[("k", 1)]).await;
    stream.next().await;
    let id = stream.last_id().to_owned();
    drop(stream);
    publish_keyed(&server, "a", &[("k", 2), ("l", 3), ("k", 4), ("k", 5)]).await;
    let mut stream = Stream::resume(server.addr, "topic=a", &id).await;
    assert_eq!(stream.connected["resumed"], true);
    assert_eq!(stream.take_data(2).await, ["3", "5"]);
}

#[tokio::test]
async fn within_the_rate_events_wait_and_none_is_lost() {
    let server = Server::with_config(
        "[[topics]]\npattern = \"a\"\nflush = \"immediate\"\nrate = { events_per_second = 50, burst = 5 }",
    )
    .await;
    let mut stream = Stream::subscribe(server.addr, "topic=a").await;
    let start = Instant::now();
    publish_numbers(&server, "a", 0..45).await;
    let expected: Vec<String> = (0..45).map(|number| number.to_string()).collect();
    assert_eq!(stream.take_data(45).await, expected);
    // 5 at once, 40 more at 50 a second.
    assert!(start.elapsed() >= Duration::from_millis(750), "{:?}", start.elapsed());
    assert_eq!(server.metric("fanfare_events_dropped_total").await, 0.0);
}

#[tokio::test]
async fn over_the_rate_events_are_dropped_with_a_gap() {
    let server = Server::with_config(
        "[outbox]\nmax_bytes = \"4KiB\"\n\
         [[topics]]\npattern = \"a\"\nflush = \"immediate\"\nrate = { events_per_second = 40, burst = 5 }",
    )
    .await;
    let mut limited = Stream::subscribe(server.addr, "topic=a").await;
    let filler = "x".repeat(100);
    let events: Vec<Value> =
        (0..400).map(|number| json!({"topic": "a", "data": [number, filler]})).collect();
    server.publish(Value::from(events)).await;
    let (received, gaps) = read_to(&mut limited, 399, "rate").await;
    assert!(gaps > 0);
    let dropped = server.metric("fanfare_events_dropped_total{reason=\"rate\"}").await;
    assert_eq!(received as f64 + dropped, 400.0, "each came, or was counted as dropped");
    assert_eq!(server.stats().await["dropped"]["rate"], dropped as u64);
}

#[tokio::test]
async fn over_the_rate_conflated_events_are_superseded_without_a_gap() {
    let server = Server::with_config(
        "[[topics]]\npattern = \"a\"\nflush = \"immediate\"\nconflate = \"latest-by-key\"\n\
         rate = { events_per_second = 5, burst = 1 }",
    )
    .await;
    let mut stream = Stream::subscribe(server.addr, "topic=a").await;
    for number in 0..50 {
        publish_keyed(&server, "a", &[(["k", "l"][number as usize % 2], number)]).await;
    }
    let mut last = BTreeMap::new();
    while last.get(&0) != Some(&48) || last.get(&1) != Some(&49) {
        let event = stream.next().await;
        assert_eq!(event.event, "message", "{event:?}");
        let number: u32 = event.data.parse().expect("a number");
        let before = last.insert(number % 2, number);
        assert!(before < Some(number), "in order");
    }
}

#[tokio::test]
async fn the_rate_of_a_stream_is_its_own() {
    let server = Server::with_config(
        "[stream]\nrate = { events_per_second = 20, burst = 5 }\n[delivery]\nflush = \"immediate\"",
    )
    .await;
    let mut first = Stream::subscribe(server.addr, "topic=a").await;
    let mut second = Stream::subscribe(server.addr, "topic=b").await;
    publish_numbers(&server, "a", 0..30).await;
    publish_numbers(&server, "b", 0..5).await;
    tokio::select! {
        biased;
        _ = second.take_data(5) => {}
        _ = first.take_data(30) => panic!("the first must wait for more than a second"),
    }
}

/// Reads events with the data `[number, …]` through number `last`. Holes are allowed only behind
/// gaps of this reason. Returns the numbers of events and of gaps.
async fn read_to(stream: &mut Stream, last: u64, reason: &str) -> (usize, usize) {
    let (mut received, mut gaps) = (0, 0);
    let mut next = 0;
    let mut may_skip = false;
    loop {
        let event = stream.next().await;
        if event.event == "gap" {
            let gap = event.json();
            assert_eq!(gap["reason"], reason);
            assert!(gap["partitions"].as_array().is_some_and(|list| !list.is_empty()), "{gap}");
            gaps += 1;
            may_skip = true;
            continue;
        }
        assert_eq!(event.event, "message", "{}", event.event);
        let number = event.json()[0].as_u64().expect("a number");
        assert!(number == next || may_skip && number > next, "{number} instead of {next}");
        (next, may_skip) = (number + 1, false);
        received += 1;
        if number == last {
            return (received, gaps);
        }
    }
}

/// A stream with small socket buffers at the client.
async fn small_stream(server: &Server, query: &str) -> Stream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    let socket = socket.connect(server.addr).await.expect("the server accepts");
    let path = format!("/events/stream?{query}");
    let mut stream = Stream::request_on(socket, "GET", &path, &[], b"").await;
    stream.read_connected().await;
    stream
}

/// Publishes large events until the condition is true. Returns their number.
async fn publish_until(server: &Server, condition: impl AsyncFn() -> bool) -> u64 {
    let filler = "x".repeat(60_000);
    let mut count = 0;
    while !condition().await {
        assert!(count < 2000, "120 MB, and nobody minds");
        let events: Vec<Value> = (count..count + 5)
            .map(|number| json!({"topic": "a", "data": [number, filler]}))
            .collect();
        server.publish(Value::from(events)).await;
        count += 5;
    }
    count
}

#[tokio::test]
async fn a_slow_consumer_may_lose_the_oldest_with_a_gap() {
    let server = Server::with_config(
        "[outbox]\nmax_bytes = \"128KiB\"\nslow_consumer = \"drop-oldest\"\n[delivery]\nflush = \"immediate\"",
    )
    .await;
    let mut slow = small_stream(&server, "topic=a").await;
    let dropped = async || server.metric("fanfare_events_dropped_total{reason=\"slow\"}").await;
    let published = publish_until(&server, async || dropped().await >= 10.0).await;
    let (received, gaps) = read_to(&mut slow, published - 1, "slow").await;
    assert!(gaps > 0);
    assert_eq!(
        received as f64 + dropped().await,
        published as f64,
        "each came, or was counted as dropped"
    );
    // The stream continues live, without further holes.
    server.publish(json!({"topic": "a", "data": [published, "live"]})).await;
    assert_eq!(slow.next().await.json()[1], "live");
}

#[tokio::test]
async fn a_slow_consumer_is_disconnected_and_resumes_without_loss() {
    let server =
        Server::with_config("[outbox]\nmax_bytes = \"128KiB\"\n[delivery]\nflush = \"immediate\"")
            .await;
    let mut slow = small_stream(&server, "topic=a").await;
    let mut fast = Stream::subscribe(server.addr, "topic=b").await;
    let closed = "fanfare_connections_closed_total{reason=\"slow\"}";
    let published = publish_until(&server, async || server.metric(closed).await > 0.0).await;
    server.publish(json!({"topic": "b", "data": "not delayed"})).await;
    assert_eq!(fast.next().await.data, "not delayed");

    let mut events = slow.rest().await;
    let shutdown = events.pop().expect("a shutdown");
    assert_eq!((shutdown.event.as_str(), &shutdown.json()["reason"]), ("shutdown", &json!("slow")));
    let id = slow.last_id().to_owned();
    let seen = events.len() as u64;
    assert!(seen < published, "it was too slow");
    let mut stream = Stream::resume(server.addr, "topic=a", &id).await;
    assert_eq!(stream.connected["resumed"], true);
    for number in seen..published {
        assert_eq!(stream.next().await.json()[0], number, "from the cut on");
    }
    for (number, event) in events.iter().enumerate() {
        assert_eq!(event.json()[0], number);
    }
}

#[tokio::test]
async fn a_stream_ends_at_its_maximum_lifetime_and_resumes() {
    let server =
        Server::with_config("[stream]\nmax_lifetime = \"300ms\"\nmax_lifetime_jitter = \"200ms\"")
            .await;
    let mut stream = Stream::subscribe(server.addr, "topic=a").await;
    let start = Instant::now();
    publish_numbers(&server, "a", 0..3).await;
    let mut events = stream.rest().await;
    assert!(stream.is_ended_cleanly());
    assert!(start.elapsed() >= Duration::from_millis(250), "{:?}", start.elapsed());
    let shutdown = events.pop().expect("a shutdown");
    assert_eq!(shutdown.event, "shutdown");
    assert_eq!(shutdown.json()["reason"], "lifetime");
    assert!(shutdown.json()["reconnectMs"].is_u64());
    assert_eq!(data(&events), ["0", "1", "2"]);
    let id = stream.last_id().to_owned();
    publish_numbers(&server, "a", 3..5).await;
    let mut stream = Stream::resume(server.addr, "topic=a", &id).await;
    assert_eq!(stream.take_data(2).await, ["3", "4"]);
    drop(stream);
    server.settled().await;
    assert_eq!(server.metric("fanfare_connections_closed_total{reason=\"lifetime\"}").await, 1.0);
}

#[tokio::test]
async fn a_client_that_is_gone_is_forgotten_at_once() {
    let server = Server::start(&["--no-demo"]).await;
    for is_reset in [false, true] {
        let mut streams = Vec::new();
        for _ in 0..20 {
            streams.push(Stream::subscribe(server.addr, "topics=a,b:*").await);
        }
        assert_eq!(server.stats().await["connections"], 20);
        for stream in streams {
            if is_reset { stream.abort() } else { stream.close().await }
        }
        // Far below the heartbeat of 15 s.
        until(Duration::from_secs(3), "all are forgotten", async || {
            server.stats().await["connections"] == 0
        })
        .await;
        server.settled().await;
    }
}

#[tokio::test]
async fn the_newest_event_outlives_a_tick_that_is_larger_than_the_outbox() {
    let server = Server::with_config(
        "[outbox]\nmax_bytes = \"128KiB\"\nslow_consumer = \"drop-oldest\"\n[delivery]\nflush = \"tick\"\ntick = \"1s\"",
    )
    .await;
    let _slow = small_stream(&server, "topic=a").await;
    let dropped = async || server.metric("fanfare_events_dropped_total{reason=\"slow\"}").await;
    let mut published = publish_until(&server, async || dropped().await > 0.0).await;
    let filler = "x".repeat(60_000);
    for _ in 0..4 {
        let tick: Vec<Value> = (0..5).map(|_| json!({"topic": "a", "data": filler})).collect();
        server.publish(Value::from(tick)).await;
        published += 5;
        until(DEADLINE, "all have left their topic", async || {
            server.metric("fanfare_batch_events_sum").await >= published as f64
        })
        .await;
        // The client does not read, so its outbox must not be empty: 0 would mean the newest events
        // were dropped too.
        assert_ne!(server.metric("fanfare_outbox_bytes").await, 0.0);
    }
}

#[tokio::test]
async fn news_of_very_many_topics_in_one_tick_reach_a_stream_whole() {
    const TOPICS: usize = 10_500;
    let server = Server::with_config("[delivery]\nflush = \"tick\"\ntick = \"1s\"").await;
    let mut stream = Stream::subscribe(server.addr, "topic=**").await;
    let events: Vec<Value> =
        (0..TOPICS).map(|number| json!({"topic": format!("t:{number}"), "data": number})).collect();
    server.publish(Value::from(events)).await;
    let events = stream.take(TOPICS).await;
    let numbers: std::collections::BTreeSet<u64> =
        events.iter().map(|event| event.json().as_u64().expect("a number")).collect();
    assert_eq!(numbers.len(), TOPICS);
}

#[tokio::test]
async fn what_a_client_has_not_read_is_told_and_not_buffered_elsewhere() {
    const BYTES: usize = 60_000;
    // More than the kernel's buffers of a connection (some 10 MB), less than the limit of a body.
    const EVENTS: usize = 260;
    let server = Server::with_config("[outbox]\nmax_bytes = \"64MiB\"").await;
    let stalled = Stream::subscribe(server.addr, "topic=**").await;
    let filler = "x".repeat(BYTES);
    let events: Vec<Value> =
        (0..EVENTS).map(|number| json!({"topic": format!("t:{number}"), "data": filler})).collect();
    server.publish(Value::from(events)).await;
    until(DEADLINE, "the outbox is filled", async || {
        server.metric("fanfare_outbox_bytes").await > 1_000_000.0
    })
    .await;
    drop(stalled);
    server.settled().await;
}
