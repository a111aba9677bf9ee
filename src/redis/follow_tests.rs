//! The contract suite of follow stores, over a real Redis.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use fanfare_core::{
    follow::{Counts, Follow, FollowGraph, GraphFuture, Page},
    user::User,
};
use fanfare_redis::{Target, follow::RedisFollows};

use super::tests::TestRedis;
use crate::{Config, follow::contract};

/// Two instances; calls alternate between them.
struct Turns {
    instances: [RedisFollows; 2],
    count: AtomicUsize,
}

impl Turns {
    fn next(&self) -> &RedisFollows {
        &self.instances[self.count.fetch_add(1, Ordering::Relaxed) % 2]
    }
}

impl FollowGraph for Turns {
    fn follow(&self, edges: Vec<Follow>) -> GraphFuture<'_, u64> {
        self.next().follow(edges)
    }

    fn unfollow(&self, edges: Vec<Follow>) -> GraphFuture<'_, u64> {
        self.next().unfollow(edges)
    }

    fn followers(&self, user: User, after: Option<String>, limit: usize) -> GraphFuture<'_, Page> {
        self.next().followers(user, after, limit)
    }

    fn following(&self, user: User, after: Option<String>, limit: usize) -> GraphFuture<'_, Page> {
        self.next().following(user, after, limit)
    }

    fn counts(&self, user: User) -> GraphFuture<'_, Counts> {
        FollowGraph::counts(self.next(), user)
    }
}

async fn start(redis: &TestRedis) -> RedisFollows {
    let config = Config::default().redis;
    let target = Target::parse(&redis.url(), "").unwrap();
    let follows = RedisFollows::start(target, config.prefix, config.timeout, config.probe);
    let start = Instant::now();
    let user = User::parse("a").unwrap();
    while FollowGraph::counts(&follows, user.clone()).await.is_err() {
        assert!(start.elapsed() < Duration::from_secs(10), "not connected in time");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    follows
}

#[actix_web::test]
async fn the_graph_in_redis_keeps_every_promise_and_leaves_nothing_behind() {
    let redis = TestRedis::start();
    contract::graph(&start(&redis).await).await;
    assert_eq!(redis.keys().await, [""; 0]);
}

#[actix_web::test]
async fn two_instances_keep_every_promise_together() {
    let redis = TestRedis::start();
    let instances = [start(&redis).await, start(&redis).await];
    contract::graph(&Turns { instances, count: AtomicUsize::new(0) }).await;
    assert_eq!(redis.keys().await, [""; 0]);
}

#[actix_web::test]
async fn the_preferences_in_redis_keep_every_promise_and_leave_nothing_behind() {
    let redis = TestRedis::start();
    contract::preferences(&start(&redis).await).await;
    assert_eq!(redis.keys().await, [""; 0]);
}
