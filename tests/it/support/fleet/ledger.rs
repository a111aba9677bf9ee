//! The record of one stream of a fleet over all its connections.

use std::{collections::BTreeSet, time::Instant};

use serde_json::Value;

use super::wish::{Wish, topic};
use crate::support::Event;

/// A received `gap`.
#[derive(Debug)]
pub(super) struct Gap {
    pub at: Instant,
    /// Events before it.
    pub after: usize,
    pub told: Value,
}

impl Gap {
    pub fn is_of_epoch(&self) -> bool {
        self.told["reason"] == "epoch"
    }

    pub fn names(&self, partition: u64) -> bool {
        let named = self.told["partitions"].as_array().expect("a gap names partitions");
        named.iter().any(|one| one.as_u64() == Some(partition))
    }
}

/// The record of one stream.
#[derive(Debug)]
pub(super) struct Ledger {
    pub wish: Wish,
    pub last_id: Option<String>,
    /// Connections with a `connected` event.
    pub connected: usize,
    /// Connections with `"resumed":true`.
    pub resumed: usize,
    /// Refused connections.
    pub refused: usize,
    /// The numbers of the events, in the order of arrival.
    pub receipts: Vec<usize>,
    pub received: BTreeSet<usize>,
    pub gaps: Vec<Gap>,
    /// Received events nobody published in this form.
    pub strange: Vec<Event>,
}

impl Ledger {
    pub fn new(wish: Wish) -> Self {
        Self {
            wish,
            last_id: None,
            connected: 0,
            resumed: 0,
            refused: 0,
            receipts: Vec::new(),
            received: BTreeSet::new(),
            gaps: Vec::new(),
            strange: Vec::new(),
        }
    }

    pub fn on_event(&mut self, event: Event) {
        // A stream may end before its start without an id. The earlier id stays valid.
        if !event.id.is_empty() {
            self.last_id = Some(event.id.clone());
        }
        match event.event.as_str() {
            "connected" => {
                self.connected += 1;
                self.resumed += usize::from(event.json()["resumed"] == true);
            }
            "gap" => {
                let after = self.receipts.len();
                self.gaps.push(Gap { at: Instant::now(), after, told: event.json() });
            }
            "shutdown" => {}
            "message" => match number(&event.data) {
                Some(number) => {
                    self.receipts.push(number);
                    self.received.insert(number);
                }
                None => self.strange.push(event),
            },
            _ => self.strange.push(event),
        }
    }

    /// Whether it has all events in its wish, of these (number, topic) pairs.
    pub fn has_all(&self, events: &[(usize, usize)]) -> bool {
        let mut wanted = events.iter().filter(|(_, topic)| self.wish.wants(*topic));
        wanted.all(|(number, _)| self.received.contains(number))
    }
}

/// The data of an event: number, topic, and a filler text.
pub(super) fn data(number: usize, of_topic: usize) -> String {
    format!("{number} {of_topic} {}", text(number, of_topic))
}

/// The event's number; `None` if the data is damaged.
fn number(data: &str) -> Option<usize> {
    let mut parts = data.splitn(3, ' ');
    let mut next = || parts.next()?.parse().ok();
    let (number, of_topic): (usize, usize) = (next()?, next()?);
    (parts.next()? == text(number, of_topic)).then_some(number)
}

/// The length differs from event to event.
fn text(number: usize, of_topic: usize) -> String {
    format!("{} {}", topic(of_topic), "word ".repeat(number % 17))
}
