//! The data of the demo's heat map and of its proof of delivery: a random walk of a thousand
//! tickers, and numbered events.

use std::time::{SystemTime, UNIX_EPOCH};

use fanfare::{
    Event, Hub, PublishError,
    config::{Conflate, Flush, TopicPolicy},
};
use rand::RngExt;
use serde_json::json;
use tokio::time::MissedTickBehavior;

use super::PUBLISH_INTERVAL;

const TOPIC: &str = "demo:market";
const TICKER_COUNT: usize = 1000;

/// Tickers changed at once: 400 events a second.
const CHANGED_COUNT: usize = 40;

/// Percent.
const MAX_STEP: f64 = 0.4;
const MAX_CHANGE: f64 = 4.0;

/// The newest change of each ticker, for new pages.
pub(crate) fn policy() -> TopicPolicy {
    let policy = TopicPolicy::new(TOPIC).flush(Flush::Tick).conflate(Conflate::LatestByKey);
    policy.history_events(TICKER_COUNT)
}

/// Publishes until the hub drains.
pub(super) async fn publish(hub: Hub) {
    let mut changes = vec![0.0; TICKER_COUNT];
    // All tickers once, then some at a time.
    let all: Vec<usize> = (0..TICKER_COUNT).collect();
    let mut is_open = publish_changes(&hub, &mut changes, &all).await;
    let run: u32 = rand::rng().random();
    let mut interval = tokio::time::interval(PUBLISH_INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut number = 0_u64;
    while is_open {
        interval.tick().await;
        number += 1;
        let some: Vec<usize> =
            (0..CHANGED_COUNT).map(|_| rand::rng().random_range(0..TICKER_COUNT)).collect();
        is_open = publish_number(&hub, run, number).await
            && publish_changes(&hub, &mut changes, &some).await;
    }
}

/// A number refused is published again: the page counts every hole.
async fn publish_number(hub: &Hub, run: u32, number: u64) -> bool {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let data = json!({ "run": run, "n": number, "at": since_1970.as_millis() as u64 });
    let Ok(event) = Event::json(&data) else { return true };
    // With an id, a repeat delivers nothing if the first one was accepted.
    let event = event.event_type("count").id(format!("{run}:{number}"));
    loop {
        match hub.publish("demo:count", event.clone()).await {
            Ok(_) => return true,
            Err(PublishError::Draining) => return false,
            Err(error) => tracing::debug!(%error, "demo number not published"),
        }
        tokio::time::sleep(PUBLISH_INTERVAL).await;
    }
}

/// False once the hub drains.
async fn publish_changes(hub: &Hub, changes: &mut [f64], tickers: &[usize]) -> bool {
    for &ticker in tickers {
        let step = rand::rng().random_range(-MAX_STEP..=MAX_STEP);
        changes[ticker] = (changes[ticker] + step).clamp(-MAX_CHANGE, MAX_CHANGE);
        let data = (changes[ticker] * 100.0).round() / 100.0;
        let Ok(event) = Event::json(&data) else { continue };
        match hub.publish(TOPIC, event.key(name(ticker))).await {
            Ok(_) => {}
            Err(PublishError::Draining) => return false,
            Err(error) => tracing::debug!(%error, "demo ticker not published"),
        }
    }
    true
}

/// Three letters.
fn name(ticker: usize) -> String {
    [ticker / 676, ticker / 26, ticker]
        .map(|digit| char::from(b'A' + (digit % 26) as u8))
        .iter()
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_ticker_has_a_name_of_its_own() {
        let names: HashSet<String> = (0..TICKER_COUNT).map(name).collect();
        assert_eq!(names.len(), TICKER_COUNT);
    }
}
