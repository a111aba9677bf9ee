//! `FLUSHALL`: one new epoch for the cluster, one gap for each stream, and then each event once.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use serde_json::{Value, json};

use super::{expect_gap, publish_text};
use crate::support::{
    Instances, RedisServer, Stream, http::try_publish, redis::Options, until, wait::DEADLINE,
};

/// Spread over most of the 16 partitions.
const TOPIC_COUNT: usize = 40;

/// The epoch in an id: its first part.
fn epoch(id: &str) -> &str {
    id.split(['.', '~']).next().unwrap_or_default()
}

/// Waits until all partitions in Redis have the epochs of one flush.
async fn until_all_begun(redis: &RedisServer) {
    until(DEADLINE, "all partitions have one epoch", async || {
        let mut epochs = BTreeSet::new();
        for partition in 0..16 {
            let key = format!("fanfare:{{{partition}}}:epoch");
            let stored = redis.command(&["GET", &key]).await;
            epochs.insert(stored.split(' ').next().unwrap_or_default().to_owned());
        }
        epochs.len() == 1 && !epochs.contains("")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_flush_each_stream_gets_one_gap_and_then_each_event_once() {
    let redis = RedisServer::start(Options::default()).await;
    let instances = Instances::start(&[redis.url(), redis.url()], &[]).await;
    let mut streams = Vec::new();
    for addr in instances.addresses() {
        for query in ["topic=life:a", "topic=life:*", "topics=life:a,other,another"] {
            streams.push((query, Stream::subscribe(addr, query).await));
        }
    }
    for number in 0..5 {
        publish_text(instances.addr(0), "life:a", &number.to_string()).await;
    }
    for (_, stream) in &mut streams {
        stream.take_data(5).await;
    }
    redis.command(&["FLUSHALL"]).await;
    let first = publish_text(instances.addr(0), "life:a", "first").await;
    // One stream after the other returns with the id of this event, again and again.
    let id = first["eventId"].as_str().expect("an id");
    let mut again = Stream::resume(instances.addr(1), "topic=life:a", id).await;
    until_all_begun(&redis).await;
    let second = publish_text(instances.addr(1), "life:a", "second").await;
    assert_eq!(epoch(id), epoch(second["eventId"].as_str().expect("an id")), "one new epoch");
    for (query, stream) in &mut streams {
        expect_gap(stream, "epoch").await;
        assert_eq!(stream.take_data(2).await, ["first", "second"], "{query}");
    }
    assert_eq!(again.connected["resumed"], true);
    assert_eq!(again.take_data(1).await, ["second"]);
    for (query, stream) in &streams {
        for addr in instances.addresses() {
            let mut again = Stream::resume(addr, query, stream.last_id()).await;
            assert_eq!(again.connected["resumed"], true, "{query}");
            publish_text(addr, "life:a", "probe").await;
            assert_eq!(again.take_data(1).await, ["probe"], "{query}");
        }
    }
}

/// Publishes numbers to all topics until it is stopped. Returns the ids of the answers, by number.
async fn publish_numbers(
    addr: std::net::SocketAddr,
    next: Arc<AtomicUsize>,
    is_over: Arc<AtomicBool>,
) -> BTreeMap<usize, String> {
    let mut ids = BTreeMap::new();
    while !is_over.load(Ordering::Relaxed) {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let topic = format!("load:{}", number % TOPIC_COUNT);
        let told = try_publish(addr, &json!({ "topic": topic, "data": number })).await;
        assert_eq!(told.status, 200, "{}", told.text());
        ids.insert(number, told.json()["eventId"].as_str().expect("an id").to_owned());
    }
    ids
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_flushes_under_load_are_two_epochs_and_two_gaps_and_no_event_twice() {
    let redis = RedisServer::start(Options::default()).await;
    let instances = Instances::start(&[redis.url(), redis.url(), redis.url()], &[]).await;
    let topics: Vec<String> = (0..TOPIC_COUNT).map(|topic| format!("load:{topic}")).collect();
    let queries = ["topic=load:7".to_owned(), "topic=load:*".into(), topics.join(",")];
    let queries = queries.map(|query| match query.contains('=') {
        true => query,
        false => format!("topics={query}"),
    });
    let mut streams = Vec::new();
    for addr in instances.addresses() {
        for query in &queries {
            streams.push(Stream::subscribe(addr, query).await);
        }
    }
    let (next, is_over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let publishers = instances.addresses().into_iter().flat_map(|addr| [addr, addr]);
    let publishers: Vec<_> = publishers
        .map(|addr| tokio::spawn(publish_numbers(addr, next.clone(), is_over.clone())))
        .collect();
    let until_published = async |count: usize| {
        let wanted = next.load(Ordering::Relaxed) + count;
        until(DEADLINE, "events are published", async || next.load(Ordering::Relaxed) > wanted)
            .await;
    };
    until_published(200).await;
    for _ in 0..2 {
        redis.command(&["FLUSHALL"]).await;
        until_published(200).await;
        until_all_begun(&redis).await;
        until_published(200).await;
    }
    is_over.store(true, Ordering::Relaxed);
    let mut ids = BTreeMap::new();
    for publisher in publishers {
        ids.extend(publisher.await.expect("it ends"));
    }
    let epochs: BTreeSet<&str> = ids.values().map(|id| epoch(id)).collect();
    assert_eq!(epochs.len(), 3, "the first epoch, and one for each flush: {epochs:?}");
    let last = publish_text(instances.addr(0), "load:7", "\"last\"").await;
    let newest = epoch(last["eventId"].as_str().expect("an id"));
    assert!(epochs.contains(newest), "{newest} {epochs:?}");
    // The events acknowledged after the last flush.
    let after: BTreeSet<usize> =
        ids.iter().filter(|(_, id)| epoch(id) == newest).map(|(number, _)| *number).collect();
    for (index, stream) in streams.iter_mut().enumerate() {
        let (mut gaps, mut seen) = (0, BTreeSet::new());
        loop {
            let event = stream.next().await;
            match event.json() {
                Value::Number(number) => {
                    let number = number.as_u64().expect("a number") as usize;
                    assert!(seen.insert(number), "stream {index}: {number} came twice");
                }
                Value::Object(gap) => {
                    assert_eq!((event.event.as_str(), &gap["reason"]), ("gap", &json!("epoch")));
                    gaps += 1;
                }
                _ => break,
            }
        }
        assert_eq!(gaps, 2, "stream {index}");
        // The last event is in one partition: events of the others may still be on their way.
        let wanted = after.iter().filter(|number| **number % TOPIC_COUNT == 7);
        let missing: Vec<_> = wanted.filter(|number| !seen.contains(number)).collect();
        assert!(missing.is_empty(), "stream {index} lost {missing:?}");
    }
}
