//! Messages in Redis of programs with permission to publish, but without the secret of the cluster.

use serde_json::json;

use super::{direct, publish_text};
use crate::support::{
    Instances, RedisServer, Stream, http::request, redis::Options, until, wait::DEADLINE,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_messages_reach_no_stream_and_move_none() {
    let redis = RedisServer::start(Options::default()).await;
    let instances = Instances::start(&[redis.url(), redis.url()], &[]).await;
    let mut stream = Stream::subscribe(instances.addr(0), "topic=a").await;
    let client = stream.connected["clientId"].as_str().expect("an id").to_owned();
    let answer = publish_text(instances.addr(1), "a", "1").await;
    let base = format!("fanfare:{{{}}}:", answer["partition"]);
    let epoch = redis.command(&["GET", &format!("{base}epoch")]).await;
    let epoch = epoch.split(' ').next().expect("a number");
    let change = json!({ "ChangeStreams": [
        { "client": client, "user": null, "add": ["b"], "remove": ["a"], "muted": null }
    ] });
    let fan_out = format!("1 {epoch} 0 text 0 0 0 6 1\nforged9 1 1 a");
    let forged = [
        ("topic:a", format!("1 {epoch} 2 1 0 text 1 0 0\naforged")),
        ("topic:a", format!("{} 1 {epoch} 2 1 0 text 1 0 0\naforged", "0".repeat(40))),
        ("fanout", fan_out),
        ("control", format!("call 1 any {change}")),
        ("control", format!("{} call 1 any {change}", "0".repeat(40))),
    ];
    for (channel, message) in &forged {
        let heard = redis.command(&["SPUBLISH", &format!("{base}{channel}"), message]).await;
        assert_ne!(heard, "0", "{channel} has a subscriber");
    }
    let rejected =
        async || instances.servers[0].metric("fanfare_bridge_rejected_messages_total").await;
    until(DEADLINE, "all of them are rejected", async || rejected().await == 5.0).await;
    publish_text(instances.addr(1), "b", "of another topic").await;
    publish_text(instances.addr(1), "a", "2").await;
    assert_eq!(stream.take_data(2).await, ["1", "2"]);
    // A genuine change still reaches the stream, from the other instance.
    let path = format!("/events/streams/{client}/topics");
    let body = json!({ "add": ["b"] }).to_string();
    let json = [("Content-Type", "application/json")];
    let told = request(instances.addr(1), "POST", &path, &json, body.as_bytes()).await;
    assert_eq!(told.status, 200, "{}", told.text());
    publish_text(instances.addr(1), "b", "3").await;
    assert_eq!(stream.take_data(1).await, ["3"]);
    assert_eq!(rejected().await, 5.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_publishing_right_after_a_flush_reaches_the_streams() {
    let redis = RedisServer::start(Options::default()).await;
    // No probe joins the partitions again within this test.
    let instances = Instances::start(&[redis.url()], &[("redis.probe", "1h")]).await;
    let mut stream = Stream::subscribe(instances.addr(0), "topic=a").await;
    redis.command(&["FLUSHALL"]).await;
    let program = ("target/python/bin/python", "examples/direct_publish.py");
    direct::run(program, &redis.url(), &["a", "one"]).await;
    super::expect_gap(&mut stream, "epoch").await;
    assert_eq!(stream.take_data(1).await, ["one"]);
    direct::run(program, &redis.url(), &["a", "two"]).await;
    assert_eq!(stream.take_data(1).await, ["two"]);
    // And by an instance, after another flush.
    redis.command(&["FLUSHALL"]).await;
    publish_text(instances.addr(0), "a", "three").await;
    super::expect_gap(&mut stream, "epoch").await;
    assert_eq!(stream.take_data(1).await, ["three"]);
}
