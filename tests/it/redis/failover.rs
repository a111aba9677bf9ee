//! Failover: by Sentinel, and in a Redis Cluster, there also with moving slots.
//!
//! Redis replicates after its answer. Acknowledged events can be lost with their master. Every
//! affected stream then gets a `gap` of reason `epoch`.

use serde_json::json;

use crate::support::{
    Instances, Stream,
    fleet::Fleet,
    heavy,
    http::publish,
    redis::{Cluster, Sentinels},
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
