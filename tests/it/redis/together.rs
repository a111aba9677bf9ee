//! Three instances and one Redis act as one hub.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{expect_gap, publish_text};
use crate::support::{
    Instances, RedisServer, Stream,
    http::{get, publish},
    redis::Options,
    until,
    wait::DEADLINE,
};

/// Spread over most of the 16 partitions.
const TOPIC_COUNT: usize = 30;

async fn three(settings: &[(&str, &str)]) -> (RedisServer, Instances) {
    let redis = RedisServer::start(Options::default()).await;
    let instances = Instances::start(&[redis.url(), redis.url(), redis.url()], settings).await;
    (redis, instances)
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_published_on_one_instance_reaches_streams_on_all_with_the_same_id() {
    let (_redis, instances) = three(&[]).await;
    let mut streams = Vec::new();
    for addr in instances.addresses() {
        streams.push(Stream::subscribe(addr, "topic=news").await);
    }
    let mut ids = Vec::new();
    for (number, addr) in instances.addresses().into_iter().enumerate() {
        let answer = publish_text(addr, "news", &number.to_string()).await;
        assert_eq!(answer["sequence"], number + 1);
        ids.push(answer["eventId"].as_str().expect("an id").to_owned());
    }
    for stream in &mut streams {
        let events = stream.take(3).await;
        let data: Vec<&str> = events.iter().map(|event| event.data.as_str()).collect();
        let seen: Vec<&str> = events.iter().map(|event| event.id.as_str()).collect();
        assert_eq!(data, ["0", "1", "2"]);
        assert_eq!(seen, ids);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn type_and_key_and_odd_text_travel_between_instances_unharmed() {
    let (_redis, instances) = three(&[]).await;
    let mut stream = Stream::subscribe(instances.addr(1), "topic=odd&batch=json").await;
    let data = "two\nlines, Grüße, 世界 \u{1f980}, \u{2028}, \"quoted\", \\, \u{1b}";
    let text = json!({ "topic": "odd", "event": "note", "key": "k 1", "data": data });
    let object = json!({ "topic": "odd", "data": { "z": 1.50, "a": [null, true] } });
    publish(instances.addr(0), json!([text, object])).await;
    let mut events = Vec::new();
    while events.len() < 2 {
        let batch = stream.next().await;
        assert_eq!(batch.event, "batch");
        events.extend(batch.json().as_array().expect("an array").clone());
    }
    assert_eq!(
        (&events[0]["event"], &events[0]["key"], &events[0]["data"]),
        (&json!("note"), &json!("k 1"), &json!(data))
    );
    assert_eq!(events[1]["data"], json!({ "z": 1.5, "a": [null, true] }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patterns_match_what_other_instances_publish() {
    let (_redis, instances) = three(&[]).await;
    let mut streams = Vec::new();
    for addr in instances.addresses() {
        for query in ["topic=shop:*:price", "topic=shop:**", "topics=shop:*:price,shop:1:price"] {
            streams.push(Stream::subscribe(addr, query).await);
        }
    }
    let mut wanted = BTreeSet::new();
    for (number, addr) in instances.addresses().into_iter().cycle().take(30).enumerate() {
        publish_text(addr, &format!("shop:{number}:price"), &number.to_string()).await;
        publish_text(addr, &format!("other:{number}:price"), "unwanted").await;
        wanted.insert(number.to_string());
    }
    for stream in &mut streams {
        let data = stream.take_data(30).await;
        assert_eq!(data.len(), 30);
        assert_eq!(data.into_iter().collect::<BTreeSet<String>>(), wanted);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_of_one_instance_works_on_the_others() {
    let (_redis, instances) = three(&[]).await;
    let round = |round: usize| -> Value {
        let topic = |topic: usize| json!({ "topic": format!("m:{topic}"), "data": [topic, round] });
        (0..TOPIC_COUNT).map(topic).collect()
    };
    for query in ["topic=m:*", "topics=m:3,m:4,m:5,m:6"] {
        let count = if query.contains('*') { TOPIC_COUNT } else { 4 };
        let mut stream = Stream::subscribe(instances.addr(0), query).await;
        publish(instances.addr(1), round(0)).await;
        let mut events = stream.take(count).await;
        // Each event's id is the cursor of a client cut right behind this event.
        for cut in [0, count / 2, count - 1] {
            let mut again = Stream::resume(instances.addr(1), query, &events[cut].id).await;
            assert_eq!(again.connected["resumed"], true);
            assert_eq!(again.take(count - cut - 1).await.len(), count - cut - 1);
        }
        let id = stream.last_id().to_owned();
        stream.abort();
        publish(instances.addr(0), round(1)).await;
        publish(instances.addr(2), round(2)).await;
        let mut stream = Stream::resume(instances.addr(2), query, &id).await;
        assert_eq!(stream.connected["resumed"], true);
        events.extend(stream.take(2 * count).await);
        publish(instances.addr(0), round(3)).await;
        events.extend(stream.take(count).await);
        let seen: BTreeSet<String> = events.iter().map(|event| event.data.clone()).collect();
        assert_eq!(seen.len(), 4 * count, "each once");
        // In order within each topic.
        let mut newest = vec![0; TOPIC_COUNT];
        for event in &events {
            let [topic, round] = serde_json::from_str::<[usize; 2]>(&event.data).expect("numbers");
            assert_eq!(round, newest[topic], "topic {topic}");
            newest[topic] += 1;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_id_on_several_instances_is_delivered_once_and_answered_the_same() {
    let (_redis, instances) = three(&[]).await;
    let mut stream = Stream::subscribe(instances.addr(2), "topic=orders").await;
    for number in 0..20 {
        let id = format!("order {number}");
        let event = json!({ "topic": "orders", "data": number, "id": id });
        // Concurrently on all instances, then once more.
        let addresses = instances.addresses();
        let mut answers =
            join_all(addresses.iter().map(|addr| publish(*addr, event.clone()))).await;
        answers.push(publish(instances.addr(number % 3), event).await);
        for answer in &answers {
            assert_eq!(answer["sequence"], answers[0]["sequence"]);
            assert_eq!(answer["eventId"], answers[0]["eventId"]);
        }
    }
    let same_id = json!({ "topic": "orders:other", "data": "of its own", "id": "order 1" });
    assert_eq!(publish(instances.addr(0), same_id).await["success"], true);
    publish_text(instances.addr(0), "orders", "20").await;
    assert_eq!(stream.take_data(21).await, numbers(0..21));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_instances_see_one_order_of_what_all_publish_at_once() {
    let (_redis, instances) = three(&[]).await;
    let mut streams = Vec::new();
    for addr in instances.addresses() {
        streams.push(Stream::subscribe(addr, "topic=race").await);
    }
    let batch = |instance: usize| -> Value {
        (0..200).map(|number| json!({ "topic": "race", "data": [instance, number] })).collect()
    };
    let addresses = instances.addresses();
    let publishes = addresses.iter().enumerate();
    let answers = join_all(publishes.map(|(index, addr)| publish(*addr, batch(index)))).await;
    let mut sequences: Vec<u64> = answers
        .iter()
        .flat_map(|answer| answer.as_array().expect("an array"))
        .map(|answer| answer["sequence"].as_u64().expect("a number"))
        .collect();
    sequences.sort_unstable();
    assert_eq!(sequences, (1..=600).collect::<Vec<u64>>());
    let first = streams[0].take(600).await;
    for stream in &mut streams[1..] {
        assert_eq!(stream.take(600).await, first);
    }
    for instance in 0..3 {
        let of_instance = first.iter().filter(|event| event.json()[0] == instance);
        let order: Vec<u64> = of_instance.filter_map(|event| event.json()[1].as_u64()).collect();
        assert_eq!(order, (0..200).collect::<Vec<u64>>(), "of instance {instance}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_instance_replays_what_was_published_before_it_was_there() {
    let (redis, mut instances) = three(&[]).await;
    for number in 0..10 {
        publish_text(instances.addr(number % 3), "past", &number.to_string()).await;
    }
    instances.servers.push(Instances::spawn(&redis.url(), &[]).await);
    instances.until_ready().await;
    for query in ["topic=past", "topic=*"] {
        let query = format!("{query}&last_event_id=earliest");
        let mut stream = Stream::subscribe(instances.addr(3), &query).await;
        assert_eq!(stream.take_data(10).await, numbers(0..10));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_holds_the_newest_of_each_key_on_every_instance() {
    let (_redis, instances) = three(&[("delivery.conflate", "latest-by-key")]).await;
    for number in 0..12 {
        let key = format!("k{}", number % 3);
        let event = json!({ "topic": "prices", "key": key, "data": number });
        publish(instances.addr(number % 2), event).await;
    }
    for addr in instances.addresses() {
        let mut stream = Stream::subscribe(addr, "topic=prices&snapshot=true").await;
        assert_eq!(stream.take_data(3).await, ["9", "10", "11"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_history_no_longer_reaches_back_every_instance_says_so() {
    let (_redis, instances) = three(&[("history.events", "5")]).await;
    let first = publish_text(instances.addr(0), "short", "0").await;
    for number in 1..20 {
        publish_text(instances.addr(number % 3), "short", &number.to_string()).await;
    }
    let id = first["eventId"].as_str().expect("an id");
    for addr in instances.addresses() {
        let mut stream = Stream::resume(addr, "topic=short", id).await;
        assert_eq!(stream.connected["resumed"], false);
        expect_gap(&mut stream, "history").await;
        assert_eq!(stream.take_data(5).await, numbers(15..20));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_tells_its_streams_and_instances_and_its_last_sequence() {
    let (_redis, instances) = three(&[]).await;
    let ask = async |addr| get(addr, "/events/topics/room:1").await.json();
    let mut streams = Vec::new();
    for index in [0, 0, 1] {
        streams.push(Stream::subscribe(instances.addr(index), "topic=room:1").await);
    }
    let last = publish_text(instances.addr(2), "room:1", "hello").await["sequence"].clone();
    for addr in instances.addresses() {
        until(DEADLINE, "all streams are counted", async || {
            let told = ask(addr).await;
            assert_eq!(told["topic"], "room:1");
            told["subscribers"] == 3 && told["instances"] == 2 && told["sequence"] == last
        })
        .await;
    }
    streams.truncate(2);
    until(DEADLINE, "an instance without streams is not counted", async || {
        let told = ask(instances.addr(2)).await;
        told["subscribers"] == 2 && told["instances"] == 1
    })
    .await;
}
