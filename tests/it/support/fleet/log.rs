//! Published events and their answers.

use std::{collections::BTreeMap, time::Instant};

use parking_lot::Mutex;
use serde_json::Value;

/// An event's place in the log, by its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// The epoch, taken from the event's id.
    pub epoch: String,
    pub partition: u64,
    pub sequence: u64,
}

impl Place {
    fn of(answer: &Value) -> Self {
        let number = |field: &str| answer[field].as_u64().unwrap_or_else(|| panic!("{answer}"));
        let id = answer["eventId"].as_str().unwrap_or_else(|| panic!("no id: {answer}"));
        Self {
            epoch: id.split('.').next().expect("split yields one").to_owned(),
            partition: number("partition"),
            sequence: number("sequence"),
        }
    }
}

/// One event.
#[derive(Debug, Clone)]
pub(super) struct Record {
    /// Index of its topic.
    pub topic: usize,
    pub began: Instant,
    /// `None` until acknowledged.
    pub place: Option<Place>,
}

/// All events of a fleet, numbered from 0.
#[derive(Debug, Default)]
pub(super) struct Log {
    records: Mutex<Vec<Record>>,
    /// Failed publishes by error code.
    refusals: Mutex<BTreeMap<String, usize>>,
}

impl Log {
    /// Registers a new event; returns its number.
    pub fn begin(&self, topic: usize) -> usize {
        let mut records = self.records.lock();
        records.push(Record { topic, began: Instant::now(), place: None });
        records.len() - 1
    }

    pub fn acknowledge(&self, number: usize, answer: &Value) {
        self.records.lock()[number].place = Some(Place::of(answer));
    }

    pub fn refuse(&self, told: String) {
        *self.refusals.lock().entry(told).or_default() += 1;
    }

    pub fn begun(&self) -> usize {
        self.records.lock().len()
    }

    pub fn acknowledged(&self) -> usize {
        self.records.lock().iter().filter(|record| record.place.is_some()).count()
    }

    pub fn refused(&self) -> usize {
        self.refusals.lock().values().sum()
    }

    pub fn refusals(&self) -> Vec<(String, usize)> {
        self.refusals.lock().iter().map(|(told, count)| (told.clone(), *count)).collect()
    }

    /// All events by number.
    pub fn records(&self) -> Vec<Record> {
        self.records.lock().clone()
    }
}
