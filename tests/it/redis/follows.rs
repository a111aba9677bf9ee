//! The follow graph and the preferences in a Redis shared by instances: together, during an outage
//! of Redis, and while a Redis Cluster moves slots.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use serde_json::{Value, json};

use crate::support::{
    Instances, RedisServer,
    http::{Response, get, request},
    redis::{Cluster, Options, REDIS_DEADLINE, Sentinels},
    until,
};

/// Followers of the author in the moving slot: more keys than one command moves.
const STAYING: usize = 12_000;

async fn change(addr: SocketAddr, method: &str, follower: &str, author: &str) -> Response {
    request(addr, method, &format!("/events/follows/{follower}/{author}"), &[], b"").await
}

async fn follow(addr: SocketAddr, follower: &str, author: &str) -> Value {
    let response = change(addr, "PUT", follower, author).await;
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()
}

/// Imports followers of one author. Returns the last line of the answer.
async fn import(addr: SocketAddr, followers: impl Iterator<Item = String>, author: &str) -> Value {
    let line = |follower| json!({ "follower": follower, "author": author }).to_string();
    let body = followers.map(line).collect::<Vec<_>>().join("\n");
    let response = request(addr, "POST", "/events/follows", &[], body.as_bytes()).await;
    let last = response.text().lines().last().expect("a line");
    serde_json::from_str(last).expect("a line of JSON")
}

/// Walks through all pages of a path; `None` if a page is refused as temporary.
async fn try_walk(addr: SocketAddr, path: &str) -> Option<Vec<String>> {
    let (mut met, mut after) = (Vec::new(), String::new());
    loop {
        let page = get(addr, &format!("{path}?limit=500{after}")).await;
        if page.status != 200 {
            assert_temporary(&page);
            return None;
        }
        let page = page.json();
        let users = page["users"].as_array().expect("a list");
        met.extend(users.iter().map(|user| user.as_str().expect("a name").to_owned()));
        let Some(next) = page["next"].as_str() else { return Some(met) };
        after = format!("&after={next}");
    }
}

async fn walk(addr: SocketAddr, path: &str) -> Vec<String> {
    try_walk(addr, path).await.expect("Redis is there")
}

/// The same on an instance just recovering from an outage of Redis: retries refused pages.
async fn walk_in_time(addr: SocketAddr, path: &str) -> Vec<String> {
    let mut met = None;
    until(REDIS_DEADLINE, "followers can be walked", async || {
        met = try_walk(addr, path).await;
        met.is_some()
    })
    .await;
    met.expect("just seen")
}

#[track_caller]
fn assert_temporary(response: &Response) {
    assert_eq!(response.status, 503, "{}", response.text());
    assert!(["bridge_down", "unconfirmed"].contains(&response.code().as_str()));
    assert!(response.header("retry-after").is_some());
}

/// Changes an edge; retries while Redis cannot confirm it.
async fn insist(addr: SocketAddr, method: &str, follower: &str, author: &str) {
    until(REDIS_DEADLINE, "the change is confirmed", async || {
        let response = change(addr, method, follower, author).await;
        if response.status != 200 {
            assert_temporary(&response);
        }
        response.status == 200
    })
    .await;
}

/// Waits until the follow graph is available: it has a connection of its own.
async fn until_there(instances: &Instances) {
    for addr in instances.addresses() {
        until(REDIS_DEADLINE, "followers can be asked for", async || {
            get(addr, "/events/followers/anybody").await.status == 200
        })
        .await;
    }
}

