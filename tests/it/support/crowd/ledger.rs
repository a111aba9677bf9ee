//! The record of one stream of a crowd over all its connections, and its checks.

use std::{sync::Arc, time::Instant};

use super::{answer::Event, numbered::Numbered};

/// The end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The test cut it.
    Cut,
    /// The body ended.
    Whole,
    /// The connection ended within the body.
    Torn(String),
    /// Status and body of a refusal.
    Refused(u16, String),
    /// The connection failed.
    NotOpened(String),
}

/// A received numbered event.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    pub number: u32,
    pub latency_micros: u32,
}

/// The record of one stream.
#[derive(Debug, Default)]
pub struct Ledger {
    pub last_id: Option<String>,
    /// Connections with a `connected` event.
    pub connected: usize,
    /// Connections with `"resumed":true`.
    pub resumed: usize,
    pub ends: Vec<End>,
    /// By lane, in the order of arrival.
    pub arrivals: Vec<Vec<Arrival>>,
    /// Each gap with the number of lane 0's events before it.
    pub gaps: Vec<(usize, serde_json::Value)>,
    pub shutdowns: Vec<serde_json::Value>,
    /// Numbered events after a `shutdown` on the same connection.
    pub events_after_shutdown: usize,
    pub heartbeats: Vec<Instant>,
    /// Numbered events with unexpected texts.
    pub strange: Vec<String>,
    is_shut_down: bool,
    texts: Arc<Vec<Vec<String>>>,
}

impl Ledger {
    pub(super) fn new(texts: Arc<Vec<Vec<String>>>) -> Self {
        Self { texts, ..Self::default() }
    }

    pub(super) fn on_open(&mut self) {
        self.is_shut_down = false;
    }

    pub(super) fn on_event(&mut self, event: Event) {
        if !event.id.is_empty() {
            self.last_id = Some(event.id);
        }
        let json = || serde_json::from_str(&event.data).expect("control events are JSON");
        match event.kind.as_str() {
            "connected" => {
                let json: serde_json::Value = json();
                self.connected += 1;
                self.resumed += usize::from(json["resumed"] == true);
            }
            "gap" => self.gaps.push((self.numbers(0).len(), json())),
            "shutdown" => {
                self.shutdowns.push(json());
                self.is_shut_down = true;
            }
            _ => self.on_numbered(&event.data),
        }
    }

    fn on_numbered(&mut self, data: &str) {
        let Some(event) = Numbered::parse(data) else {
            self.strange.push(data.to_owned());
            return;
        };
        if !self.is_expected(&event) {
            self.strange.push(data.to_owned());
        }
        self.events_after_shutdown += usize::from(self.is_shut_down);
        if self.arrivals.len() <= event.lane {
            self.arrivals.resize(event.lane + 1, Vec::new());
        }
        let latency_micros = event.age_micros();
        self.arrivals[event.lane].push(Arrival { number: event.number, latency_micros });
    }

    fn is_expected(&self, event: &Numbered<'_>) -> bool {
        let texts = self.texts.get(event.lane).filter(|texts| !texts.is_empty());
        let expected = texts.map(|texts| &texts[(event.number as usize - 1) % texts.len()]);
        event.is_sound() && expected.is_none_or(|expected| expected == event.text)
    }

    /// The numbers of a lane's events, in the order of arrival.
    pub fn numbers(&self, lane: usize) -> Vec<u32> {
        let arrivals = self.arrivals.get(lane).map_or(&[][..], Vec::as_slice);
        arrivals.iter().map(|arrival| arrival.number).collect()
    }

    /// The newest number of a lane.
    pub fn newest(&self, lane: usize) -> u32 {
        self.arrivals.get(lane).and_then(|lane| lane.last()).map_or(0, |arrival| arrival.number)
    }

    /// The first fault, if a lane should have brought 1 to `last`, each once and in order.
    pub fn flaw(&self, lane: usize, last: u32) -> Option<String> {
        let numbers = self.numbers(lane);
        let first_wrong = (1..=last).zip(&numbers).position(|(wanted, got)| wanted != *got);
        if first_wrong.is_none() && numbers.len() == last as usize && self.strange.is_empty() {
            return None;
        }
        let at = first_wrong.unwrap_or(numbers.len().min(last as usize));
        let near = &numbers[at.saturating_sub(3)..numbers.len().min(at + 5)];
        Some(format!(
            "lane {lane}: {} of {last} events, wrong from the {at}th: {near:?}; {}",
            numbers.len(),
            self.story()
        ))
    }

    /// A summary for a failed test.
    pub fn story(&self) -> String {
        let counts: Vec<usize> = self.arrivals.iter().map(Vec::len).collect();
        let newest: Vec<u32> = (0..counts.len()).map(|lane| self.newest(lane)).collect();
        format!(
            "connected {} (resumed {}), events by lane {counts:?}, newest {newest:?}, {} heartbeats, \
             ends {:?}, gaps {:?}, shutdowns {:?}, strange {:?}, last id {:?}",
            self.connected,
            self.resumed,
            self.heartbeats.len(),
            self.ends,
            self.gaps,
            self.shutdowns,
            self.strange,
            self.last_id
        )
    }
}
