//! What one stream of a crowd has seen, over all its connections, and what tests say of it.

use std::{sync::Arc, time::Instant};

use super::{answer::Event, numbered::Numbered};

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The test cut it.
    Cut,
    /// The body came to its end.
    Whole,
    /// The connection ended within the body.
    Torn(String),
    /// Status and body of a refusal.
    Refused(u16, String),
    /// It could not be opened.
    NotOpened(String),
}

/// A numbered event as it came in.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    pub number: u32,
    pub latency_micros: u32,
}

/// All that one stream has seen.
#[derive(Debug, Default)]
pub struct Ledger {
    pub last_id: Option<String>,
    /// Connections that got `connected`.
    pub connected: usize,
    /// Those of them that were told that they miss nothing.
    pub resumed: usize,
    pub ends: Vec<End>,
    /// By lane, in the order of arrival.
    pub arrivals: Vec<Vec<Arrival>>,
    /// With the numbers of lane 0 that came before.
    pub gaps: Vec<(usize, serde_json::Value)>,
    pub shutdowns: Vec<serde_json::Value>,
    /// Numbered events that came after a `shutdown` of the same connection.
    pub events_after_shutdown: usize,
    pub heartbeats: Vec<Instant>,
    /// Texts of numbered events that are not as expected.
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

    /// The numbers that came on a lane, in the order of arrival.
    pub fn numbers(&self, lane: usize) -> Vec<u32> {
        let arrivals = self.arrivals.get(lane).map_or(&[][..], Vec::as_slice);
        arrivals.iter().map(|arrival| arrival.number).collect()
    }

    /// The newest that came on a lane.
    pub fn newest(&self, lane: usize) -> u32 {
        self.arrivals.get(lane).and_then(|lane| lane.last()).map_or(0, |arrival| arrival.number)
    }

    /// What is wrong if a lane should have brought 1 to `last`, each once and in order.
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

    /// What happened to it, for a failed test.
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
