//! Keyed state: removed keys, keys with a time to live, and the snapshot of the current values.

use std::time::Duration;

use serde_json::{Value, json};

use super::Server;
use crate::support::{
    Event, Stream, http::try_publish, keyed_writer, synced_map::SyncedMap, wait::DEADLINE,
};

const KEYED: &str = "[[topics]]\npattern = \"k:**\"\nconflate = \"latest-by-key\"\n";

async fn server() -> Server {
    Server::with_config(KEYED).await
}

async fn set(server: &Server, key: &str, data: impl Into<Value>) {
    server.publish(json!({"topic": "k:a", "key": key, "data": data.into()})).await;
}

async fn delete(server: &Server, key: &str) {
    server.publish(json!({"topic": "k:a", "key": key, "delete": true})).await;
}

/// The data of a snapshot, up to `live`.
async fn snapshot(server: &Server, query: &str) -> Vec<String> {
    let mut stream = Stream::subscribe(server.addr, &format!("{query}&snapshot=true")).await;
    up_to_live(&mut stream).await.into_iter().map(|event| event.data).collect()
}

async fn up_to_live(stream: &mut Stream) -> Vec<Event> {
    let mut events = Vec::new();
    loop {
        let event = stream.next().await;
        if event.event == "live" {
            assert_eq!(event.json(), json!({}));
            assert!(!event.id.is_empty());
            return events;
        }
        events.push(event);
    }
}

