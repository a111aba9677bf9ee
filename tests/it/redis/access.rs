//! Access to Redis: password, user, database, TLS, prefix.

use serde_json::json;

use super::{direct::run, publish_text};
use crate::support::{
    Instances, RedisServer, Stream,
    directory::Directory,
    http::{get, try_publish},
    redis::{Certificates, Options},
    until,
    wait::DEADLINE,
};

/// Two instances at this URL act as one hub.
async fn assert_linked(url: &str, settings: &[(&str, &str)]) {
    let instances = Instances::start(&[url, url], settings).await;
    let mut stream = Stream::subscribe(instances.addr(0), "topic=link").await;
    publish_text(instances.addr(1), "link", "holds").await;
    assert_eq!(stream.take_data(1).await, ["holds"]);
}

/// An instance at this URL starts and reports that Redis is unavailable.
async fn assert_kept_out(url: &str, settings: &[(&str, &str)]) {
    let mut server = Instances::spawn(url, settings).await;
    until(DEADLINE, "it has tried, and says why in its log", async || !server.log().is_empty())
        .await;
    let told = try_publish(server.addr, &json!({ "topic": "a", "data": 1 })).await;
    assert_eq!((told.status, told.code().as_str()), (503, "bridge_down"));
    assert!(!server.is_ready().await);
    assert_eq!(server.exit_status(), None);
    assert!(!server.log().contains("secret"), "a password is in the log: {}", server.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_opens_redis_and_a_wrong_one_does_not() {
    let options = Options { password: Some("a secret:/@%".to_owned()), ..Options::default() };
    let redis = RedisServer::start(options).await;
    assert_linked(&redis.url(), &[]).await;
    assert_linked(&redis.url().replace("redis://", "redis://default"), &[]).await;
    assert_kept_out(&format!("redis://:another-secret@{}", redis.addr()), &[]).await;
    assert_kept_out(&format!("redis://{}", redis.addr()), &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_needs_no_more_than_the_keys_and_channels_under_its_prefix() {
    let options = Options { password: Some("of-the-operator".to_owned()), ..Options::default() };
    let redis = RedisServer::start(options).await;
    let rules = ["on", ">secret", "~shop:*", "&shop:*", "+@all", "-@admin", "-@dangerous", "+info"];
    redis.command(&[&["ACL", "SETUSER", "fanfare"], &rules[..]].concat()).await;
    let url = format!("redis://fanfare:secret@{}", redis.addr());
    assert_linked(&url, &[("redis.prefix", "shop")]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_with_an_authority_of_ones_own_links_instances_and_an_unknown_one_does_not() {
    let directory = Directory::new("certificates");
    let certificates = Certificates::make(&directory);
    let authority = certificates.authority.display().to_string();
    let options = Options { certificates: Some(certificates), ..Options::default() };
    let redis = RedisServer::start(options).await;
    assert_linked(&redis.url(), &[("redis.tls_ca", &authority)]).await;
    let by_name = redis.url().replace("127.0.0.1", "localhost");
    assert_linked(&by_name, &[("redis.tls_ca", &authority)]).await;
    assert_kept_out(&redis.url(), &[]).await;
    // Without TLS the same server is unreachable.
    assert_kept_out(&redis.url().replace("rediss", "redis"), &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_clusters_on_one_redis_do_not_see_each_other_by_their_prefixes() {
    let redis = RedisServer::start(Options::default()).await;
    let mut streams = Vec::new();
    let mut clusters = Vec::new();
    for prefix in ["one", "two"] {
        let settings = [("redis.prefix", prefix)];
        let instances = Instances::start(&[redis.url(), redis.url()], &settings).await;
        streams.push(Stream::subscribe(instances.addr(0), "topics=shared,shared:*").await);
        clusters.push(instances);
    }
    for (instances, text) in clusters.iter().zip(["of one", "of two"]) {
        let event = json!({ "topics": ["shared", "shared:a"], "data": text, "id": "same" });
        let told = try_publish(instances.addr(1), &event).await;
        assert_eq!((told.status, &told.json()[0]["sequence"]), (200, &json!(1)));
    }
    for (stream, text) in streams.iter_mut().zip(["of one", "of two"]) {
        assert_eq!(stream.take_data(2).await, [text, text]);
    }
    // Late events stay separated too.
    for (instances, stream) in clusters.iter().zip(&mut streams) {
        publish_text(instances.addr(0), "shared", "last").await;
        assert_eq!(stream.take_data(1).await, ["last"]);
    }
    let keys = redis.lines(&["KEYS", "*"]).await;
    let is_ours = |key: &String| {
        ["one", "two"].iter().any(|prefix| {
            key.strip_prefix(prefix).is_some_and(|name| name.starts_with(":{") || name == ":epoch")
        })
    };
    assert!(keys.iter().all(is_ours) && !keys.is_empty(), "{keys:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_database_of_the_url_holds_all_keys() {
    let redis = RedisServer::start(Options::default()).await;
    assert_linked(&format!("{}/3", redis.url()), &[]).await;
    let spaces = redis.lines(&["INFO", "keyspace"]).await;
    let names: Vec<&str> = spaces.iter().filter_map(|line| line.split(':').next()).collect();
    assert_eq!(names, ["# Keyspace", "db3"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_databases_of_one_redis_are_two_clusters() {
    let redis = RedisServer::start(Options::default()).await;
    let mut clusters = Vec::new();
    for database in ["", "/1", "/2"] {
        let url = format!("{}{database}", redis.url());
        clusters.push(Instances::start(&[&url, &url], &[]).await);
    }
    let mut streams = Vec::new();
    for instances in &clusters {
        for query in ["topic=shared", "topic=shared:*", "topics=shared,shared:a"] {
            streams.push(Stream::subscribe(instances.addr(0), query).await);
        }
    }
    let texts = ["of none", "of one", "of two"];
    for (instances, text) in clusters.iter().zip(texts) {
        for topic in ["shared", "shared:a"] {
            let answer = publish_text(instances.addr(1), topic, text).await;
            assert_eq!(answer["sequence"], 1);
        }
        // Only the instances of this database count the stream, and only they are asked.
        let told = get(instances.addr(1), "/events/topics/shared").await.json();
        assert_eq!((&told["subscribers"], &told["instances"]), (&json!(2), &json!(1)));
    }
    for (streams, text) in streams.chunks_mut(3).zip(texts) {
        for (stream, count) in streams.iter_mut().zip([1, 1, 2]) {
            assert_eq!(stream.take_data(count).await, vec![text; count]);
        }
    }
    // A program without knowledge of the databases publishes on the right channels too.
    let url = format!("{}/2", redis.url());
    let program = ("target/python/bin/python", "examples/direct_publish.py");
    run(program, &url, &["shared", "direct"]).await;
    for (instances, last) in clusters.iter().zip(["last of none", "last of one", "last of two"]) {
        publish_text(instances.addr(0), "shared", last).await;
    }
    assert_eq!(streams[6].take_data(2).await, ["direct", "last of two"]);
    assert_eq!(streams[0].take_data(1).await, ["last of none"]);
    assert_eq!(streams[3].take_data(1).await, ["last of one"]);
}
