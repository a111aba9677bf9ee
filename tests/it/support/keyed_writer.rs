//! A publisher of keyed state, and the map its clients must end with.

use std::{net::SocketAddr, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::json;

use super::{
    publish,
    synced_map::{Map, SyncedMap},
    wait::DEADLINE,
};

/// The topics of the state.
const TOPICS: [&str; 4] = ["k:a", "k:b", "k:c", "k:d:e"];

/// Publishes `count` random changes: values, values with a time to live, and removals. Returns the
/// map after all ends.
pub async fn write(addrs: &[SocketAddr], count: usize, seed: u64) -> Map {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut map = Map::new();
    for number in 0..count {
        let topic = TOPICS[rng.random_range(0..TOPICS.len())];
        let key = format!("key {}", rng.random_range(0..40));
        let name = (topic.to_owned(), key.clone());
        let mut event = json!({"topic": topic, "key": key});
        let kind = rng.random_range(0..10);
        map.remove(&name);
        match kind {
            0..3 => event["delete"] = true.into(),
            3..5 => {
                event["data"] = number.into();
                event["ttl"] = format!("{}ms", rng.random_range(1..400)).into();
            }
            _ => {
                event["data"] = json!({"n": number, "pad": "x".repeat(rng.random_range(0..2000))});
                map.insert(name, event["data"].clone());
            }
        }
        publish(addrs[number % addrs.len()], event).await;
    }
    map
}

/// Follows the state in short streams at changing instances until the writer is done. Returns the
/// client's map once it equals the writer's, and the number of gaps.
pub async fn follow_over_cuts(
    addrs: Vec<SocketAddr>,
    seed: u64,
    mut written: tokio::sync::watch::Receiver<Option<Map>>,
) -> usize {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut client = SyncedMap::default();
    while written.borrow_and_update().is_none() {
        let addr = addrs[rng.random_range(0..addrs.len())];
        client.follow(addr, "k:**", Duration::from_millis(rng.random_range(1..60))).await;
    }
    let expected = written.borrow().clone().expect("just seen");
    let began = std::time::Instant::now();
    while client.map != expected {
        assert!(began.elapsed() < 3 * DEADLINE, "{:#?}\nis not {expected:#?}", client.map);
        client.follow(addrs[0], "k:**", Duration::from_millis(200)).await;
    }
    client.gaps
}
