//! Events per second of each topic, over the last complete seconds.

use std::{collections::VecDeque, time::Duration};

use crate::watch::{TopicCounts, WatchedEvent};

/// Seconds of a rate.
const WINDOW_COUNT: usize = 5;

/// The counts of the present second first, then of the seconds before.
#[derive(Debug)]
pub(super) struct TopicRates(VecDeque<TopicCounts>);

impl Default for TopicRates {
    fn default() -> Self {
        Self(VecDeque::from([TopicCounts::default()]))
    }
}

impl TopicRates {
    pub fn add(&mut self, events: Vec<WatchedEvent>) {
        if let Some(present) = self.0.front_mut() {
            present.add(events);
        }
    }

    /// Begins the next second.
    pub fn end_second(&mut self) {
        self.0.push_front(TopicCounts::default());
        self.0.truncate(WINDOW_COUNT + 1);
    }

    /// The busiest topics with their events per second.
    pub fn busiest(&self, max_count: usize) -> Vec<(String, f64)> {
        let mut sum = TopicCounts::default();
        self.0.iter().skip(1).for_each(|second| sum.add_counts(second));
        sum.busiest(Duration::from_secs(self.0.len() as u64 - 1), max_count)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    fn events(topic: &str, count: usize) -> Vec<WatchedEvent> {
        let event = |_| from_value::<WatchedEvent>(json!({"topic": topic, "data": Value::Null}));
        (0..count).map(event).collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn rates_are_of_complete_seconds_and_old_seconds_are_forgotten() {
        let mut rates = TopicRates::default();
        rates.add(events("a", 4));
        assert_eq!(rates.busiest(10), [], "no complete second");
        rates.end_second();
        rates.add(events("b", 10));
        assert_eq!(rates.busiest(10), [("a".to_owned(), 4.0)]);
        rates.end_second();
        assert_eq!(rates.busiest(1), [("b".to_owned(), 5.0)]);
        (0..WINDOW_COUNT).for_each(|_| rates.end_second());
        assert_eq!(rates.busiest(10), []);
    }
}
