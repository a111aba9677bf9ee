//! Failover: by Sentinel, and in a Redis Cluster, there also with moving slots.
//!
//! Redis replicates after its answer. Acknowledged events can be lost with their master. Every
//! stream perhaps without one of them then gets a `gap` of reason `epoch`.

use serde_json::{Value, json};

use super::{direct::publish_script, expect_gap, publish_by_script};
use crate::support::{
    Instances, RedisServer, Stream,
    fleet::Fleet,
    heavy,
    http::{publish, request},
    redis::{Cluster, Options, REDIS_DEADLINE, Sentinels},
    relay::Relay,
    until,
};

/// Partitions of a hub.
const PARTITIONS: u64 = 16;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_sentinel_promotes_is_followed_and_loss_is_told() {
    let _heavy = heavy().await;
    let mut redis = Sentinels::start().await;
    let instances = Instances::start(&[redis.url(), redis.url(), redis.url()], &[]).await;
    let mut fleet = Fleet::start(&instances).await;
    fleet.until_random_moment().await;
    redis.servers[0].kill();
    redis.until_master(1).await;
    fleet.until_random_moment().await;
    redis.servers[0].restart().await;
    redis.until_role(0, "slave").await;
    fleet.until_random_moment().await;
    fleet.assert_loss_is_told().await;
}

/// Publishes, as soon as Redis is available.
async fn publish_soon(instances: &Instances, topic: &str, text: &str) -> Value {
    let event = json!({ "topic": topic, "data": text, "id": text }).to_string();
    let headers = [("Content-Type", "application/json")];
    let mut answer = Value::Null;
    until(REDIS_DEADLINE, "a publish is accepted", async || {
        let path = "/events/publish";
        let sent = request(instances.addr(0), "POST", path, &headers, event.as_bytes()).await;
        answer = sent.json();
        sent.status == 200
    })
    .await;
    answer
}

/// Events of two partitions come in any order.
fn sorted(mut data: Vec<String>) -> Vec<String> {
    data.sort_unstable();
    data
}

/// The next three events, except the lost one.
async fn until_spared(stream: &mut Stream) -> Vec<String> {
    let mut data = Vec::new();
    while data.len() < 3 {
        data.extend(stream.take_data(1).await.into_iter().filter(|data| data != "lost"));
    }
    sorted(data)
}

