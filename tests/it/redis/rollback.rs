//! A Redis going back to earlier data in the same process gives out sequences a second time.

use serde_json::json;

use super::{expect_gap, publish_text};
use crate::support::{Instances, RedisServer, Stream, redis::Options};

/// Goes back to the saved data.
async fn reload(redis: &RedisServer) {
    assert_eq!(redis.command(&["DEBUG", "RELOAD", "NOSAVE"]).await, "OK");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_after_a_reload_of_earlier_data_reach_every_stream_after_a_gap() {
    let redis = RedisServer::start(Options::default()).await;
    let instances = Instances::start(&[redis.url(), redis.url()], &[]).await;
    let mut streams = Vec::new();
    for addr in instances.addresses() {
        for query in ["topic=life:a", "topic=life:*"] {
            streams.push((query, Stream::subscribe(addr, query).await));
        }
    }
    publish_text(instances.addr(0), "life:a", "kept").await;
    redis.command(&["SAVE"]).await;
    for number in 0..7 {
        publish_text(instances.addr(0), "life:a", &format!("lost {number}")).await;
    }
    for (_, stream) in &mut streams {
        stream.take_data(8).await;
    }
    let old_id = streams[0].1.last_id().to_owned();
    reload(&redis).await;
    // By the instance without any publish so far, with fewer events than lost ones, and more.
    let texts: Vec<String> = (0..9).map(|number| format!("new {number}")).collect();
    for text in &texts {
        publish_text(instances.addr(1), "life:a", text).await;
    }
    let wanted: Vec<&str> = ["kept"].into_iter().chain(texts.iter().map(String::as_str)).collect();
    for (query, stream) in &mut streams {
        expect_gap(stream, "epoch").await;
        assert_eq!(stream.take_data(wanted.len()).await, wanted, "{query}");
    }
    // A client of the lost sequences gets a gap too, once.
    let mut again = Stream::resume(instances.addr(0), "topic=life:a", &old_id).await;
    expect_gap(&mut again, "epoch").await;
    assert_eq!(again.take_data(wanted.len()).await, wanted);
    let again = Stream::resume(instances.addr(1), "topic=life:a", again.last_id()).await;
    assert_eq!(again.connected["resumed"], true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_is_noticed_by_the_pushes_of_a_program_without_knowledge_of_sequences() {
    let redis = RedisServer::start(Options::default()).await;
    let instances = Instances::start(&[redis.url()], &[("redis.probe", "1h")]).await;
    let mut stream = Stream::subscribe(instances.addr(0), "topic=life:a").await;
    let program = ("target/python/bin/python", "examples/direct_publish.py");
    let publish = async |text: &str| {
        super::direct::run(program, &redis.url(), &["life:a", text]).await;
    };
    publish("kept").await;
    redis.command(&["SAVE"]).await;
    publish("lost").await;
    publish("lost too").await;
    assert_eq!(stream.take_data(3).await, ["kept", "lost", "lost too"]);
    reload(&redis).await;
    publish("new").await;
    expect_gap(&mut stream, "epoch").await;
    assert_eq!(stream.take_data(2).await, ["kept", "new"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_with_an_impossible_sequence_mutes_no_partition() {
    let redis = RedisServer::start(Options::default()).await;
    let instances = Instances::start(&[redis.url()], &[]).await;
    let mut stream = Stream::subscribe(instances.addr(0), "topic=a").await;
    let answer = publish_text(instances.addr(0), "a", "1").await;
    let partition = answer["partition"].as_u64().expect("a number");
    let base = format!("fanfare:{{{partition}}}:");
    let epoch = redis.command(&["GET", &format!("{base}epoch")]).await;
    let epoch = epoch.split(' ').next().expect("a number");
    for sequence in [u64::MAX - 10, 1 << 60, (1 << 54) - 1] {
        let message = format!("1 {epoch} {sequence} 1 0 text 1 0 0\naforged");
        redis.command(&["SPUBLISH", &format!("{base}topic:a"), &message]).await;
    }
    let event = json!({ "topic": "a", "data": "2" });
    assert_eq!(instances.servers[0].publish(event).await["sequence"], 2);
    assert_eq!(stream.take_data(2).await, ["1", "2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_without_its_oldest_events_costs_no_second_gap() {
    let redis = RedisServer::start(Options::default()).await;
    let instances = Instances::start(&[redis.url()], &[("history.events", "5")]).await;
    let mut stream = Stream::subscribe(instances.addr(0), "topic=life:a").await;
    for number in 0..10 {
        publish_text(instances.addr(0), "life:a", &number.to_string()).await;
    }
    redis.command(&["SAVE"]).await;
    publish_text(instances.addr(0), "life:a", "lost").await;
    stream.take_data(11).await;
    reload(&redis).await;
    publish_text(instances.addr(0), "life:a", "new").await;
    expect_gap(&mut stream, "epoch").await;
    assert_eq!(stream.take_data(5).await, ["6", "7", "8", "9", "new"]);
}
