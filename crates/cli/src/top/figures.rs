//! The numbers of `fanfare top`: the hub's statistics with their rates, and the rates of topics.

use std::collections::{BTreeMap, VecDeque};

use serde::Deserialize;
use tokio::time::Instant;

use super::{feeds::Update, rates::TopicRates};

/// Seconds in the chart of deliveries.
const MAX_CHART: usize = 300;

/// Topics shown at most.
const MAX_TOPICS: usize = 1000;

/// The shown part of `/stats`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Stats {
    pub version: String,
    pub uptime_seconds: u64,
    pub connections: u64,
    pub topics: u64,
    pub subscriptions: u64,
    pub published: u64,
    pub delivered: u64,
    pub dropped: BTreeMap<String, u64>,
    pub resident_bytes: u64,
    pub history_bytes: u64,
    pub outbox_bytes: u64,
    pub latency_ms: BTreeMap<String, f64>,
    pub bridge: Bridge,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Bridge {
    pub kind: String,
    pub up: bool,
    #[serde(default)]
    pub reconnects: u64,
    #[serde(default)]
    pub lag_ms: f64,
}

/// Everything shown.
pub(super) struct Figures {
    pub url: String,
    pub stats: Option<Stats>,
    pub published_rate: f64,
    pub delivered_rate: f64,
    /// Deliveries a second, the newest first.
    pub chart: VecDeque<u64>,
    /// Why the statistics are old.
    pub problem: Option<String>,
    /// Why topics are not counted.
    pub topics_problem: Option<String>,
    rates: TopicRates,
    taken_at: Instant,
}

impl Figures {
    pub fn new(url: String) -> Self {
        Self {
            url,
            stats: None,
            published_rate: 0.0,
            delivered_rate: 0.0,
            chart: VecDeque::new(),
            problem: None,
            topics_problem: None,
            rates: TopicRates::default(),
            taken_at: Instant::now(),
        }
    }

    pub fn on_update(&mut self, update: Update, now: Instant) {
        match update {
            Update::Stats(stats) => self.take(*stats, now),
            Update::NoStats(why) => self.problem = Some(why),
            Update::Events(events) => {
                self.topics_problem = None;
                self.rates.add(events);
            }
            Update::NoEvents(why) => self.topics_problem = Some(why),
        }
    }

    /// Takes new statistics; rates are those since the last ones.
    pub fn take(&mut self, stats: Stats, now: Instant) {
        if let Some(before) = &self.stats {
            let seconds = now.duration_since(self.taken_at).as_secs_f64().max(0.001);
            // A restarted hub counts from 0 again.
            let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
            self.published_rate = rate(stats.published, before.published);
            self.delivered_rate = rate(stats.delivered, before.delivered);
            self.chart.push_front(self.delivered_rate.round() as u64);
            self.chart.truncate(MAX_CHART);
        }
        self.stats = Some(stats);
        self.taken_at = now;
        self.problem = None;
    }

    /// Begins the next second of the topics' rates.
    pub fn end_second(&mut self) {
        self.rates.end_second();
    }

    /// The busiest topics with their events per second, the busiest first.
    pub fn topics(&self) -> Vec<(String, f64)> {
        self.rates.busiest(MAX_TOPICS)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use serde_json::{from_value, json};

    use super::*;

    /// Statistics of a hub after this many publishes to ten streams.
    pub fn stats(published: u64) -> Stats {
        from_value(json!({
            "version": "1.2.3", "uptimeSeconds": 90_061, "connections": 1234, "topics": 5,
            "subscriptions": 2345, "published": published, "delivered": 10 * published,
            "conflated": 0, "dropped": { "slow": 7 }, "residentBytes": 64 * 1024 * 1024,
            "historyBytes": 1024, "outboxBytes": 0,
            "latencyMs": { "p50": 1.5, "p95": 2.0, "p99": 3.0, "p99.9": 4.0 },
            "bridge": { "kind": "redis", "up": false, "lagMs": 0.0, "reconnects": 3 },
        }))
        .unwrap()
    }

    #[test]
    fn rates_are_those_between_two_looks_and_a_restart_is_no_rate() {
        let mut figures = Figures::new("http://hub".to_owned());
        let start = Instant::now();
        figures.take(stats(100), start);
        assert_eq!((figures.published_rate, figures.chart.len()), (0.0, 0));
        figures.take(stats(150), start + Duration::from_secs(2));
        assert_eq!((figures.published_rate, figures.delivered_rate), (25.0, 250.0));
        figures.take(stats(10), start + Duration::from_secs(3));
        assert_eq!((figures.published_rate, &figures.chart), (0.0, &VecDeque::from([0, 250])));
    }

    #[test]
    fn a_problem_stays_until_the_next_answer() {
        let mut figures = Figures::new("http://hub".to_owned());
        let now = Instant::now();
        figures.on_update(Update::NoStats("gone".to_owned()), now);
        figures.on_update(Update::NoEvents("ended".to_owned()), now);
        assert_eq!(figures.problem.as_deref(), Some("gone"));
        figures.on_update(Update::Stats(Box::new(stats(1))), now);
        assert_eq!(figures.topics_problem.as_deref(), Some("ended"));
        figures.on_update(Update::Events(Vec::new()), now);
        assert_eq!((figures.problem, figures.topics_problem), (None, None));
    }
}
