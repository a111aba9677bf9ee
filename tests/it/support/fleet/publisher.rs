//! A publisher of a fleet: one event at a time, retried with the same id on any instance until it
//! is acknowledged.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use rand::{RngExt, rngs::StdRng};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{
    Log, Phase,
    ledger::data,
    wish::{TOPIC_COUNT, topic},
};
use crate::support::crowd::{self, pace};

/// Events per second of one publisher without faults.
const RATE: u32 = 20;

/// Longest time for an answer, with any fault of Redis.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(50);

/// Error codes allowed instead of 200: not accepted, or unconfirmed.
const TEMPORARY: [&str; 4] = ["bridge_down", "unconfirmed", "at_capacity", "draining"];

pub(super) struct Publisher {
    log: Arc<Log>,
    addresses: Arc<[SocketAddr]>,
    /// Index of its current instance.
    at: usize,
    connection: Option<crowd::Publisher>,
    random: StdRng,
}

impl Publisher {
    pub fn new(log: Arc<Log>, addresses: Arc<[SocketAddr]>, first: usize, random: StdRng) -> Self {
        Self { log, addresses, at: first, connection: None, random }
    }

    /// Publishes to random topics until [`Phase::Listen`].
    pub async fn run(mut self, phase: watch::Receiver<Phase>) {
        let mut pace = pace(RATE);
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while *phase.borrow() == Phase::Publish {
            pace.tick().await;
            let topic = self.random.random_range(0..TOPIC_COUNT);
            self.publish(topic).await;
        }
    }

    /// Publishes one event until it is acknowledged. Returns its number and topic.
    pub async fn publish(&mut self, to: usize) -> (usize, usize) {
        let number = self.log.begin(to);
        let id = format!("event-{number}");
        let event = json!({ "topic": topic(to), "data": data(number, to), "id": id });
        loop {
            let told = match timeout(ANSWER_DEADLINE, self.try_once(&event)).await {
                Ok(Ok((200, answer))) => {
                    self.log.acknowledge(number, &answer);
                    return (number, to);
                }
                Ok(Ok((status, answer))) => refusal(status, &answer),
                Ok(Err(_)) => "connection lost".to_owned(),
                Err(_) => panic!("no answer in {ANSWER_DEADLINE:?} to {event}"),
            };
            self.log.refuse(told);
            self.connection = None;
            self.at = self.random.random_range(0..self.addresses.len());
            sleep(PAUSE).await;
        }
    }

    async fn try_once(&mut self, event: &Value) -> io::Result<(u16, Value)> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => crowd::Publisher::try_connect(self.addresses[self.at]).await?,
        };
        let answered = connection.try_send(event).await?;
        self.connection = Some(connection);
        Ok(answered)
    }
}

fn refusal(status: u16, answer: &Value) -> String {
    let code = answer["error"]["code"].as_str().unwrap_or_default();
    assert!(status == 503 && TEMPORARY.contains(&code), "{status}: {answer}");
    code.to_owned()
}
