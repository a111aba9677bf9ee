//! An instance subscribes in Redis only to topics of its streams, and once for all of them.

use std::time::Duration;

use serde_json::{Value, json};

use super::publish_text;
use crate::support::{
    Instances, RedisServer, Stream,
    crowd::{Crowd, Plan, Publisher},
    heavy,
    http::request,
    redis::Options,
    until,
};

/// The grace period of these tests, with time to act on it.
const DROPPED: Duration = Duration::from_secs(10);

const GRACE: (&str, &str) = ("redis.interest_grace", "1s");

/// The event channels with subscribers, without their prefix and partition.
async fn channels(redis: &RedisServer) -> Vec<String> {
    let mut all = redis.lines(&["PUBSUB", "CHANNELS"]).await;
    all.extend(redis.lines(&["PUBSUB", "SHARDCHANNELS"]).await);
    let of_events = all.iter().filter_map(|channel| {
        let (_, name) = channel.strip_prefix("fanfare:{")?.split_once("}:")?;
        (name == "all" || name.starts_with("topic:")).then(|| name.to_owned())
    });
    let mut channels: Vec<String> = of_events.collect();
    channels.sort_unstable();
    channels.dedup();
    channels
}

async fn until_channels(redis: &RedisServer, wanted: &[&str]) {
    let what = format!("the channels are {wanted:?}");
    until(DROPPED, &what, async || channels(redis).await == wanted).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_topics_that_somebody_listens_to_are_subscribed() {
    let redis = RedisServer::start(Options::default()).await;
    let instances = Instances::start(&[redis.url(), redis.url()], &[GRACE]).await;
    publish_text(instances.addr(0), "silent", "to nobody").await;
    assert_eq!(channels(&redis).await, [""; 0]);
    let first = Stream::subscribe(instances.addr(0), "topics=one,two").await;
    let second = Stream::subscribe(instances.addr(1), "topics=two,three").await;
    let of_topics = ["topic:one", "topic:three", "topic:two"];
    assert_eq!(channels(&redis).await, of_topics, "before `connected` is sent");
    drop(first);
    until_channels(&redis, &of_topics[1..]).await;
    drop(second);
    until_channels(&redis, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_channel_of_all_events_is_subscribed_only_while_a_pattern_is_wanted() {
    let redis = RedisServer::start(Options::default()).await;
    let instances = Instances::start(&[redis.url()], &[GRACE]).await;
    let mut single = Stream::subscribe(instances.addr(0), "topic=p:1").await;
    assert_eq!(channels(&redis).await, ["topic:p:1"]);
    let mut pattern = Stream::subscribe(instances.addr(0), "topic=p:*").await;
    assert!(channels(&redis).await.contains(&"all".to_owned()));
    publish_text(instances.addr(0), "p:1", "to both").await;
    for stream in [&mut single, &mut pattern] {
        assert_eq!(stream.take_data(1).await, ["to both"]);
    }
    drop(pattern);
    until_channels(&redis, &["topic:p:1"]).await;
    publish_text(instances.addr(0), "p:1", "to one").await;
    assert_eq!(single.take_data(1).await, ["to one"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_wanted_again_within_the_grace_misses_nothing() {
    let redis = RedisServer::start(Options::default()).await;
    let instances = Instances::start(&[redis.url(), redis.url()], &[GRACE]).await;
    let mut id = String::new();
    for round in 0..20 {
        let mut stream = match round {
            0 => Stream::subscribe(instances.addr(0), "topic=again").await,
            _ => Stream::resume(instances.addr(0), "topic=again", &id).await,
        };
        // First the event published without a stream, then the live one.
        if round > 0 {
            assert_eq!(stream.connected["resumed"], true);
            assert_eq!(stream.take_data(1).await, [format!("away {}", round - 1)]);
        }
        publish_text(instances.addr(1), "again", &format!("here {round}")).await;
        assert_eq!(stream.take_data(1).await, [format!("here {round}")]);
        id = stream.last_id().to_owned();
        drop(stream);
        if round % 5 == 0 {
            until_channels(&redis, &[]).await;
        }
        publish_text(instances.addr(1), "again", &format!("away {round}")).await;
    }
}

const STORM_STREAMS: usize = 2000;
const STORM_TOPICS: usize = 20;

/// Budget for the first calls of an instance to Redis, for each of its 16 partitions: two to join, two
/// for the epoch, and three of the first probe.
const BEGIN_CALLS: u64 = 120;

/// Only the first probe, however long the test takes.
const NO_PROBES: (&str, &str) = ("redis.probe", "1h");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_two_thousand_resuming_streams_asks_redis_for_each_range_at_most_once() {
    let _heavy = heavy().await;
    let redis = RedisServer::start(Options::default()).await;
    let mut instances = Instances::start(&[redis.url(), redis.url()], &[NO_PROBES]).await;
    let topic = |number: usize| format!("storm:{}", number % STORM_TOPICS);
    let plan = |number| Plan { query: format!("topic={}", topic(number)), ..Plan::default() };
    // One stream of each topic stays open, so the instance stays subscribed to all topics.
    let staying = Crowd::start(instances.addr(0), (0..STORM_TOPICS).map(plan));
    let storm = Crowd::start(instances.addr(0), (0..STORM_STREAMS).map(plan));
    staying.until_connected(1).await;
    storm.until_connected(1).await;
    let mut publisher = Publisher::connect(instances.addr(1)).await;
    let mut publish_all = async || {
        for number in 0..STORM_TOPICS {
            publisher.publish(0, &topic(number), "news").await;
        }
    };
    publish_all().await;
    storm.until_all("has an event", |seen| seen.numbers(0).len() == 1).await;

    storm.leave();
    instances.servers[0].until_streams(STORM_TOPICS).await;
    publish_all().await;
    staying.until_all("has both", |seen| seen.numbers(0).len() == 2).await;
    let before = log_calls(&redis).await;
    storm.read();
    storm.until_all("has both", |seen| seen.numbers(0).len() == 2).await;
    let warm = log_calls(&redis).await - before;
    println!("{STORM_STREAMS} streams resumed on a warm instance with {warm} calls");
    assert!(warm <= STORM_TOPICS as u64, "{warm} calls");

    storm.leave();
    staying.leave();
    publish_all().await;
    instances.restart(0).await;
    let before = log_calls(&redis).await;
    storm.read();
    storm.until_all("has all three", |seen| seen.numbers(0).len() == 3).await;
    let cold = log_calls(&redis).await - before;
    println!("{STORM_STREAMS} streams resumed on a cold instance with {cold} calls");
    assert!(cold <= 2 * STORM_TOPICS as u64 + BEGIN_CALLS, "{cold} calls");
    for (index, seen) in storm.ledgers().enumerate() {
        assert_eq!((seen.connected, seen.resumed), (3, 2), "stream {index}: {}", seen.story());
        assert_eq!(seen.gaps, [], "stream {index}");
    }
}

const MANY_TOPICS: usize = 9_999;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_new_topics_take_few_commands() {
    let redis = RedisServer::start(Options::default()).await;
    let pace = ("stream.topic_changes_per_second", "0");
    let settings = [NO_PROBES, GRACE, ("hub.partitions", "4"), pace];
    let instances = Instances::start(&[redis.url()], &settings).await;
    let addr = instances.addr(0);
    let mut stream = Stream::subscribe(addr, "topic=first").await;
    let client = stream.connected["clientId"].as_str().expect("a client id");
    let path = format!("/events/streams/{client}/topics");
    let names: Vec<String> = (0..MANY_TOPICS).map(|number| format!("many:{number}")).collect();
    let json_type = [("Content-Type", "application/json")];
    let change = async |body: Value| {
        let answer = request(addr, "POST", &path, &json_type, body.to_string().as_bytes()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    };
    let scripts = log_scripts(&redis).await;
    let subscribes = calls(&redis, &["ssubscribe"]).await;
    change(json!({ "add": names })).await;
    let subscribes = calls(&redis, &["ssubscribe"]).await - subscribes;
    let scripts = log_scripts(&redis).await - scripts;
    println!("{MANY_TOPICS} topics: {subscribes} subscribing commands, {scripts} script calls");
    // Each partition: one channel alone, then 512 in a command; 128 topics in a script call.
    assert!(subscribes <= 4 * 7, "{subscribes} commands");
    assert!(scripts <= 4 * 25, "{scripts} script calls");
    for number in [0, 1, 4711, MANY_TOPICS - 1] {
        publish_text(addr, &names[number], &number.to_string()).await;
        assert_eq!(stream.take_data(1).await, [number.to_string()]);
    }
    change(json!({ "remove": names })).await;
    until_channels(&redis, &["topic:first"]).await;
    let unsubscribes = calls(&redis, &["sunsubscribe"]).await;
    assert!(unsubscribes <= 100, "{unsubscribes} commands");
    change(json!({ "add": names[..20] })).await;
    publish_text(addr, &names[7], "again").await;
    assert_eq!(stream.take_data(1).await, ["again"]);
}

/// Script calls and log reads so far.
async fn log_calls(redis: &RedisServer) -> u64 {
    let reads = ["xrange", "xrevrange", "xread"];
    log_scripts(redis).await + calls(redis, &reads).await
}

async fn log_scripts(redis: &RedisServer) -> u64 {
    calls(redis, &["evalsha", "evalsha_ro", "eval", "fcall"]).await
}

/// The calls of these commands so far.
async fn calls(redis: &RedisServer, commands: &[&str]) -> u64 {
    let stats = redis.lines(&["INFO", "commandstats"]).await;
    let calls = stats.iter().filter_map(|line| {
        let (command, values) = line.strip_prefix("cmdstat_")?.split_once(':')?;
        let calls = values.split(',').find_map(|value| value.strip_prefix("calls="))?;
        commands.contains(&command).then(|| calls.parse::<u64>().expect("a number"))
    });
    calls.sum()
}
