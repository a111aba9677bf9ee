//! A single push missing on a live connection. Redis never loses one, so a changed publish script
//! leaves it out.

use serde_json::Value;

use super::{direct::publish_script, publish_by_script, publish_text};
use crate::support::{Instances, RedisServer, Stream, redis::Options};

/// The publish script without its push to the channel of the topic.
fn script_without(line: &str) -> String {
    let script = publish_script();
    let changed = script.replace(line, "");
    assert_ne!(changed, script);
    changed
}

const PUSH: &str = "redis.call('SPUBLISH', channels .. 'topic:' .. event[1], message)";
const ANNOUNCEMENT: &str =
    "redis.call('SPUBLISH', channels .. 'announced', signed('announced', table.concat(parts)))";

/// Two topics of one partition, and the partition.
async fn neighbours(instances: &Instances) -> ([String; 2], Value) {
    let first = publish_text(instances.addr(0), "t:0", "probe").await["partition"].clone();
    for number in 1.. {
        let topic = format!("t:{number}");
        if publish_text(instances.addr(0), &topic, "probe").await["partition"] == first {
            return (["t:0".to_owned(), topic], first);
        }
    }
    unreachable!()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_push_comes_before_any_newer_event_of_another_topic() {
    let redis = RedisServer::start(Options::default()).await;
    let url = redis.url();
    let instances = Instances::start(&[&url, &url], &[]).await;
    let ([a, b], partition) = neighbours(&instances).await;
    let query = format!("topic={a}&topic={b}");
    let mut stream = Stream::subscribe(instances.addr(0), &query).await;
    publish_text(instances.addr(0), &a, "1").await;
    assert_eq!(stream.take_data(1).await, ["1"]);
    // Without the push; without the announcement; without both.
    let without_both = script_without(PUSH).replace(ANNOUNCEMENT, "");
    for (number, script) in
        [script_without(PUSH), script_without(ANNOUNCEMENT), without_both].iter().enumerate()
    {
        let (missing, next) = (format!("missing {number}"), format!("next {number}"));
        publish_by_script(&redis, script, &partition, &a, &missing).await;
        publish_text(instances.addr(1), &b, &next).await;
        assert_eq!(stream.take_data(2).await, [missing, next]);
        // Moved to the other instance with its newest id, the stream has missed nothing.
        let mut moved = Stream::resume(instances.addr(1), &query, stream.last_id()).await;
        assert_eq!(moved.connected["resumed"], true);
        let after = format!("after {number}");
        publish_text(instances.addr(0), &a, &after).await;
        assert_eq!(moved.take_data(1).await, std::slice::from_ref(&after));
        assert_eq!(stream.take_data(1).await, [after]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_last_push_comes_with_the_probe() {
    let redis = RedisServer::start(Options::default()).await;
    let url = redis.url();
    let instances = Instances::start(&[&url], &[]).await;
    let partition = publish_text(instances.addr(0), "a", "1").await["partition"].clone();
    let mut stream = Stream::subscribe(instances.addr(0), "topic=a").await;
    publish_by_script(&redis, &script_without(PUSH), &partition, "a", "missing").await;
    assert_eq!(stream.take_data(1).await, ["missing"]);
}
