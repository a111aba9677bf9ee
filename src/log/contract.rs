//! The promises of every log as tests, for one instance or several linked ones.

use std::time::Duration;

use fanfare_core::access::Grant;
use futures_util::future::join_all;

use crate::{
    Config, Event, Hub, PublishError, Subscription, publisher::AfterRefusal, testing::TestReader,
};

/// The configuration of the instances under test.
pub(crate) fn config() -> Config {
    let mut config = Config::default();
    config.delivery.tick = Duration::from_millis(5);
    config.publish.max_pending = 64;
    config.publish.max_wait = Duration::from_secs(1);
    config
}

/// Tests every promise, one after the other. The instances are new, and linked to each other.
pub(crate) async fn all(instances: &[Hub]) {
    order(instances).await;
    taken_means_kept(instances).await;
    refused_means_not_taken(instances).await;
    once(instances).await;
    idempotence(instances).await;
    no_wait_on_clients(instances).await;
}

fn ends(instances: &[Hub]) -> (&Hub, &Hub) {
    (&instances[0], &instances[instances.len() - 1])
}

async fn order(instances: &[Hub]) {
    let (here, there) = ends(instances);
    let mut reader = TestReader::open(there, Subscription::new().topic("order")).await;
    let mut answers = Vec::new();
    for number in 0..500 {
        let publish = here
            .check(&["order".to_owned()], Event::text(number.to_string()), &Grant::everything())
            .unwrap();
        answers.push(here.enqueue(vec![publish], AfterRefusal::Continue).await);
    }
    let answers = join_all(answers).await.into_iter().flatten().flatten();
    let sequences: Vec<u64> = answers.map(|answer| answer.unwrap().sequence).collect();
    assert!(sequences.is_sorted_by(|a, b| a < b));
    reader.read_until("data: 499\n").await;
    let expected: Vec<String> = (0..500).map(|number| number.to_string()).collect();
    assert_eq!(reader.data(), expected);
}

async fn taken_means_kept(instances: &[Hub]) {
    let (here, there) = ends(instances);
    let first = here.publish("kept", Event::text("first")).await.unwrap();
    here.publish("kept", Event::text("second")).await.unwrap();
    let resumed = Subscription::new().topic("kept").last_event_id(first.event_id);
    let mut reader = TestReader::open(there, resumed).await;
    reader.read_until("data: second\n").await;
    assert_eq!(reader.data(), ["second"]);
    assert!(reader.text.contains("\"resumed\":true"));
}

async fn refused_means_not_taken(instances: &[Hub]) {
    let (here, there) = ends(instances);
    let mut reader = TestReader::open(there, Subscription::new().topic("refused")).await;
    let max_payload = here.parts().config.publish.max_payload;
    let refused = here.publish("refused", Event::text("x".repeat(max_payload + 1))).await;
    assert_eq!(refused.unwrap_err().code(), "payload_too_large");
    // Take all permits, like publishes waiting for a slow worker.
    let topic = crate::TopicName::parse("refused").unwrap();
    let partition = topic.partition(here.parts().config.hub.partitions);
    let permits = here.parts().publisher.take_all_permits(partition).await;
    let refused = here.publish("refused", Event::text("refused")).await;
    assert_eq!(refused, Err(PublishError::AtCapacity));
    drop(permits);
    here.publish("refused", Event::text("taken")).await.unwrap();
    reader.read_until("data: taken\n").await;
    assert_eq!(reader.data(), ["taken"]);
}

async fn once(instances: &[Hub]) {
    let open = |hub| TestReader::open(hub, Subscription::new().topic("once").topic("once:*"));
    let mut readers = join_all(instances.iter().cycle().take(6).map(open)).await;
    for number in 0..100 {
        let hub = &instances[number % instances.len()];
        hub.publish("once", Event::text(number.to_string())).await.unwrap();
    }
    for reader in &mut readers {
        reader.read_until("data: 99\n").await;
        assert_eq!(reader.data().len(), 100);
    }
}

async fn idempotence(instances: &[Hub]) {
    let (here, there) = ends(instances);
    let mut reader = TestReader::open(there, Subscription::new().topic("idempotence")).await;
    let first = here.publish("idempotence", Event::text("first").id("an id")).await.unwrap();
    let again = there.publish("idempotence", Event::text("again").id("an id")).await.unwrap();
    assert_eq!((first.sequence, &first.event_id), (again.sequence, &again.event_id));
    here.publish("idempotence", Event::text("other").id("another id")).await.unwrap();
    reader.read_until("data: other\n").await;
    assert_eq!(reader.data(), ["first", "other"]);
}

async fn no_wait_on_clients(instances: &[Hub]) {
    let (here, there) = ends(instances);
    let _stalled = TestReader::open(there, Subscription::new().topic("stalled")).await;
    for _ in 0..2000 {
        here.publish("stalled", Event::text("x".repeat(1000))).await.unwrap();
    }
}
