//! Redis dies, returns with and without its data, or stops responding.

use std::{net::SocketAddr, time::Duration};

use serde_json::json;
use tokio::{sync::mpsc, task::JoinSet};

use super::{expect_gap, publish_text};
use crate::support::{
    Instances, RedisServer, Stream,
    fleet::Fleet,
    heavy,
    http::{get, try_publish},
    redis::{Options, REDIS_DEADLINE},
    until,
};

/// Length of the stop, in heartbeats of one second.
const STILL_HEARTBEATS: usize = 20;

const DEATH_COUNT: usize = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_killed_and_restarted_ten_times_under_load_loses_nothing() {
    let _heavy = heavy().await;
    let mut redis = RedisServer::start(Options::append_only()).await;
    let instances = Instances::start(&[redis.url(), redis.url(), redis.url()], &[]).await;
    let mut fleet = Fleet::start(&instances).await;
    for round in 0..DEATH_COUNT {
        fleet.until_random_moment().await;
        redis.kill();
        // Every other time Redis returns only after publishers have noticed the outage.
        if round % 2 == 0 {
            fleet.until_refused(4).await;
        }
        redis.restart().await;
    }
    fleet.assert_nothing_lost().await;
    let reconnects = instances.metric("fanfare_bridge_reconnects_total").await;
    assert!(reconnects >= DEATH_COUNT as f64, "{reconnects}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_that_stands_still_again_and_again_under_load_loses_nothing() {
    let _heavy = heavy().await;
    let redis = RedisServer::start(Options::append_only()).await;
    let instances = Instances::start(&[redis.url(), redis.url(), redis.url()], &[]).await;
    let mut fleet = Fleet::start(&instances).await;
    for refused in [1, 6, 12] {
        fleet.until_random_moment().await;
        redis.stop();
        fleet.until_refused(refused).await;
        redis.cont();
    }
    fleet.assert_nothing_lost().await;
}

/// A hub of one partition with these permits. Each publish holds its permits until Redis answers.
async fn with_permits(redis: &RedisServer, permits: usize) -> Instances {
    let permits = permits.to_string();
    let settings = [
        ("hub.partitions", "1"),
        ("publish.max_pending", &*permits),
        ("publish.max_wait", "100ms"),
        ("redis.timeout", "30s"),
    ];
    Instances::start(&[redis.url()], &settings).await
}

/// Publishes all at once. Returns the data of the first one answered, which must be a refusal, and
/// the others in flight.
async fn refused_first(addr: SocketAddr, data: Vec<String>) -> (String, JoinSet<u16>) {
    let (sender, mut first) = mpsc::channel(data.len());
    let mut publishes = JoinSet::new();
    for data in data {
        let sender = sender.clone();
        publishes.spawn(async move {
            let answer = try_publish(addr, &json!({ "topic": "full", "data": data })).await;
            let status = answer.status;
            let _ = sender.try_send((data, answer));
            status
        });
    }
    let (refused, answer) = first.recv().await.expect("an answer");
    assert_eq!((answer.status, answer.code().as_str()), (503, "at_capacity"));
    assert!(answer.header("retry-after").is_some());
    assert_eq!(publishes.join_next().await.expect("it is there").expect("no panic"), 503);
    (refused, publishes)
}

const PERMITS: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publish_without_a_permit_is_refused_and_the_waiting_ones_are_delivered() {
    let redis = RedisServer::start(Options::default()).await;
    let instances = with_permits(&redis, PERMITS).await;
    let addr = instances.addr(0);
    let mut stream = Stream::subscribe(addr, "topic=full").await;
    redis.stop();
    let all: Vec<String> = (0..=PERMITS).map(|number| number.to_string()).collect();
    let (refused, publishes) = refused_first(addr, all.clone()).await;
    redis.cont();
    assert_eq!(publishes.join_all().await, [200; PERMITS]);
    let mut data = stream.take_data(PERMITS).await;
    data.sort_unstable();
    let accepted: Vec<String> = all.into_iter().filter(|data| *data != refused).collect();
    assert_eq!(data, accepted);
    publish_text(addr, "full", "after").await;
    assert_eq!(stream.take_data(1).await, ["after"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_data_takes_further_permits() {
    let redis = RedisServer::start(Options::default()).await;
    let instances = with_permits(&redis, PERMITS).await;
    let addr = instances.addr(0);
    redis.stop();
    // Six permits each: one for the topic, one for each whole 4 KiB.
    let large = |letter: &str| letter.repeat(20 * 1024 + 1);
    let (_, publishes) = refused_first(addr, vec![large("a"), large("b")]).await;
    // Two permits are left.
    let small = ["1", "2", "3"].map(str::to_owned);
    let (_, others) = refused_first(addr, small.into()).await;
    redis.cont();
    assert_eq!(publishes.join_all().await, [200]);
    assert_eq!(others.join_all().await, [200, 200]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_redis_stands_still_streams_stay_open_and_publishers_are_told() {
    let redis = RedisServer::start(Options::append_only()).await;
    let settings = [("stream.heartbeat", "1s")];
    let instances = Instances::start(&[redis.url(), redis.url()], &settings).await;
    let mut streams = Vec::new();
    for addr in instances.addresses() {
        streams.push(Stream::subscribe(addr, "topic=still").await);
    }
    publish_text(instances.addr(0), "still", "before").await;
    redis.stop();
    let event = json!({ "topic": "still", "data": "meanwhile", "id": "one" });
    let told = try_publish(instances.addr(0), &event).await;
    assert_eq!(told.status, 503);
    assert!(["bridge_down", "unconfirmed"].contains(&told.code().as_str()), "{}", told.text());
    instances.until_not_ready().await;
    for server in &instances.servers {
        assert_eq!(server.get("/health/live").await.status, 200);
        assert_eq!(server.metric("fanfare_bridge_up").await, 0.0);
        let told = try_publish(server.addr, &event).await;
        assert_eq!(told.status, 503, "{}", told.text());
        assert!(told.header("retry-after").is_some());
    }
    for stream in &mut streams {
        while stream.comment_count() < STILL_HEARTBEATS {
            stream.next_comment(Duration::from_secs(5)).await;
        }
    }
    redis.cont();
    instances.until_ready().await;
    let first = try_publish(instances.addr(0), &event).await.json();
    let second = try_publish(instances.addr(1), &event).await.json();
    assert_eq!(first["sequence"], second["sequence"]);
    publish_text(instances.addr(1), "still", "after").await;
    for stream in &mut streams {
        assert_eq!(stream.take_data(3).await, ["before", "meanwhile", "after"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_comes_back_empty_is_told_by_a_gap_on_open_and_on_resuming_streams() {
    let mut redis = RedisServer::start(Options::default()).await;
    let instances = Instances::start(&[redis.url(), redis.url()], &[]).await;
    let mut streams = Vec::new();
    for addr in instances.addresses() {
        for query in ["topic=life:a", "topic=life:*", "topics=life:a,other,another"] {
            streams.push(Stream::subscribe(addr, query).await);
        }
    }
    for number in 0..5 {
        publish_text(instances.addr(0), "life:a", &number.to_string()).await;
    }
    for stream in &mut streams {
        assert_eq!(stream.take_data(5).await, ["0", "1", "2", "3", "4"]);
    }
    let old_id = streams[0].last_id().to_owned();

    redis.restart_empty().await;
    for stream in &mut streams {
        expect_gap(stream, "epoch").await;
    }
    instances.until_ready().await;
    let answer = publish_text(instances.addr(1), "life:a", "a new life").await;
    for stream in &mut streams {
        // A stream of several partitions may get one gap per partition.
        let mut event = stream.next().await;
        while event.event == "gap" {
            assert_eq!(event.json()["reason"], "epoch");
            event = stream.next().await;
        }
        assert_eq!(event.data, "a new life");
    }
    assert_eq!(streams[0].last_id(), answer["eventId"], "a stream of one partition");
    for addr in instances.addresses() {
        let mut stream = Stream::resume(addr, "topic=life:a", &old_id).await;
        assert_eq!(stream.connected["resumed"], false);
        let told = expect_gap(&mut stream, "epoch").await;
        assert_eq!(told["partitions"], json!([answer["partition"]]));
        // The only event left.
        assert_eq!(stream.take_data(1).await, ["a new life"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_starts_before_its_redis_is_ready_once_that_is_there() {
    let mut redis = RedisServer::start(Options::default()).await;
    redis.kill();
    let server = Instances::spawn(&redis.url(), &[]).await;
    assert_eq!(get(server.addr, "/health/live").await.status, 200);
    assert_eq!(get(server.addr, "/health/ready").await.status, 503);
    let event = json!({ "topic": "early", "data": "bird" });
    let told = try_publish(server.addr, &event).await;
    assert_eq!((told.status, told.code().as_str()), (503, "bridge_down"));
    assert!(told.header("retry-after").is_some());
    let told = server.get("/events/stream?topic=early").await;
    assert_eq!((told.status, told.code().as_str()), (503, "bridge_down"));
    assert_eq!(server.metric("fanfare_bridge_up").await, 0.0);

    redis.restart().await;
    until(REDIS_DEADLINE, "the instance is ready", async || server.is_ready().await).await;
    let mut stream = Stream::subscribe(server.addr, "topic=early").await;
    server.publish(event).await;
    assert_eq!(stream.take_data(1).await, ["bird"]);
    assert_eq!(server.metric("fanfare_bridge_up").await, 1.0);
    assert_eq!(server.stats().await["bridge"]["up"], true);
}
