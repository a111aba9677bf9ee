//! A client: reads bytes as a browser does, keeps its last id, and notes what it was told.

use std::collections::HashSet;

/// One event as the client's parser dispatched it.
#[derive(Debug)]
struct Received {
    event: String,
    data: String,
}

/// What a client wants, knows and got.
#[derive(Debug)]
pub struct Client {
    pub topics: Vec<&'static str>,
    pub types: Option<Vec<&'static str>>,
    pub last_id: String,
    pub is_stalled: bool,
    /// Indices of the events that it got, in order.
    pub got: Vec<usize>,
    /// Events that a gap has excused.
    pub excused: HashSet<usize>,
    /// What the stream that is open now cannot be given: a `history` gap must come of it.
    pub lost: HashSet<usize>,
    /// With Redis, what history lacked when the open stream began: a `history` gap excuses
    /// all of it.
    pub evicted: Option<HashSet<usize>>,
    /// Whether pushes to anybody were lost.
    pub may_miss_pushes: bool,
    /// Events of eras before this one are excused by gaps.
    pub epoch_gaps_through: u64,
    /// How many events it had got when it was told of each.
    pub epoch_gaps_at: Vec<usize>,
    /// How often Redis has been emptied.
    pub present_era: u64,
    /// Cursor of its very first `connected`.
    pub baseline: Option<String>,
    /// Partitions of gaps that dropped live events.
    pub dropped_in: HashSet<u16>,
    pub gap_count: usize,
    pub shutdown_count: usize,
    line: Vec<u8>,
    block: Vec<String>,
}

impl Client {
    pub fn new(topics: Vec<&'static str>, types: Option<Vec<&'static str>>) -> Self {
        Self {
            topics,
            types,
            last_id: String::new(),
            is_stalled: false,
            got: Vec::new(),
            excused: HashSet::new(),
            lost: HashSet::new(),
            evicted: None,
            may_miss_pushes: false,
            epoch_gaps_through: 0,
            epoch_gaps_at: Vec::new(),
            present_era: 0,
            baseline: None,
            dropped_in: HashSet::new(),
            gap_count: 0,
            shutdown_count: 0,
            line: Vec::new(),
            block: Vec::new(),
        }
    }

    /// A new connection: whatever block was under way is gone.
    pub fn reconnect(&mut self) {
        self.line.clear();
        self.block.clear();
        self.lost.clear();
    }

    pub fn read(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte != b'\n' {
                self.line.push(*byte);
                continue;
            }
            let line = String::from_utf8(std::mem::take(&mut self.line)).unwrap();
            if line.is_empty() {
                self.dispatch();
            } else if !line.starts_with(':') {
                self.block.push(line);
            }
        }
    }

    fn dispatch(&mut self) {
        let mut received = Received { event: String::new(), data: String::new() };
        for line in std::mem::take(&mut self.block) {
            let (field, value) = line.split_once(": ").unwrap();
            match field {
                "id" => self.last_id = value.to_owned(),
                "event" => received.event = value.to_owned(),
                "data" => received.data += value,
                "retry" => {}
                other => panic!("a field {other}"),
            }
        }
        match received.event.as_str() {
            "connected" => {
                let is_resumed = received.data.contains("\"resumed\":true");
                assert!(!is_resumed || self.lost.is_empty(), "resumed without its gap");
                self.baseline.get_or_insert(self.last_id.clone());
            }
            "gap" => self.on_gap(&received.data),
            "shutdown" => self.shutdown_count += 1,
            "batch" => {
                let items: Vec<serde_json::Value> = serde_json::from_str(&received.data).unwrap();
                for item in items {
                    self.got.push(item["data"].as_str().unwrap().parse().unwrap());
                }
            }
            _ => self.got.push(received.data.parse().unwrap()),
        }
    }

    fn on_gap(&mut self, data: &str) {
        self.gap_count += 1;
        let gap: serde_json::Value = serde_json::from_str(data).unwrap();
        match gap["reason"].as_str().unwrap() {
            "history" if self.evicted.is_some() => {
                let evicted = self.evicted.as_ref().unwrap();
                assert!(self.may_miss_pushes || !evicted.is_empty(), "a gap of nothing");
                self.excused.extend(evicted);
                if self.may_miss_pushes {
                    self.drop_in(&gap);
                }
            }
            "epoch" => {
                self.epoch_gaps_through = self.present_era;
                self.epoch_gaps_at.push(self.got.len());
                self.excused.extend(self.evicted.iter().flatten());
            }
            "history" => {
                assert!(!self.lost.is_empty(), "a gap, but history still holds all");
                self.excused.extend(self.lost.drain());
            }
            "slow" | "rate" => self.drop_in(&gap),
            other => panic!("a gap of reason {other}"),
        }
    }

    fn drop_in(&mut self, gap: &serde_json::Value) {
        let partitions = gap["partitions"].as_array().unwrap();
        assert!(!partitions.is_empty());
        let numbers = partitions.iter().map(|number| number.as_u64().unwrap() as u16);
        self.dropped_in.extend(numbers);
    }
}
