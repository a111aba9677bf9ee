//! Polls at changing instances of a cluster, mixed with streams.

use serde_json::{Value, json};

use crate::support::{Instances, RedisServer, Stream, http::get, redis::Options};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn polls_and_streams_at_any_instance_share_their_cursors() {
    let redis = RedisServer::start(Options::default()).await;
    let instances = Instances::start(&[redis.url(), redis.url()], &[]).await;
    let first = get(instances.addr(0), "/events/poll?topics=a,b:*").await.json();
    let mut cursor = first["cursor"].as_str().expect("a cursor").to_owned();
    let mut got = Vec::new();
    for round in 0..12 {
        let publisher = &instances.servers[round % 2];
        publisher.publish(json!({"topic": "a", "data": 2 * round})).await;
        publisher.publish(json!({"topic": "b:x", "data": 2 * round + 1})).await;
        let addr = instances.addr((round / 2) % 2);
        if round % 3 == 2 {
            let mut stream = Stream::resume(addr, "topics=a,b:*", &cursor).await;
            while got.len() < 2 * round + 2 {
                got.push(stream.next().await.data.parse::<u64>().expect("a number"));
            }
            cursor = stream.last_id().to_owned();
            continue;
        }
        while got.len() < 2 * round + 2 {
            let path = format!("/events/poll?topics=a,b:*&wait=30&last_event_id={cursor}");
            let answer = get(addr, &path).await.json();
            assert!(answer.get("gap").is_none(), "{answer}");
            let events = answer["events"].as_array().expect("a list");
            got.extend(events.iter().map(|event| event["data"].as_u64().expect("a number")));
            cursor = answer["cursor"].as_str().expect("a cursor").to_owned();
        }
    }
    got.sort_unstable();
    assert_eq!(got, (0..24).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_a_poll_is_refused_and_its_cursor_keeps() {
    let redis = RedisServer::start(Options::append_only()).await;
    let mut redis = redis;
    let instances = Instances::start(&[redis.url()], &[]).await;
    let addr = instances.addr(0);
    let cursor = get(addr, "/events/poll?topic=a").await.json()["cursor"].clone();
    let path = format!("/events/poll?topic=a&wait=10&last_event_id={}", cursor.as_str().unwrap());
    redis.kill();
    instances.until_not_ready().await;
    let refused = get(addr, &path).await;
    assert_eq!((refused.status, refused.code().as_str()), (503, "bridge_down"));
    redis.restart().await;
    instances.until_ready().await;
    instances.servers[0].publish(json!({"topic": "a", "data": 1})).await;
    let answer = get(addr, &path).await.json();
    assert_eq!(answer["events"][0]["data"], Value::from(1), "{answer}");
}