/// Two topics of different partitions.
async fn two_topics(instances: &Instances) -> [String; 2] {
    let first = publish_soon(instances, "t:0", "probe").await["partition"].clone();
    for number in 1.. {
        let topic = format!("t:{number}");
        if publish_soon(instances, &topic, "probe").await["partition"] != first {
            return ["t:0".to_owned(), topic];
        }
    }
    unreachable!()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_without_the_last_event_is_told_to_the_streams_without_it_only() {
    let mut master = RedisServer::start(Options::default()).await;
    let replica = RedisServer::start(Options::default()).await;
    replica.command(&["REPLICAOF", "127.0.0.1", &master.port().to_string()]).await;
    let relay = Relay::to(master.addr()).await;
    let url = format!("redis://{}", relay.addr);
    let instances = Instances::start(&[&url, &url], &[]).await;
    let [hit, spared] = two_topics(&instances).await;
    let partition = publish_soon(&instances, &hit, "probe").await["partition"].clone();
    let query = format!("topic={hit}&topic={spared}");
    let mut open = Vec::new();
    for addr in instances.addresses() {
        open.push(Stream::subscribe(addr, &query).await);
    }
    for text in ["1", "2"] {
        publish_soon(&instances, &hit, text).await;
        publish_soon(&instances, &spared, &format!("spared {text}")).await;
    }
    for stream in &mut open {
        stream.take_data(4).await;
    }
    let behind = open[0].last_id().to_owned();
    until(REDIS_DEADLINE, "the replica has all events", async || {
        let log = format!("*log:{hit}");
        let offset = async |server: &RedisServer| {
            server.field(&["INFO", "replication"], "master_repl_offset").await
        };
        !replica.lines(&["KEYS", &log]).await.is_empty()
            && offset(&replica).await == offset(&master).await
    })
    .await;
    replica.command(&["REPLICAOF", "NO", "ONE"]).await;
    publish_soon(&instances, &hit, "lost").await;
    for stream in &mut open {
        assert_eq!(stream.take_data(1).await, ["lost"]);
    }
    let informed = open[0].last_id().to_owned();
    master.kill();
    // Before any instance: without the sequence of the lost event.
    publish_by_script(&replica, &publish_script(), &partition, &hit, "direct").await;
    relay.switch(replica.addr());
    relay.reset_all();
    publish_soon(&instances, &hit, "3").await;
    publish_soon(&instances, &spared, "spared 3").await;
    // The open streams have had all events.
    for stream in &mut open {
        assert_eq!(sorted(stream.take_data(3).await), ["3", "direct", "spared 3"]);
    }
    for addr in instances.addresses() {
        let mut stream = Stream::resume(addr, &query, &informed).await;
        assert_eq!(stream.connected["resumed"], true);
        assert_eq!(sorted(stream.take_data(3).await), ["3", "direct", "spared 3"]);
        let mut stream = Stream::resume(addr, &format!("topic={spared}"), &behind).await;
        assert_eq!(stream.connected["resumed"], true);
        assert_eq!(stream.take_data(1).await, ["spared 3"]);
        // This client lacks the lost event. It is told once, and gets nothing twice.
        let mut stream = Stream::resume(addr, &query, &behind).await;
        assert_eq!(stream.connected["resumed"], false);
        expect_gap(&mut stream, "epoch").await;
        let told = stream.last_id().to_owned();
        // An instance may still have the lost event.
        assert_eq!(until_spared(&mut stream).await, ["3", "direct", "spared 3"]);
        let mut stream = Stream::resume(addr, &query, &told).await;
        assert_eq!(stream.connected["resumed"], true);
        assert_eq!(until_spared(&mut stream).await, ["3", "direct", "spared 3"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_moved_past_a_loss_before_its_record_is_told() {
    let mut master = RedisServer::start(Options::default()).await;
    let replica = RedisServer::start(Options::default()).await;
    replica.command(&["REPLICAOF", "127.0.0.1", &master.port().to_string()]).await;
    let relays = [Relay::to(master.addr()).await, Relay::to(master.addr()).await];
    let urls = relays.each_ref().map(|relay| format!("redis://{}", relay.addr));
    let instances = Instances::start(&urls.each_ref().map(String::as_str), &[]).await;
    let answer = publish_soon(&instances, "a", "1").await;
    let mut open = Stream::subscribe(instances.addr(1), "topic=a&last_event_id=earliest").await;
    assert_eq!(open.take_data(1).await, ["1"]);
    until(REDIS_DEADLINE, "the replica has the event", async || {
        !replica.lines(&["KEYS", "*log:a"]).await.is_empty()
    })
    .await;
    replica.command(&["REPLICAOF", "NO", "ONE"]).await;
    // The second instance follows at once. The first one is still with the old master.
    relays[1].switch(replica.addr());
    relays[1].reset_all();
    let lineage = format!("fanfare:{{{}}}:lineage", answer["partition"]);
    until(REDIS_DEADLINE, "the second instance has the new server", async || {
        replica.command(&["LLEN", &lineage]).await.trim() == "2"
    })
    .await;
    publish_soon(&instances, "a", "lost").await;
    let new = json!({ "topic": "a", "data": "2" });
    until(REDIS_DEADLINE, "a publish on the new server is accepted", async || {
        publish(instances.addr(1), new.clone()).await["success"] == true
    })
    .await;
    assert_eq!(open.take_data(1).await, ["2"]);
    let past = open.last_id().to_owned();
    master.kill();
    relays[0].switch(replica.addr());
    relays[0].reset_all();
    expect_gap(&mut open, "epoch").await;
    for addr in instances.addresses() {
        let mut stream = Stream::resume(addr, "topic=a", &past).await;
        assert_eq!(stream.connected["resumed"], false);
        expect_gap(&mut stream, "epoch").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_stood_still_and_was_replaced_does_not_split_the_hub() {
    let _heavy = heavy().await;
    let redis = Sentinels::start().await;
    let instances = Instances::start(&[redis.url(), redis.url(), redis.url()], &[]).await;
    let mut fleet = Fleet::start(&instances).await;
    fleet.until_random_moment().await;
    redis.servers[0].stop();
    redis.until_master(1).await;
    // For a moment two servers consider themselves the master.
    redis.servers[0].cont();
    redis.until_role(0, "slave").await;
    fleet.until_random_moment().await;
    fleet.assert_loss_is_told().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_that_move_between_masters_under_load_lose_nothing() {
    let _heavy = heavy().await;
    let cluster = Cluster::start().await;
    let instances = Instances::start(&[cluster.url(), cluster.url(), cluster.url()], &[]).await;
    let mut fleet = Fleet::start(&instances).await;
    for partition in 0..PARTITIONS / 2 {
        fleet.until_acknowledged(10).await;
        let slot = cluster.slot_of_partition(partition).await;
        let source = cluster.owner(slot).await;
        let target = (source + 1) % 3;
        cluster.migrate(slot, target).await;
        assert_eq!(cluster.owner(slot).await, target);
    }
    fleet.until_random_moment().await;
    fleet.assert_nothing_lost().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_master_that_dies_under_load_is_replaced_and_loss_is_told() {
    let _heavy = heavy().await;
    let mut cluster = Cluster::start().await;
    let instances = Instances::start(&[cluster.url(), cluster.url(), cluster.url()], &[]).await;
    let mut stream = Stream::subscribe(instances.addr(0), "topic=fail:over").await;
    let event = |text: &str| json!({ "topic": "fail:over", "data": text, "id": text });
    let answer = publish(instances.addr(1), event("before")).await;
    assert_eq!(stream.take_data(1).await, ["before"]);
    let partition = answer["partition"].as_u64().expect("a number");
    let slot = cluster.slot_of_partition(partition).await;
    let owner = cluster.owner(slot).await;

    let mut fleet = Fleet::start(&instances).await;
    fleet.until_random_moment().await;
    cluster.node_mut(owner).kill();
    let successor = cluster.until_taken_over(slot, owner).await;
    assert!(successor >= 3, "a replica");
    fleet.until_random_moment().await;
    cluster.node_mut(owner).restart().await;
    cluster.until_whole().await;
    fleet.until_random_moment().await;
    fleet.assert_loss_is_told().await;

    instances.until_ready().await;
    publish(instances.addr(2), event("after")).await;
    let mut event = stream.next().await;
    while event.event == "gap" {
        assert_eq!(event.json()["reason"], "epoch");
        event = stream.next().await;
    }
    assert_eq!(event.data, "after", "on the same connection");
}
