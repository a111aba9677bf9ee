//! The network between one instance and Redis stalls, breaks or is slow, as a whole or for one of
//! the two connections. Redis itself closes connections and removes scripts.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;

use crate::support::{
    Instances, RedisServer, Stream,
    chaos::{ChaosProxy, Kind, Mode},
    fleet::Fleet,
    heavy,
    http::publish,
    redis::{Options, REDIS_DEADLINE},
    until,
};

/// Only the first instance is behind the proxy: the others continue to publish.
async fn behind_proxy() -> (RedisServer, ChaosProxy, Instances) {
    let redis = RedisServer::start(Options::append_only()).await;
    let proxy = ChaosProxy::start(redis.addr()).await;
    let instances = Instances::start(&[proxy.url(), redis.url(), redis.url()], &[]).await;
    assert!(proxy.open(Kind::Publish) > 0 && proxy.open(Kind::Subscribe) > 0, "they are named");
    (redis, proxy, instances)
}

async fn until_not_ready(instances: &Instances) {
    let first = &instances.servers[0];
    until(REDIS_DEADLINE, "the first instance notices", async || !first.is_ready().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_stalls_is_noticed_and_loses_nothing() {
    let _heavy = heavy().await;
    let (_redis, proxy, instances) = behind_proxy().await;
    let mut fleet = Fleet::start(&instances).await;
    for _ in 0..3 {
        fleet.until_random_moment().await;
        // Too short to be noticed.
        proxy.set(Mode::Stall);
        fleet.until_acknowledged(20).await;
        proxy.set(Mode::Pass);
    }
    proxy.set(Mode::Stall);
    until_not_ready(&instances).await;
    fleet.until_random_moment().await;
    proxy.set(Mode::Pass);
    instances.until_ready().await;
    fleet.until_random_moment().await;
    fleet.assert_nothing_lost().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_is_cut_again_and_again_loses_nothing() {
    let _heavy = heavy().await;
    let (_redis, proxy, instances) = behind_proxy().await;
    let mut fleet = Fleet::start(&instances).await;
    for _ in 0..6 {
        fleet.until_random_moment().await;
        proxy.set(Mode::Cut);
        fleet.until_random_moment().await;
        proxy.set(Mode::Pass);
    }
    fleet.until_random_moment().await;
    fleet.assert_nothing_lost().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_network_is_only_slow() {
    let _heavy = heavy().await;
    let (_redis, proxy, instances) = behind_proxy().await;
    let mut fleet = Fleet::start(&instances).await;
    for delay_ms in [200, 20, 200] {
        proxy.set(Mode::Delay(Duration::from_millis(delay_ms)));
        fleet.until_acknowledged(100).await;
    }
    assert!(instances.servers[0].is_ready().await, "it works");
    fleet.assert_nothing_lost().await;
    assert_eq!(instances.metric("fanfare_bridge_reconnects_total").await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_that_breaks_while_publishes_flow_loses_nothing() {
    break_one(Kind::Subscribe).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_connection_that_breaks_while_the_subscription_flows_loses_nothing() {
    break_one(Kind::Publish).await;
}

/// Cuts and stalls the connections of one kind; connections of the other kind pass.
async fn break_one(kind: Kind) {
    let _heavy = heavy().await;
    let (_redis, proxy, instances) = behind_proxy().await;
    let mut fleet = Fleet::start(&instances).await;
    for mode in [Mode::Cut, Mode::Stall, Mode::Cut, Mode::Stall] {
        fleet.until_random_moment().await;
        proxy.set_for(kind, mode);
        fleet.until_random_moment().await;
        proxy.set_for(kind, Mode::Pass);
    }
    // A half-open connection, for long enough to be detected.
    proxy.set_for(kind, Mode::Stall);
    until_not_ready(&instances).await;
    proxy.set_for(kind, Mode::Pass);
    instances.until_ready().await;
    fleet.until_random_moment().await;
    fleet.assert_nothing_lost().await;
}

/// Kills of connections in Redis.
const KILL_COUNT: usize = 9;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_killed_in_redis_lose_nothing() {
    let _heavy = heavy().await;
    let redis = RedisServer::start(Options::append_only()).await;
    let instances = Instances::start(&[redis.url(), redis.url(), redis.url()], &[]).await;
    let mut fleet = Fleet::start(&instances).await;
    let names = ["fanfare-subscribe", "fanfare-publish", "fanfare-"];
    for name in names.into_iter().cycle().take(KILL_COUNT) {
        fleet.until_random_moment().await;
        let ids = clients(&redis, name).await;
        assert!(!ids.is_empty(), "no connection is called {name}");
        for id in ids {
            // The connection may have ended by itself.
            redis.command(&["CLIENT", "KILL", "ID", &id]).await;
        }
    }
    // A kill leaves only publishes in flight unconfirmed, at most one per publisher.
    let in_doubt = fleet.refusals().into_iter().find(|(told, _)| told == "unconfirmed");
    let in_doubt = in_doubt.map_or(0, |(_, count)| count);
    assert!(in_doubt <= KILL_COUNT * fleet.publisher_count(), "{in_doubt} are unconfirmed");
    fleet.assert_nothing_lost().await;
    assert!(instances.metric("fanfare_bridge_reconnects_total").await >= KILL_COUNT as f64);
}

/// The ids of Redis connections with this name prefix.
async fn clients(redis: &RedisServer, name: &str) -> Vec<String> {
    let field = |line: &str, field: &str| {
        line.split(' ').find_map(|word| Some(word.strip_prefix(field)?.to_owned()))
    };
    let lines = redis.lines(&["CLIENT", "LIST"]).await;
    let named = lines
        .iter()
        .filter(|line| field(line, "name=").is_some_and(|other| other.starts_with(name)));
    named.filter_map(|line| field(line, "id=")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scripts_that_redis_forgets_are_loaded_again() {
    let _heavy = heavy().await;
    let redis = RedisServer::start(Options::append_only()).await;
    let instances = Instances::start(&[redis.url(), redis.url(), redis.url()], &[]).await;
    let mut fleet = Fleet::start(&instances).await;
    for _ in 0..5 {
        fleet.until_random_moment().await;
        redis.command(&["SCRIPT", "FLUSH"]).await;
    }
    fleet.until_random_moment().await;
    assert_eq!(fleet.refusals(), [], "no publisher noticed");
    fleet.assert_nothing_lost().await;
    assert_eq!(instances.metric("fanfare_bridge_reconnects_total").await, 0.0);
}

/// Bytes per event, and number of events: more than a connection's socket buffers.
const BULK_BYTES: usize = 60_000;
const BULK_COUNT: usize = 300;

/// Events in flight at once: together far below Redis' limit.
const BULK_AT_ONCE: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_redis_drops_because_it_reads_too_slowly_loses_nothing() {
    let _heavy = heavy().await;
    // The limit is for pushes only: answers to log reads may be longer.
    let limits = "pubsub 1mb 0 0";
    let redis = RedisServer::start(Options::append_only()).await;
    redis.command(&["CONFIG", "SET", "client-output-buffer-limit", limits]).await;
    let settings = [("outbox.max_bytes", "64MiB")];
    let urls = [redis.url(), redis.url(), redis.url()];
    let instances = Instances::start(&urls, &settings).await;
    let mut bulk = Stream::subscribe(instances.addr(0), "topic=bulk").await;
    let mut fleet = Fleet::start(&instances).await;
    fleet.until_random_moment().await;

    let before = clients(&redis, "fanfare-subscribe").await;
    let stopped = &instances.servers[0];
    stopped.signal("STOP");
    publish_bulk(&instances).await;
    let after = clients(&redis, "fanfare-subscribe").await;
    let dropped = before.iter().filter(|id| !after.contains(id)).count();
    stopped.signal("CONT");
    assert_eq!(dropped, 1, "Redis closed the connection of the stopped instance");
    let mut numbers: Vec<usize> = Vec::new();
    for data in bulk.take_data(BULK_COUNT).await {
        let (number, _) = data.split_once(' ').expect("a number first");
        numbers.push(number.parse().expect("a number"));
    }
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(0..BULK_COUNT), "each once");
    fleet.until_random_moment().await;
    fleet.assert_nothing_lost().await;
}

/// Publishes the bulk on the second and third instance.
async fn publish_bulk(instances: &Instances) {
    let text = "x".repeat(BULK_BYTES);
    for first in (0..BULK_COUNT).step_by(BULK_AT_ONCE) {
        join_all((first..first + BULK_AT_ONCE).map(|number| {
            let event = json!({ "topic": "bulk", "data": format!("{number} {text}") });
            publish(instances.addr(1 + number % 2), event)
        }))
        .await;
    }
}
