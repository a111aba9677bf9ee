//! Instances die, drain and return while the others go on.

use std::time::Duration;

use crate::support::{
    Instances, RedisServer, Stream, fleet::Fleet, heavy, http::get, redis::Options, until,
};

/// Bound of the time during which a dead instance is still counted.
const COUNTED: Duration = Duration::from_secs(15);

/// Bound of an instance's drain, with a margin.
const DRAINED: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_is_killed_costs_its_clients_nothing_and_is_no_longer_counted() {
    let _heavy = heavy().await;
    let redis = RedisServer::start(Options::append_only()).await;
    let mut instances = Instances::start(&[redis.url(), redis.url(), redis.url()], &[]).await;
    let mut present = Vec::new();
    for addr in instances.addresses() {
        present.push(Stream::subscribe(addr, "topic=present").await);
    }
    let mut fleet = Fleet::start(&instances).await;
    for victim in [2, 1] {
        until_counted(&instances, victim + 1).await;
        fleet.until_random_moment().await;
        instances.servers[victim].kill9();
        fleet.until_acknowledged(100).await;
        until_counted(&instances, victim).await;
    }
    for victim in [2, 1] {
        instances.restart(victim).await;
        fleet.until_random_moment().await;
    }
    fleet.assert_nothing_lost().await;
}

/// Waits until the first instance counts so many instances with a stream of this topic.
async fn until_counted(instances: &Instances, count: usize) {
    let what = format!("{count} instances are counted");
    until(COUNTED, &what, async || {
        let told = get(instances.addr(0), "/events/topics/present").await.json();
        told["instances"] == count && told["subscribers"] == count
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_that_are_replaced_one_by_one_lose_nothing() {
    let _heavy = heavy().await;
    let redis = RedisServer::start(Options::append_only()).await;
    let mut instances =
        Instances::start(&[redis.url(), redis.url(), redis.url()], &[("server.drain", "2s")]).await;
    let mut fleet = Fleet::start(&instances).await;
    for index in 0..instances.servers.len() {
        fleet.until_random_moment().await;
        let server = &mut instances.servers[index];
        server.terminate();
        let exit = server.wait_exit(DRAINED).await;
        assert_eq!(exit.code(), Some(0));
        instances.restart(index).await;
    }
    fleet.assert_nothing_lost().await;
}
