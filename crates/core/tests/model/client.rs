//! A client: reads bytes as a browser does, keeps its last id, and notes what it was told.

use std::collections::HashSet;

use super::expectation::{Due, Expectation};

/// An event that the client was told.
#[derive(Debug)]
pub struct StreamTold {
    /// That of its data.
    pub number: usize,
    /// How many events it stands for.
    pub count: usize,
    /// The client's last id before and since.
    pub before: String,
    pub id: String,
}

/// One event as the client's parser dispatched it.
#[derive(Debug, Default)]
struct Received {
    event: String,
    data: String,
}

/// What a client wants, knows and got.
#[derive(Debug)]
pub struct ModelClient {
    pub expectation: Expectation,
    pub types: Option<Vec<&'static str>>,
    pub last_id: String,
    pub is_stalled: bool,
    /// All events that it was told, in order; which these are is said in `got`.
    pub told: Vec<StreamTold>,
    /// Their indices.
    pub got: Vec<usize>,
    pub is_got: HashSet<usize>,
    /// Numbers of fan-outs of which it is not known whose topic's event it got.
    pub blurred: HashSet<usize>,
    /// By index, what was promised of each event.
    pub due: Vec<Due>,
    /// By index, whether its topic was wanted then.
    pub topic_due: Vec<Due>,
    /// Events that a cut has left uncounted: a later one stood for them and was not read,
    /// and the last id is behind them.
    pub uncounted: HashSet<usize>,
    /// Events that a gap has excused.
    pub excused: HashSet<usize>,
    /// What the stream that is open now cannot be given: a `history` gap must come of it.
    pub lost: HashSet<usize>,
    /// With ModelRedis, what history lacked when the open stream began: a `history` gap excuses
    /// all of it.
    pub evicted: Option<HashSet<usize>>,
    /// Whether pushes to anybody were lost.
    pub may_miss_pushes: bool,
    /// Events of eras before this one are excused by gaps.
    pub epoch_gaps_through: u64,
    /// How many events it had got when it was told of each.
    pub epoch_gaps_at: Vec<usize>,
    /// Of how many of them account was taken.
    pub seen_epoch_gaps: usize,
    /// How often ModelRedis has been emptied.
    pub present_era: u64,
    /// Last ids before and since each `connected`, and each gap that begins another epoch,
    /// that no account was taken of: these say where it stands without an event.
    pub placed: Vec<(String, String)>,
    /// Whether there ever was one.
    pub has_begun: bool,
    /// Partitions of gaps that dropped live events.
    pub dropped_in: HashSet<u16>,
    pub gap_count: usize,
    pub shutdown_count: usize,
    line: Vec<u8>,
    block: Vec<String>,
}

impl ModelClient {
    pub fn new(expectation: Expectation, types: Option<Vec<&'static str>>) -> Self {
        Self {
            expectation,
            types,
            last_id: String::new(),
            is_stalled: false,
            told: Vec::new(),
            got: Vec::new(),
            is_got: HashSet::new(),
            blurred: HashSet::new(),
            due: Vec::new(),
            topic_due: Vec::new(),
            uncounted: HashSet::new(),
            excused: HashSet::new(),
            lost: HashSet::new(),
            evicted: None,
            may_miss_pushes: false,
            epoch_gaps_through: 0,
            epoch_gaps_at: Vec::new(),
            seen_epoch_gaps: 0,
            present_era: 0,
            placed: Vec::new(),
            has_begun: false,
            dropped_in: HashSet::new(),
            gap_count: 0,
            shutdown_count: 0,
            line: Vec::new(),
            block: Vec::new(),
        }
    }

    /// Whether it wants events of this type.
    pub fn wants_type(&self, event_type: Option<&str>) -> bool {
        let event_type = event_type.unwrap_or("message");
        self.types.as_ref().is_none_or(|types| types.contains(&event_type))
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
        let mut received = Received::default();
        let before = self.last_id.clone();
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
                self.placed.push((before, self.last_id.clone()));
            }
            "gap" => self.on_gap(before, &received.data),
            "shutdown" => self.shutdown_count += 1,
            "batch" => self.on_batch(before, &received.data),
            _ => {
                let data = serde_json::from_str(&received.data).unwrap();
                self.on_event(before, self.last_id.clone(), &data);
            }
        }
    }

    fn on_batch(&mut self, mut before: String, data: &str) {
        let items: Vec<serde_json::Value> = serde_json::from_str(data).unwrap();
        for item in items {
            let id = item["id"].as_str().unwrap().to_owned();
            self.on_event(before, id.clone(), &item["data"]);
            before = id;
        }
    }

    /// The data is a number, in a batch a string of one, or an object that has it.
    fn on_event(&mut self, before: String, id: String, data: &serde_json::Value) {
        let number = match data {
            serde_json::Value::String(text) => text.parse().unwrap(),
            serde_json::Value::Object(object) => object["n"].as_u64().unwrap() as usize,
            number => number.as_u64().unwrap() as usize,
        };
        let collapsed = data.get("collapsed").map(|count| count.as_u64().unwrap() as usize);
        assert!(collapsed.is_none_or(|count| count > 1), "collapsed into nothing: {data}");
        self.told.push(StreamTold { number, count: collapsed.unwrap_or(1), before, id });
    }

    fn on_gap(&mut self, before: String, data: &str) {
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
                self.placed.push((before, self.last_id.clone()));
                self.epoch_gaps_through = self.present_era;
                self.epoch_gaps_at.push(self.told.len());
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
