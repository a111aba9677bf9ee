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
mod missing_push;
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

use crate::support::{Launch, RedisServer, Server, Stream, http::publish, tokens::SECRET};

/// An instance with access control by tokens.
async fn start_with_access(url: &str) -> Server {
    let key = format!("[[access.keys]]\nalgorithm = \"HS256\"\nkey = {SECRET:?}\n");
    Server::launch(Launch {
        args: ["--redis", url, "--no-demo"].map(str::to_owned).to_vec(),
        config: Some(format!("[access]\nenabled = true\n{key}")),
        ..Launch::default()
    })
    .await
}

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

/// Publishes a text by a script like publish.lua, as a program without HTTP does.
async fn publish_by_script(
    server: &RedisServer,
    script: &str,
    partition: &Value,
    topic: &str,
    text: &str,
) {
    let names = ["seq", "epoch", "lineage", "topics", "evicted"].map(str::to_owned);
    let [log, keys] = ["log", "keys"].map(|kind| format!("{kind}:{topic}"));
    let names = names.into_iter().chain([log.clone(), keys, log]);
    let names: Vec<String> = names.map(|name| format!("fanfare:{{{partition}}}:{name}")).collect();
    let mut words = vec!["EVAL", script, "8"];
    words.extend(names.iter().map(String::as_str));
    words.extend(["1", "", "0", "1000", topic, "text", text, "", "", "", "0", "0"]);
    words.extend(["1000", "600000", "none"]);
    server.command(&words).await;
}
