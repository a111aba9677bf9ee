//! A client's map of keyed state, kept by a plain stream: `snapshot=true`, events, `deleted`. It is
//! cut at any moment and returns with its last id.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use serde_json::Value;
use tokio::time::timeout;

use super::{Event, Stream};

/// Values by topic and key.
pub type Map = BTreeMap<(String, String), Value>;

/// A client with its map.
#[derive(Debug, Default)]
pub struct SyncedMap {
    pub map: Map,
    /// The last id; empty for a new snapshot.
    id: String,
    pub gaps: usize,
}

impl SyncedMap {
    /// Opens a stream and applies its events for `time`, then cuts it without a word.
    pub async fn follow(&mut self, addr: SocketAddr, pattern: &str, time: Duration) {
        let query = format!("topic={pattern}&snapshot=true&batch=json");
        let followed = timeout(time, async {
            let id = self.id.clone();
            let headers = [("Last-Event-ID", id.as_str())];
            let headers = if id.is_empty() { &[][..] } else { &headers[..] };
            let mut stream = Stream::subscribe_with(addr, &query, headers).await;
            let mut is_live = false;
            self.id = stream.last_id().to_owned();
            while let Some(event) = stream.read_event().await {
                assert!(!(is_live && event.event == "live"), "`live` comes once");
                is_live |= event.event == "live";
                if !self.apply(&event) {
                    return;
                }
            }
        });
        // The end of the time cuts the stream.
        let _ = followed.await;
    }

    /// Applies an event. False for a gap: the client then begins anew.
    fn apply(&mut self, event: &Event) -> bool {
        match event.event.as_str() {
            "gap" => {
                self.gaps += 1;
                self.map.clear();
                self.id.clear();
                return false;
            }
            "batch" => {
                let items = event.json();
                items.as_array().expect("a list").iter().for_each(|item| self.apply_item(item));
            }
            _ => {}
        }
        self.id.clone_from(&event.id);
        true
    }

    fn apply_item(&mut self, item: &Value) {
        let text = |name: &str| item[name].as_str().expect("a name").to_owned();
        let name = (text("topic"), text("key"));
        match item["event"].as_str() {
            Some("deleted") => {
                assert_eq!(item["data"]["key"], item["key"], "{item}");
                assert_eq!(item["data"]["topic"], item["topic"], "{item}");
                self.map.remove(&name);
            }
            _ => {
                self.map.insert(name, item["data"].clone());
            }
        }
    }
}
