//! The log on disk in running hubs: the contract suite of logs, restarts, and panics.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use super::contract;
use crate::{
    Config, Event, Hub, Subscription, actors::partition::Panic, error::StartError,
    testing::TestReader,
};

/// A directory of one test.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("fanfare-unit-log-{}-{number}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    fn config(&self) -> Config {
        let mut config = contract::config();
        config.log.directory = self.0.to_str().unwrap().to_owned();
        config
    }

    fn start(&self) -> Hub {
        Hub::start(self.config()).unwrap()
    }

    /// Starts a hub once the log is free.
    async fn start_again(&self) -> Hub {
        loop {
            match Hub::start(self.config()) {
                Ok(hub) => return hub,
                Err(StartError::Log(text)) if text.contains("in use") => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn topic() -> Subscription {
    Subscription::new().topic("topic")
}

async fn publish(hub: &Hub, data: &str) -> String {
    hub.publish("topic", Event::text(data)).await.unwrap().event_id
}

#[actix_web::test]
async fn a_log_on_disk_keeps_every_promise() {
    let directory = Directory::new();
    contract::all(&[directory.start()]).await;
}

#[actix_web::test]
async fn a_clean_restart_keeps_events_ids_sequences_and_epoch() {
    let directory = Directory::new();
    let hub = directory.start();
    let mut reader = TestReader::open(&hub, topic()).await;
    publish(&hub, "before").await;
    reader.read_until("data: before\n").await;
    let first = hub.publish("topic", Event::text("missed").id("once")).await.unwrap();
    let last_id = reader.last_id().to_owned();
    hub.drain(Duration::from_secs(1)).await;
    drop(hub);
    let hub = directory.start_again().await;
    let again = hub.publish("topic", Event::text("again").id("once")).await.unwrap();
    assert_eq!(first, again, "the first answer");
    let next = hub.publish("topic", Event::text("next")).await.unwrap();
    assert_eq!(next.sequence, first.sequence + 1);
    let mut back = TestReader::open(&hub, topic().last_event_id(last_id)).await;
    back.read_until("data: next\n").await;
    assert!(back.data().ends_with(&["missed", "next"]), "{}", back.text);
    assert!(!back.text.contains("event: gap"), "{}", back.text);
    assert!(!back.data().contains(&"again"));
}

#[actix_web::test]
async fn an_unclean_stop_steps_the_sequence_and_is_no_gap_for_kept_events() {
    let directory = Directory::new();
    let hub = directory.start();
    let first = publish(&hub, "first").await;
    let second = hub.publish("topic", Event::text("second")).await.unwrap();
    drop(hub);
    let hub = directory.start_again().await;
    let third = hub.publish("topic", Event::text("third")).await.unwrap();
    assert_eq!(third.sequence, second.sequence + (1 << 20) + 1);
    let mut back = TestReader::open(&hub, topic().last_event_id(first)).await;
    back.read_until("data: third\n").await;
    assert_eq!(back.data(), ["second", "third"]);
    assert!(!back.text.contains("event: gap"), "{}", back.text);
    // A position between them was never given out by this log.
    let (partition, sequence) = (second.partition, second.sequence);
    let past = second.event_id.clone();
    let past = TestReader::open(&hub, topic().last_event_id(past)).await;
    assert!(!past.text.contains("event: gap"), "{partition} {sequence}");
}

#[actix_web::test]
async fn a_panicking_partition_answers_all_publishes_and_its_streams_resume() {
    let directory = Directory::new();
    let hub = directory.start();
    let mut reader = TestReader::open(&hub, topic()).await;
    let before = publish(&hub, "before").await;
    reader.read_until("data: before\n").await;
    let number = crate::TopicName::parse("topic").unwrap().partition(16);
    hub.parts().publisher.partition(number).send(Panic).await.unwrap();
    reader.read_to_end().await;
    publish(&hub, "while away").await;
    let mut back = TestReader::open(&hub, topic().last_event_id(before)).await;
    publish(&hub, "after").await;
    back.read_until("data: after\n").await;
    assert_eq!(back.data(), ["while away", "after"]);
    assert!(!back.text.contains("event: gap"), "{}", back.text);
}

#[actix_web::test]
async fn a_key_ends_at_its_time_also_after_a_restart() {
    let directory = Directory::new();
    let keyed = || {
        let mut config = directory.config();
        let entry = "[[topics]]\npattern = \"topic\"\nconflate = \"latest-by-key\"";
        let extra: Config = Config::from_toml(entry).unwrap();
        config.topics = extra.topics;
        config
    };
    let hub = Hub::start(keyed()).unwrap();
    let value = Event::text("value").key("k").ttl(Duration::from_millis(300));
    let id = hub.publish("topic", value).await.unwrap().event_id;
    hub.drain(Duration::from_secs(1)).await;
    drop(hub);
    let hub = Hub::start(keyed()).unwrap();
    let mut reader = TestReader::open(&hub, topic().last_event_id(id)).await;
    reader.read_until("event: deleted\n").await;
    assert!(!reader.text.contains("event: gap"), "{}", reader.text);
}
