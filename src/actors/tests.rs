//! Panicking actors in a running hub.

use std::{sync::atomic::Ordering, time::Duration};

use super::{
    connection::{self, Mail},
    partition, topic_manager,
};
use crate::{Config, Event, Hub, Subscription, testing::TestReader};

fn hub() -> Hub {
    let mut config = Config::default();
    config.delivery.tick = Duration::from_millis(5);
    config.hub.partitions = 1;
    Hub::start(config).unwrap()
}

async fn publish(hub: &Hub, data: &str) {
    hub.publish("topic", Event::text(data)).await.unwrap();
}

fn topic() -> Subscription {
    Subscription::new().topic("topic")
}

/// Checks the state after a panic: the stream has ended with `shutdown`, its client resumes with
/// the last id and misses nothing, and new events arrive.
async fn resumes_without_loss(hub: &Hub, mut broken: TestReader) {
    broken.read_to_end().await;
    assert!(broken.text.contains("event: shutdown\n"), "{}", broken.text);
    publish(hub, "while away").await;
    let mut back = TestReader::open(hub, topic().last_event_id(broken.last_id())).await;
    publish(hub, "after").await;
    back.read_until("data: after\n").await;
    assert_eq!([broken.data(), back.data()].concat(), ["before", "while away", "after"]);
    assert!(!back.text.contains("event: gap"));
    assert_eq!(hub.parts().metrics.actor_panics.load(Ordering::Relaxed), 1);
}

#[actix_web::test]
async fn a_partition_that_panics_is_rebuilt_and_its_streams_resume_without_loss() {
    let hub = hub();
    let mut reader = TestReader::open(&hub, topic()).await;
    publish(&hub, "before").await;
    reader.read_until("data: before\n").await;
    hub.parts().publisher.partition(0).send(partition::Panic).await.unwrap();
    resumes_without_loss(&hub, reader).await;
}

#[actix_web::test]
async fn a_topic_manager_that_panics_is_rebuilt_and_its_streams_resume_without_loss() {
    let hub = hub();
    let mut reader = TestReader::open(&hub, topic()).await;
    publish(&hub, "before").await;
    reader.read_until("data: before\n").await;
    hub.parts().worker().manager.send(topic_manager::Panic).await.unwrap();
    resumes_without_loss(&hub, reader).await;
}

#[actix_web::test]
async fn a_connection_that_panics_costs_its_own_stream_only() {
    let hub = hub();
    let mut other = TestReader::open(&hub, topic()).await;
    let mut reader = TestReader::open(&hub, topic()).await;
    publish(&hub, "before").await;
    reader.read_until("data: before\n").await;
    reader.connection().post(Mail::Panic(connection::Panic));
    resumes_without_loss(&hub, reader).await;
    other.read_until("data: after\n").await;
    assert_eq!(other.data(), ["before", "while away", "after"]);
    assert!(!other.text.contains("event: shutdown"));
}

#[actix_web::test]
async fn dropping_the_last_handle_ends_streams_and_actors() {
    let hub = hub();
    let partition = hub.parts().publisher.partition(0).clone();
    let manager = hub.parts().worker().manager.clone();
    let mut reader = TestReader::open(&hub, topic()).await;
    drop(hub);
    reader.read_to_end().await;
    assert!(reader.text.contains("event: shutdown\n"));
    while partition.connected() || manager.connected() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