#[tokio::test]
async fn a_removed_key_is_an_event_and_leaves_the_snapshot() {
    let server = server().await;
    set(&server, "x", 1).await;
    set(&server, "y \"z\"/é", 2).await;
    let mut all = Stream::subscribe(server.addr, "topic=k:*").await;
    let mut typed = Stream::subscribe(server.addr, "topic=k:*&types=other").await;
    delete(&server, "x").await;
    for stream in [&mut all, &mut typed] {
        let event = stream.next().await;
        assert_eq!(event.event, "deleted");
        assert_eq!(event.data, r#"{"topic":"k:a","key":"x"}"#);
    }
    assert_eq!(snapshot(&server, "topic=k:*").await, ["2"]);
    // A named type is filtered like any other.
    let named = json!({"topic": "k:a", "key": "y \"z\"/é", "delete": true, "event": "gone"});
    server.publish(named).await;
    let event = all.next().await;
    assert_eq!(event.event, "gone");
    assert_eq!(event.json(), json!({"topic": "k:a", "key": "y \"z\"/é"}));
    set(&server, "x", 3).await;
    server.publish(json!({"topic": "k:a", "event": "other", "data": 4})).await;
    assert_eq!(typed.next().await.data, "4");
    assert_eq!(snapshot(&server, "topic=k:*").await, ["3", "4"]);
}

#[tokio::test]
async fn a_client_away_gets_the_removal() {
    let server = server().await;
    set(&server, "x", 1).await;
    let mut stream = Stream::subscribe(server.addr, "topic=k:*&snapshot=true").await;
    assert_eq!(up_to_live(&mut stream).await.len(), 1);
    let id = stream.last_id().to_owned();
    drop(stream);
    delete(&server, "x").await;
    let mut stream = Stream::resume(server.addr, "topic=k:*&snapshot=true", &id).await;
    assert_eq!(stream.connected["resumed"], true);
    let events = up_to_live(&mut stream).await;
    assert_eq!((events.len(), events[0].event.as_str()), (1, "deleted"));
}

#[tokio::test]
async fn a_key_ends_with_its_time_to_live_unless_it_is_published_again() {
    let server = server().await;
    let mut stream = Stream::subscribe(server.addr, "topic=k:*").await;
    // The end of `y` would come before the one of `x`.
    for (key, ttl) in [("y", "3s"), ("x", "3500ms"), ("z", "1h")] {
        server.publish(json!({"topic": "k:a", "key": key, "data": key, "ttl": ttl})).await;
    }
    set(&server, "y", "stays").await;
    let mut ended = Vec::new();
    let mut got = Vec::new();
    while ended.is_empty() {
        let event = stream.next().await;
        match event.event.as_str() {
            "deleted" => ended.push(event.json()["key"].clone()),
            _ => got.push(event.data),
        }
    }
    assert_eq!(ended, ["x"]);
    let mut values = snapshot(&server, "topic=k:*").await;
    values.sort();
    assert_eq!(values, ["stays", "z"]);
    // One removal only, and none of `y`: the next event is another.
    server.publish(json!({"topic": "k:a", "key": "w", "data": "w", "ttl": "1ms"})).await;
    let mut next = stream.next().await;
    while next.event != "deleted" {
        next = stream.next().await;
    }
    assert_eq!(next.json()["key"], "w");
}

#[tokio::test]
async fn number_and_age_of_the_events_never_remove_a_value() {
    let toml = format!("{KEYED}history = {{ events = 3, ttl = \"1s\" }}\n");
    let server = Server::with_config(&toml).await;
    for number in 0..20 {
        set(&server, &format!("key{number}"), number).await;
    }
    for number in 0..10 {
        server.publish(json!({"topic": "k:a", "data": format!("keyless{number}")})).await;
        delete(&server, &format!("gone{number}")).await;
    }
    let values = || async {
        let mut values = snapshot(&server, "topic=k:*").await;
        values.retain(|data| !data.starts_with("keyless"));
        values.sort_by_key(|data| data.parse::<u32>().expect("a number"));
        values
    };
    let expected: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    assert_eq!(values().await, expected);
    // Of the other events, at most three are left; in time, none.
    crate::support::until(DEADLINE, "events without a key expire", async || {
        snapshot(&server, "topic=k:*").await.len() == 20
    })
    .await;
    assert_eq!(values().await, expected);
}

#[tokio::test]
async fn the_bound_in_bytes_removes_the_oldest_values_and_tells_it() {
    let toml = format!("{KEYED}[history]\nmax_bytes = \"64KiB\"\n[hub]\npartitions = 1\n");
    let server = Server::with_config(&toml).await;
    let mut client = SyncedMap::default();
    let mut stream = Stream::subscribe(server.addr, "topic=k:*&batch=json").await;
    // Other events leave first.
    for number in 0..10 {
        server
            .publish(json!({"topic": "chat", "data": "x".repeat(3000), "id": number.to_string()}))
            .await;
    }
    for number in 0..30 {
        set(&server, &format!("key{number:02}"), "x".repeat(1000)).await;
    }
    assert_eq!(snapshot(&server, "topic=k:*").await.len(), 30);
    for number in 30..200 {
        set(&server, &format!("key{number:03}"), "x".repeat(1000)).await;
    }
    let left = snapshot(&server, "topic=k:*").await;
    assert!((10..70).contains(&left.len()), "{}", left.len());
    // A value can be removed within its tick: then only the removal leaves.
    let mut removed: Vec<String> = Vec::new();
    while removed.len() + left.len() < 200 {
        let event = stream.next().await;
        assert_eq!(event.event, "batch");
        for item in event.json().as_array().expect("a list") {
            if item["event"] == "deleted" {
                removed.push(item["key"].as_str().expect("a key").to_owned());
            }
        }
    }
    assert!(removed.is_sorted_by_key(|key| key[3..].parse::<u32>().expect("a number")));
    client.follow(server.addr, "k:*", Duration::from_millis(500)).await;
    assert_eq!(client.map.len(), left.len());
}

#[tokio::test]
async fn live_follows_all_pages_of_the_snapshot_once() {
    let server = server().await;
    for number in 0..200 {
        set(&server, &format!("key{number}"), "x".repeat(10_000)).await;
    }
    let mut stream = Stream::subscribe(server.addr, "topic=k:*&snapshot=true&batch=json").await;
    let mut keys = Vec::new();
    for event in up_to_live(&mut stream).await {
        assert_eq!(event.event, "batch");
        for item in event.json().as_array().expect("a list") {
            assert_eq!(item["topic"], "k:a");
            keys.push(item["key"].as_str().expect("a key").to_owned());
        }
    }
    assert_eq!(keys.len(), 200);
    let id = stream.last_id().to_owned();
    delete(&server, "key7").await;
    let event = stream.next().await;
    assert_eq!((event.event.as_str(), &event.json()[0]["key"]), ("batch", &json!("key7")));
    // Also after a resume, behind the missed events.
    let mut stream = Stream::resume(server.addr, "topic=k:*&snapshot=true", &id).await;
    let missed = up_to_live(&mut stream).await;
    assert_eq!((missed.len(), missed[0].event.as_str()), (1, "deleted"));
    // A stream without the snapshot has no `live`.
    let mut stream = Stream::resume(server.addr, "topic=k:*", &id).await;
    set(&server, "last", 1).await;
    assert_eq!(stream.next().await.event, "deleted");
    assert_eq!(stream.next().await.data, "1");
}

#[tokio::test]
async fn an_invalid_removal_is_refused() {
    let server = server().await;
    for (event, code) in [
        (json!({"topic": "a", "key": "k", "delete": true}), "not_keyed"),
        (json!({"topic": "a", "key": "k", "data": 1, "ttl": "1s"}), "not_keyed"),
        (json!({"topics": ["k:a", "a"], "key": "k", "delete": true}), "not_keyed"),
        (json!({"topic": "k:a", "delete": true}), "bad_event"),
        (json!({"topic": "k:a", "data": 1, "ttl": "1s"}), "bad_event"),
        (json!({"topic": "k:a", "key": "k", "data": 1, "delete": true}), "bad_event"),
        (json!({"topic": "k:a", "key": "k", "ttl": "1s", "delete": true}), "bad_event"),
        (json!({"topic": "k:a", "key": "k", "data": 1, "ttl": "0s"}), "bad_event"),
        (json!({"topic": "k:a", "key": "k", "data": 1, "ttl": "soon"}), "bad_event"),
        (json!({"topic": "k:a", "key": "k", "data": 1, "ttl": "10000d"}), "bad_event"),
        (json!({"topic": "k:a", "key": "k"}), "bad_event"),
        (json!({"topic": "k:a", "event": "live", "data": 1}), "bad_event"),
    ] {
        let answer = try_publish(server.addr, &event).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, code), "{event}");
    }
    server.publish(json!({"topics": ["k:a", "k:b"], "key": "k", "delete": true})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_s_map_over_random_cuts_is_the_writer_s() {
    for seed in 0..3 {
        let server = server().await;
        let addr = server.addr;
        let (done, written) = tokio::sync::watch::channel(None);
        let clients: Vec<_> = (0..4)
            .map(|client| {
                let written = written.clone();
                tokio::spawn(keyed_writer::follow_over_cuts(
                    vec![addr],
                    10 * seed + client,
                    written,
                ))
            })
            .collect();
        let map = keyed_writer::write(&[addr], 1500, seed).await;
        done.send(Some(map)).expect("clients listen");
        for client in clients {
            assert_eq!(client.await.expect("a client"), 0, "nothing is lost in history");
        }
    }
}
