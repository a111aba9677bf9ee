//! Many instances that a Redis makes one hub, and everything that can happen to that Redis,
//! to the network before it, and to the instances.

mod access;
mod chaos;
mod direct;
mod failover;
mod fanout;
mod follows;
mod instances;
mod interest;
mod network;
mod outage;
mod together;

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::support::{Stream, http::publish};

/// Publishes a text to a topic; the answer.
async fn publish_text(addr: SocketAddr, topic: &str, text: &str) -> Value {
    publish(addr, json!({ "topic": topic, "data": text })).await
}

/// The next event, which must be a `gap` for this reason.
async fn expect_gap(stream: &mut Stream, reason: &str) -> Value {
    let event = stream.next().await;
    assert_eq!(event.event, "gap", "{event:?}");
    let told = event.json();
    assert_eq!(told["reason"], reason, "{told}");
    told
}
