//! Clients by other authors read the hub's bytes: curl, `EventSource` of Chromium and Firefox, and the npm
//! packages `eventsource` and `@microsoft/fetch-event-source`, side by side. Chromium also opens
//! the demo page and the pages of the examples.

mod access;
mod client;
mod embed;
mod readers;
mod social_feed;
mod tls;
mod upload_progress;
mod walk;

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use self::{
    readers::{Reader, Seen, all_readers},
    walk::Walk,
};
use crate::support::{
    Server, browser_turn,
    crowd::{eventually, pace},
    relay::Relay,
};

const TOPIC: &str = "interop:news";

/// Includes the start of a browser on a busy machine.
const BROWSER_DEADLINE: Duration = Duration::from_secs(90);

/// Cuts of every reader before the last event.
const CUT_COUNT: usize = 2;

/// Short reconnect times keep the test short.
const CONFIG: &str = r#"
[stream]
retry_min = "200ms"
retry_max = "500ms"
"#;

/// Type and data, as published. No data begins with a line end or U+FEFF: `fetch-event-source`
/// swallows both.
const EVENTS: [(Option<&str>, &str); 12] = [
    (None, "plain"),
    (Some("note"), "named"),
    (Some("message"), "named as it would be without a name"),
    (None, "three\nlines\nhere"),
    (None, "an empty line\n\nwithin, and one at the end\n"),
    (None, "CRLF\r\nand CR\rend lines too"),
    (None, "not\u{2028}lines\u{2029}for\u{85}us"),
    (Some("note"), "Grüße, 世界 \u{1f980}"),
    (None, " a blank before, a tab\tand a blank behind "),
    (None, ": no comment"),
    (None, "data: not ours\nid: 7\nretry: 1\nevent: shutdown\n\ndata: an event of its own"),
    (None, "within a text, \u{feff} is no byte order mark"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_two_browsers_and_two_npm_packages_see_the_same_events_and_ids() {
    let _turn = browser_turn().await;
    let server = Server::with_config(CONFIG).await;
    let readers = all_readers(server.addr);
    until_connected(&readers, 1).await;

    let mut published = Vec::new();
    for (kind, data) in EVENTS {
        published.push(publish(&server, kind, json!(data)).await);
    }
    let long = "long ".repeat(12_000);
    published.push(publish(&server, None, json!(long)).await);
    published.push(publish(&server, Some("note"), json!({ "price": 1.5, "lines": "a\nb" })).await);
    published.push(publish(&server, Some("done"), json!("over")).await);

    for reader in &readers {
        reader.until("the last event", is_done).await;
        assert_saw(reader, &published);
        assert_eq!(count(&reader.seen(), "connected"), 1, "{}", reader.name);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_readers_return_by_themselves_and_resume_when_the_server_ends_their_streams() {
    let _turn = browser_turn().await;
    let server = Server::with_config(&format!("{CONFIG}max_lifetime = \"1500ms\"")).await;
    let readers = all_readers(server.addr);
    follow_through_cuts(&server, readers, || {}).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_readers_return_by_themselves_and_resume_when_their_connections_are_reset() {
    let _turn = browser_turn().await;
    let server = Server::with_config(CONFIG).await;
    let relay = Relay::to(server.addr).await;
    let readers = all_readers(relay.addr);
    follow_through_cuts(&server, readers, || relay.reset_all()).await;
}

/// Publishes without a pause while all readers are cut again and again, also while they are
/// disconnected. At the end each reader has every event once and in order.
async fn follow_through_cuts(server: &Server, readers: Vec<Reader>, cut: impl Fn()) {
    until_connected(&readers, 1).await;
    let mut published = Vec::new();
    let mut pace = pace(20);
    for round in 1..=CUT_COUNT {
        cut();
        let deadline = Instant::now() + BROWSER_DEADLINE;
        while !readers.iter().all(|reader| count(&reader.seen(), "connected") > round) {
            assert!(Instant::now() < deadline, "not all came back: {readers:?}");
            pace.tick().await;
            let text = format!("event {}\nof many", published.len() + 1);
            published.push(publish(server, Some("note"), json!(text)).await);
        }
    }
    published.push(publish(server, Some("done"), json!("over")).await);
    for reader in &readers {
        reader.until("the last event", is_done).await;
        assert_saw(reader, &published);
        let seen = reader.seen();
        assert_eq!(count(&seen, "gap"), 0, "{}", reader.name);
        let connected = seen.iter().filter(|event| event.kind == "connected");
        let resumed: Vec<bool> =
            connected.map(|event| event.data.contains("\"resumed\":true")).collect();
        assert!(resumed.len() > CUT_COUNT, "{}: {resumed:?}", reader.name);
        assert!(!resumed[0] && resumed[1..].iter().all(|resumed| *resumed), "{}", reader.name);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_page_is_live_takes_a_note_and_survives_a_restart_of_the_hub() {
    let _turn = browser_turn().await;
    let server = Server::start(&[]).await;
    let mut walk = Walk::start("demo-page", server.addr, &[]);
    assert_eq!(walk.next().await["ready"], true);
    let _server = server.restart().await;
    walk.tell("restarted").await;
    walk.finish(&["demo-desktop.png", "demo-phone-dark.png"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_without_data_lands_on_a_page_to_publish_and_follow() {
    let _turn = browser_turn().await;
    let server = Server::start(&["--no-demo"]).await;
    let walk = Walk::start("landing-page", server.addr, &[]);
    walk.finish(&["landing-desktop.png", "landing-phone-dark.png"]).await;
}

async fn publish(server: &Server, kind: Option<&str>, data: Value) -> Seen {
    let mut event = json!({ "topic": TOPIC, "data": data });
    if let Some(kind) = kind {
        event["event"] = json!(kind);
    }
    let answer = server.publish(event).await;
    // The client's view: each line end is LF.
    let text = data.as_str().map_or_else(|| data.to_string(), str::to_owned);
    Seen {
        kind: kind.unwrap_or("message").to_owned(),
        id: answer["eventId"].as_str().expect("an id").to_owned(),
        data: text.replace("\r\n", "\n").replace('\r', "\n"),
    }
}

async fn until_connected(readers: &[Reader], times: usize) {
    for reader in readers {
        let what = format!("connected {times} times");
        reader.until(&what, |seen| count(seen, "connected") >= times).await;
    }
}

/// The reader saw all published events, each once and in order.
fn assert_saw(reader: &Reader, published: &[Seen]) {
    let mut seen = reader.seen();
    seen.retain(|event| ["message", "note", "done"].contains(&event.kind.as_str()));
    for (seen, published) in seen.iter().zip(published) {
        assert_eq!(seen, published, "{}", reader.name);
    }
    assert_eq!(seen.len(), published.len(), "{}", reader.name);
}

fn count(seen: &[Seen], kind: &str) -> usize {
    seen.iter().filter(|event| event.kind == kind).count()
}

fn is_done(seen: &[Seen]) -> bool {
    count(seen, "done") > 0
}
