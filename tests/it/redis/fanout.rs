//! Fan-outs and feeds over three instances and one Redis.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{
    Instances, RedisServer, Stream,
    chaos::{ChaosProxy, Kind, Mode},
    heavy,
    redis::{Options, REDIS_DEADLINE},
    social::{
        fan_out, feed, follow, follow_all, mute, resume_feed, try_fan_out, unfollow, whole_feed,
    },
    until,
};

fn users(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("user{number}")).collect()
}

/// Runs of a command in Redis so far.
async fn calls(redis: &RedisServer, command: &str) -> u64 {
    let name = format!("cmdstat_{command}");
    let field = redis.field(&["INFO", "commandstats"], &name).await.unwrap_or_default();
    let calls = field.split(',').next().and_then(|part| part.strip_prefix("calls="));
    calls.map_or(0, |calls| calls.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fan_out_costs_a_call_for_each_partition_and_chunk_and_reaches_all_instances() {
    let redis = RedisServer::start(Options::default()).await;
    // A late probe, so none is counted.
    let settings = [("redis.probe", "10m"), ("fanout.chunk", "1000")];
    let instances = Instances::start(&[redis.url(), redis.url(), redis.url()], &settings).await;
    let followers = users(3000);
    follow_all(instances.addr(0), &followers, "ada").await;
    mute(instances.addr(1), "user2999", &["post"]).await;
    let mut feeds = Vec::new();
    for (number, user) in followers.iter().enumerate().take(30) {
        feeds.push(feed(instances.addr(number % 3), user).await);
    }
    // One follower has two windows, on two instances.
    feeds.push(feed(instances.addr(1), "user0").await);

    let before = (calls(&redis, "spublish").await, calls(&redis, "evalsha").await);
    let post = json!({"author": "ada", "event": "post", "data": {"n": 1}, "mode": "push"});
    let answer = fan_out(instances.addr(2), post).await;
    let after = (calls(&redis, "spublish").await, calls(&redis, "evalsha").await);
    let expected =
        json!({"success": true, "mode": "push", "followers": 3000, "online": 30, "muted": 1});
    assert_eq!(answer, expected);
    let (partitions, chunks) = (16, 3);
    assert_eq!(after.0 - before.0, partitions * chunks);
    // One call per chunk reads its followers.
    assert_eq!(after.1 - before.1, partitions * chunks + chunks);

    let last = json!({"author": "ada", "event": "last", "data": 2});
    fan_out(instances.addr(0), last).await;
    for feed in &mut feeds {
        assert_eq!(feed.take_data(2).await, ["{\"n\":1}", "2"]);
    }
    // A follower without a stream gets both from history, on any instance.
    for (number, user) in ["user100", "user2998"].into_iter().enumerate() {
        let mut feed = whole_feed(instances.addr(number), user).await;
        assert_eq!(feed.take_data(2).await, ["{\"n\":1}", "2"]);
    }
    let mut muted = whole_feed(instances.addr(0), "user2999").await;
    assert_eq!(muted.take_data(1).await, ["2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_changes_at_once_wherever_it_is_and_whoever_changes_it() {
    let redis = RedisServer::start(Options::default()).await;
    let instances = Instances::start(&[redis.url(), redis.url(), redis.url()], &[]).await;
    let mut bob = feed(instances.addr(0), "bob").await;
    let post = async |data: &str| {
        let post = json!({"author": "ada", "data": data, "mode": "pull", "event": "post"});
        fan_out(instances.addr(2), post).await
    };
    for round in 0..5 {
        follow(instances.addr(1), "bob", "ada").await;
        assert_eq!(post(&format!("{round}")).await["online"], 1);
        unfollow(instances.addr(2), "bob", "ada").await;
        assert_eq!(post("not followed").await["online"], 0);
    }
    follow(instances.addr(1), "bob", "ada").await;
    mute(instances.addr(1), "bob", &["post"]).await;
    assert_eq!(post("muted").await["muted"], 1);
    mute(instances.addr(2), "bob", &[]).await;
    post("5").await;
    assert_eq!(bob.take_data(6).await, ["0", "1", "2", "3", "4", "5"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_changed_while_an_instance_was_cut_off_is_made_up_for() {
    let redis = RedisServer::start(Options::default()).await;
    let proxy = ChaosProxy::start(redis.addr()).await;
    let instances = Instances::start(&[proxy.url(), redis.url()], &[]).await;
    let stays = feed(instances.addr(0), "cy").await;
    let mut bob = feed(instances.addr(0), "bob").await;
    follow(instances.addr(1), "bob", "old").await;
    proxy.set(Mode::Cut);
    until(REDIS_DEADLINE, "the instance notices", async || !instances.servers[0].is_ready().await)
        .await;
    follow(instances.addr(1), "bob", "ada").await;
    let post = async |author: &str, data: &str| {
        let post = json!({"author": author, "data": data, "mode": "pull"});
        fan_out(instances.addr(1), post).await
    };
    post("old", "1").await;
    post("ada", "2").await;
    proxy.set(Mode::Pass);
    instances.until_ready().await;
    post("ada", "3").await;
    // The stream's topics are stale, so the hub ends it. After its resume nothing is missing.
    let mut got = BTreeSet::new();
    while let Some(event) = bob.next_or_end().await {
        if event.event != "shutdown" {
            got.insert(event.data);
        }
    }
    let mut bob = resume_feed(instances.addr(0), "bob", bob.last_id()).await;
    while got.len() < 3 {
        assert!(got.insert(bob.next().await.data), "twice");
    }
    assert_eq!(got, ["1", "2", "3"].map(str::to_owned).into());
    // A stream without changed follows stays open.
    follow(instances.addr(1), "cy", "ada").await;
    post("ada", "4").await;
    let mut stays = stays;
    assert_eq!(stays.take_data(1).await, ["4"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fan_out_that_redis_dies_in_is_repeated_and_nobody_is_told_twice_or_left_out() {
    let _heavy = heavy().await;
    let mut redis = RedisServer::start(Options::append_only()).await;
    let settings = [("fanout.chunk", "256"), ("fanout.pull_above", "1000000")];
    let instances = Instances::start(&[redis.url(), redis.url(), redis.url()], &settings).await;
    let count = 20_000;
    let followers = users(count);
    follow_all(instances.addr(0), &followers, "star").await;
    let mut feeds = Vec::new();
    for (number, user) in followers.iter().step_by(400).enumerate() {
        feeds.push(feed(instances.addr(number % 3), user).await);
    }

    let post = json!({"author": "star", "data": "once", "id": "the one"});
    let (addr, body) = (instances.addr(1), post.clone());
    let first = tokio::spawn(async move { try_fan_out(addr, &body).await });
    until(REDIS_DEADLINE, "some have it", async || calls(&redis, "spublish").await > 200).await;
    redis.kill();
    let first = first.await.expect("it is answered");
    assert_eq!((first.status, first.code().as_str()), (503, "unconfirmed"));
    redis.restart().await;
    instances.until_ready().await;
    let mut answer = Value::Null;
    until(REDIS_DEADLINE, "the fan-out is done", async || {
        let again = try_fan_out(instances.addr(2), &post).await;
        answer = again.json();
        again.status == 200
    })
    .await;
    assert_eq!(answer["followers"], count);

    fan_out(instances.addr(0), json!({"author": "star", "data": "last", "id": "2"})).await;
    let told = join_all(feeds.iter_mut().map(|feed: &mut Stream| feed.take_data(2))).await;
    assert!(told.iter().all(|data| *data == ["once", "last"]), "{told:?}");
    // Each follower has both events in the log, and none twice.
    let script = "local n, all = 0, redis.call('KEYS', '*:log:notifications:*') \
                  for _, key in ipairs(all) do n = n + redis.call('XLEN', key) end \
                  return { #all, n }";
    let counted = redis.lines(&["EVAL", script, "0"]).await;
    assert_eq!(counted, [count.to_string(), (2 * count).to_string()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_link_to_the_graph_a_fan_out_is_refused_before_its_publish() {
    let redis = RedisServer::start(Options::default()).await;
    let proxy = ChaosProxy::start(redis.addr()).await;
    let instances = Instances::start(&[proxy.url(), redis.url()], &[]).await;
    follow(instances.addr(1), "bob", "ada").await;
    let mut bob = feed(instances.addr(1), "bob").await;
    // Only the connection of the follow graph; publishes go on.
    proxy.set_for(Kind::Other, Mode::Cut);
    for mode in ["push", "pull", "auto"] {
        let post = json!({"author": "ada", "data": mode, "mode": mode});
        let told = try_fan_out(instances.addr(0), &post).await;
        assert_eq!((told.status, told.code().as_str()), (503, "bridge_down"), "{mode}");
    }
    instances.servers[0].publish(json!({"topic": "any", "data": 1})).await;
    proxy.set_for(Kind::Other, Mode::Pass);
    let post = json!({"author": "ada", "data": "after", "mode": "pull"});
    until(REDIS_DEADLINE, "the graph is back, and counts", async || {
        let told = try_fan_out(instances.addr(0), &post).await;
        told.status == 200 && told.json()["followers"] == 1
    })
    .await;
    assert_eq!(bob.take_data(1).await, ["after"]);
}