async fn instances(url: &str, settings: &[(&str, &str)]) -> Instances {
    let instances = Instances::start(&[url, url], settings).await;
    until_there(&instances).await;
    instances
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_instance_is_told_the_others_know() {
    let redis = RedisServer::start(Options::default()).await;
    let instances = instances(&redis.url(), &[]).await;
    let (here, there) = (instances.addr(0), instances.addr(1));
    assert_eq!(follow(here, "ann", "bob").await["changed"], true);
    assert_eq!(follow(there, "ann", "bob").await["changed"], false);
    assert_eq!(walk(there, "/events/followers/bob").await, ["ann"]);
    assert_eq!(walk(there, "/events/following/ann").await, ["bob"]);
    let body = json!({"muted": ["like"]}).to_string();
    let told = request(here, "PUT", "/events/preferences/ann", &[], body.as_bytes()).await;
    assert_eq!(told.status, 200, "{}", told.text());
    assert_eq!(get(there, "/events/preferences/ann").await.json()["muted"], json!(["like"]));
    // Both at once.
    let names = |range: std::ops::Range<u32>| range.map(|number| format!("f{number}"));
    let imports = (import(here, names(0..6000), "cid"), import(there, names(4000..10_000), "cid"));
    let (first, second) = tokio::join!(imports.0, imports.1);
    let new = |told: &Value| told["followed"].as_u64().expect("a number");
    assert_eq!(new(&first) + new(&second), 10_000, "{first} {second}");
    let met: BTreeSet<String> = walk(here, "/events/followers/cid").await.into_iter().collect();
    assert_eq!(met, names(0..10_000).collect());
    assert_eq!(get(there, "/events/followers/cid").await.json()["count"], 10_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_key_grows_with_the_number_of_followers() {
    let redis = RedisServer::start(Options::default()).await;
    let instances = instances(&redis.url(), &[]).await;
    let names = (0..20_000).map(|number| format!("f{number}"));
    assert_eq!(import(instances.addr(0), names, "a").await["followed"], 20_000);
    let largest = "local most = 0 \
                   for _, key in ipairs(redis.call('KEYS', '*:followers:*')) do \
                     most = math.max(most, redis.call('ZCARD', key)) \
                     assert(redis.call('OBJECT', 'ENCODING', key) == 'listpack') \
                   end \
                   return most";
    let largest: usize = redis.command(&["EVAL", largest, "0"]).await.parse().expect("a number");
    assert!((64..=128).contains(&largest), "{largest} names in a key");
    let keys = redis.lines(&["KEYS", "*:followers:*"]).await;
    assert!((20_000 / 128..20_000 / 32).contains(&keys.len()), "{} keys", keys.len());
    let slots: BTreeSet<&str> =
        keys.iter().filter_map(|key| key.split(['{', '}']).nth(1)).collect();
    assert_eq!(slots.len(), 1, "all in one slot");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_redis_is_away_nothing_is_answered_and_nothing_acknowledged_is_lost() {
    let mut redis = RedisServer::start(Options::append_only()).await;
    let instances = instances(&redis.url(), &[]).await;
    let addr = instances.addr(0);
    let (count, is_finished) = (AtomicUsize::new(0), AtomicBool::new(false));
    let load = async {
        while !is_finished.load(Ordering::Relaxed) {
            let name = format!("f{}", count.load(Ordering::Relaxed));
            insist(addr, "PUT", &name, "author").await;
            count.fetch_add(1, Ordering::Relaxed);
        }
    };
    let outages = async {
        for _ in 0..5 {
            let reached = count.load(Ordering::Relaxed) + 30;
            until(REDIS_DEADLINE, "followers are added", async || {
                count.load(Ordering::Relaxed) >= reached
            })
            .await;
            redis.kill();
            // Until the instance notices the lost connection, its commands end as `unconfirmed`.
            until(REDIS_DEADLINE, "the instance has noticed the outage", async || {
                let told = change(instances.addr(1), "PUT", "late", "author").await;
                assert_eq!(told.status, 503);
                told.code() == "bridge_down"
            })
            .await;
            let told = get(instances.addr(1), "/events/followers/author").await;
            assert_eq!((told.status, told.code().as_str()), (503, "bridge_down"));
            let told = import(instances.addr(1), ["late".to_owned()].into_iter(), "author").await;
            assert_eq!((&told["success"], &told["line"]), (&json!(false), &json!(1)));
            assert_eq!(told["error"]["code"], "bridge_down");
            redis.restart().await;
        }
        is_finished.store(true, Ordering::Relaxed);
    };
    tokio::join!(load, outages);
    until_there(&instances).await;
    let count = count.into_inner();
    let met: BTreeSet<String> = walk(addr, "/events/followers/author").await.into_iter().collect();
    assert_eq!(met, (0..count).map(|number| format!("f{number}")).collect());
    assert_eq!(walk(addr, "/events/following/f0").await, ["author"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_stands_still_leaves_a_change_unconfirmed_and_it_may_be_repeated() {
    let redis = RedisServer::start(Options::default()).await;
    let instances = instances(&redis.url(), &[("redis.timeout", "500ms")]).await;
    redis.stop();
    let told = change(instances.addr(0), "PUT", "ann", "bob").await;
    assert_eq!((told.status, told.code().as_str()), (503, "unconfirmed"));
    until(REDIS_DEADLINE, "the instance has noticed the outage", async || {
        change(instances.addr(0), "PUT", "ann", "bob").await.code() == "bridge_down"
    })
    .await;
    let told = get(instances.addr(1), "/events/followers/bob").await;
    assert_eq!((told.status, told.code().as_str()), (503, "bridge_down"));
    redis.cont();
    insist(instances.addr(0), "PUT", "ann", "bob").await;
    until_there(&instances).await;
    assert_eq!(walk(instances.addr(1), "/events/followers/bob").await, ["ann"]);
    assert_eq!(walk(instances.addr(1), "/events/following/ann").await, ["bob"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_needs_no_more_than_the_keys_under_its_prefix() {
    let options = Options { password: Some("of-the-operator".to_owned()), ..Options::default() };
    let redis = RedisServer::start(options).await;
    let rules = ["on", ">secret", "~shop:*", "&shop:*", "+@all", "-@admin", "-@dangerous", "+info"];
    redis.command(&[&["ACL", "SETUSER", "fanfare"], &rules[..]].concat()).await;
    let url = format!("redis://fanfare:secret@{}", redis.addr());
    let instances = instances(&url, &[("redis.prefix", "shop")]).await;
    let names = (0..300).map(|number| format!("f{number}"));
    assert_eq!(import(instances.addr(0), names, "{bob}").await["followed"], 300);
    assert_eq!(walk(instances.addr(1), "/events/followers/%7Bbob%7D").await.len(), 300);
    let clients = redis.command(&["CLIENT", "LIST"]).await;
    assert_eq!(clients.matches("name=fanfare-follow").count(), 2, "{clients}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scripts_that_redis_has_forgotten_are_loaded_again() {
    let redis = RedisServer::start(Options::default()).await;
    let instances = instances(&redis.url(), &[]).await;
    redis.command(&["SCRIPT", "FLUSH"]).await;
    assert_eq!(follow(instances.addr(0), "ann", "bob").await["changed"], true);
    redis.command(&["SCRIPT", "FLUSH"]).await;
    assert_eq!(walk(instances.addr(1), "/events/followers/bob").await, ["ann"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_are_there_again_after_sentinel_has_put_another_in_the_masters_place() {
    let mut redis = Sentinels::start().await;
    let instances = instances(&redis.url(), &[]).await;
    follow(instances.addr(0), "ann", "bob").await;
    redis.servers[0].kill();
    redis.until_master(1).await;
    insist(instances.addr(0), "PUT", "cid", "bob").await;
    until_there(&instances).await;
    let met = walk(instances.addr(1), "/events/followers/bob").await;
    assert!(met.contains(&"cid".to_owned()), "{met:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_that_move_under_walks_and_changes_cost_no_follower() {
    let cluster = Cluster::start().await;
    let instances = instances(&cluster.url(), &[]).await;
    let staying = || (0..STAYING).map(|number| format!("staying{number}"));
    assert_eq!(import(instances.addr(0), staying(), "author").await["followed"], STAYING);
    let slot = cluster.slot_of_key("*:followers:author").await;
    let is_finished = AtomicBool::new(false);
    let moves = async {
        for _ in 0..4 {
            let target = (cluster.owner(slot).await + 1) % 3;
            cluster.migrate(slot, target).await;
            assert_eq!(cluster.owner(slot).await, target);
        }
        is_finished.store(true, Ordering::Relaxed);
    };
    let walks = async {
        let mut walked = 0;
        while !is_finished.load(Ordering::Relaxed) || walked == 0 {
            let Some(met) = try_walk(instances.addr(1), "/events/followers/author").await else {
                continue;
            };
            let met: BTreeSet<String> = met.into_iter().collect();
            let missed = staying().find(|name| !met.contains(name));
            assert_eq!(missed, None, "in a walk of {}", met.len());
            walked += 1;
        }
    };
    let changes = async {
        while !is_finished.load(Ordering::Relaxed) {
            for method in ["PUT", "DELETE"] {
                for number in 0..50 {
                    insist(instances.addr(0), method, &format!("passing{number}"), "author").await;
                }
            }
        }
    };
    tokio::join!(moves, walks, changes);
    let met: BTreeSet<String> =
        walk(instances.addr(1), "/events/followers/author").await.into_iter().collect();
    assert_eq!(met, staying().collect());
    let told = get(instances.addr(0), "/events/followers/author").await.json();
    assert_eq!(told["count"], STAYING);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_master_that_dies_is_replaced_and_its_users_are_there_again() {
    let mut cluster = Cluster::start().await;
    let instances = instances(&cluster.url(), &[]).await;
    // Enough for keys on every node.
    for number in 0..30 {
        follow(instances.addr(0), &format!("f{number}"), &format!("a{number}")).await;
    }
    let slot = cluster.slot_of_key("*:followers:a0").await;
    let owner = cluster.owner(slot).await;
    cluster.node_mut(owner).kill();
    until(REDIS_DEADLINE, "the instance has noticed the dead master", async || {
        get(instances.addr(1), "/events/followers/a0").await.status == 503
    })
    .await;
    cluster.until_taken_over(slot, owner).await;
    for number in 0..30 {
        let (follower, author) = (format!("f{number}"), format!("a{number}"));
        insist(instances.addr(1), "PUT", &follower, &author).await;
        let met = walk_in_time(instances.addr(1), &format!("/events/followers/{author}")).await;
        assert_eq!(met, std::slice::from_ref(&follower));
        let path = format!("/events/following/{follower}");
        assert_eq!(walk_in_time(instances.addr(0), &path).await, [author]);
    }
}
