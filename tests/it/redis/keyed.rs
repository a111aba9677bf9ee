//! Keyed state over several instances: each removal is in the log once.

use serde_json::json;

use crate::support::{
    RedisServer, Stream, keyed_writer, redis::Options, server::Launch, wait::DEADLINE,
};

const KEYED: &str = "[[topics]]\npattern = \"k:**\"\nconflate = \"latest-by-key\"\n";

async fn instances(redis: &RedisServer, count: usize, toml: &str) -> Vec<crate::support::Server> {
    let mut servers = Vec::new();
    for _ in 0..count {
        let launch = Launch {
            args: vec!["--redis".into(), redis.url()],
            config: Some(toml.into()),
            ..Launch::default()
        };
        servers.push(crate::support::Server::launch(launch).await);
    }
    servers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_with_a_time_to_live_ends_once_whoever_published_it() {
    let redis = RedisServer::start(Options::default()).await;
    let mut servers = instances(&redis, 3, KEYED).await;
    let mut streams = Vec::new();
    for server in &servers {
        streams.push(Stream::subscribe(server.addr, "topic=k:*").await);
    }
    for key in ["x", "y"] {
        servers[0].publish(json!({"topic": "k:a", "key": key, "data": 1, "ttl": "300ms"})).await;
    }
    // A later publish cancels, at any instance.
    servers[1].publish(json!({"topic": "k:a", "key": "y", "data": 2})).await;
    for stream in &mut streams {
        let mut events = Vec::new();
        while events.last().is_none_or(|event: &crate::support::Event| event.event != "deleted") {
            events.push(stream.next().await);
        }
        assert_eq!(events.last().expect("one").json(), json!({"topic": "k:a", "key": "x"}));
    }
    // The publisher dies before the end of its key.
    servers[0].publish(json!({"topic": "k:a", "key": "z", "data": 1, "ttl": "1s"})).await;
    servers[0].kill9();
    servers[1].publish(json!({"topic": "k:a", "key": "last", "data": 3})).await;
    for stream in &mut streams[1..] {
        let mut removed = 0;
        let mut event = stream.next().await;
        while event.event != "deleted" {
            event = stream.next().await;
        }
        assert_eq!(event.json()["key"], "z");
        removed += 1;
        assert_eq!(removed, 1);
    }
    servers[2].publish(json!({"topic": "k:a", "key": "after", "data": 4})).await;
    for stream in &mut streams[1..] {
        assert_eq!(stream.next().await.data, "4", "each key ended once");
    }
    let mut snapshot = Stream::subscribe(servers[2].addr, "topic=k:*&snapshot=true").await;
    let mut values = Vec::new();
    loop {
        let event = snapshot.next().await;
        if event.event == "live" {
            break;
        }
        values.push(event.data);
    }
    assert_eq!(values, ["2", "3", "4"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn number_and_age_never_remove_a_value_from_redis() {
    let redis = RedisServer::start(Options::default()).await;
    let toml = format!("{KEYED}history = {{ events = 3, ttl = \"1s\" }}\n");
    let servers = instances(&redis, 1, &toml).await;
    for number in 0..20 {
        let key = format!("key{number}");
        servers[0].publish(json!({"topic": "k:a", "key": key, "data": number})).await;
        servers[0].publish(json!({"topic": "k:a", "data": "keyless"})).await;
        servers[0].publish(json!({"topic": "k:a", "key": "gone", "delete": true})).await;
    }
    // Events without a key expire with the next publish.
    crate::support::until(DEADLINE, "only the values are left", async || {
        servers[0].publish(json!({"topic": "k:a", "key": "key0", "data": 0})).await;
        redis.command(&["XLEN", "fanfare:{1}:log:k:a"]).await;
        let keys = redis.lines(&["KEYS", "fanfare:*:log:k:a"]).await;
        redis.command(&["XLEN", &keys[0]]).await.contains("20")
    })
    .await;
    let fresh = instances(&redis, 1, &toml).await;
    let mut stream = Stream::subscribe(fresh[0].addr, "topic=k:*&snapshot=true").await;
    let mut values = Vec::new();
    loop {
        let event = stream.next().await;
        if event.event == "live" {
            break;
        }
        values.push(event.data.parse::<u32>().expect("a number"));
    }
    values.sort_unstable();
    assert_eq!(values, (0..20).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_map_over_cuts_and_instances_is_the_writer_s() {
    let redis = RedisServer::start(Options::default()).await;
    let servers = instances(&redis, 2, KEYED).await;
    let addrs: Vec<_> = servers.iter().map(|server| server.addr).collect();
    let (done, written) = tokio::sync::watch::channel(None);
    let clients: Vec<_> = (0..3)
        .map(|client| {
            tokio::spawn(keyed_writer::follow_over_cuts(addrs.clone(), client, written.clone()))
        })
        .collect();
    let map = keyed_writer::write(&addrs, 1000, 7).await;
    done.send(Some(map)).expect("clients listen");
    for client in clients {
        assert_eq!(client.await.expect("a client"), 0, "nothing is lost in history");
    }
}
