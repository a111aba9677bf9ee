//! Many instances as one hub over Redis, with faults of Redis, of the network, and of instances.

mod access;
mod chaos;
mod cut_replays;
mod direct;
mod failover;
mod fanout;
mod flush;
mod follows;
mod forged;
mod instances;
mod interest;
mod keyed;
mod memory;
mod network;
mod outage;
mod polls;
mod revocations;
mod rollback;
mod settings;
mod stored;
mod tickets;
mod together;

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::support::{Stream, http::publish};

/// Publishes a text to a topic. Returns the answer.
async fn publish_text(addr: SocketAddr, topic: &str, text: &str) -> Value {
    publish(addr, json!({ "topic": topic, "data": text })).await
}

/// Reads the next event; it must be a `gap` of this reason.
async fn expect_gap(stream: &mut Stream, reason: &str) -> Value {
    let event = stream.next().await;
    assert_eq!(event.event, "gap", "{event:?}");
    let told = event.json();
    assert_eq!(told["reason"], reason, "{told}");
    told
}
