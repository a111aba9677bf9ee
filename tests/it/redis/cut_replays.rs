//! Cut replays over Redis: the client returns to another instance each time.

use crate::{
    cut_replays::{CONFIG, walk_all},
    support::{RedisServer, Server, redis::Options},
};

async fn walk_over_redis(max_bytes: &str, start: &str) {
    let redis = RedisServer::start(Options::default()).await;
    let config =
        format!("redis.url = \"{}\"\nhistory.max_bytes = \"{max_bytes}\"\n{CONFIG}", redis.url());
    let servers = [Server::with_config(&config).await, Server::with_config(&config).await];
    for server in &servers {
        server.until_ready().await;
    }
    walk_all(&servers.each_ref().map(|server| server.addr), start).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_replay_continues_on_another_instance_without_a_gap_or_a_double() {
    walk_over_redis("256MiB", "last_event_id=earliest").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_replay_continues_on_instances_without_local_memory() {
    walk_over_redis("0B", "last_event_id=earliest").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_snapshot_continues_on_another_instance() {
    walk_over_redis("256MiB", "snapshot=true").await;
}
