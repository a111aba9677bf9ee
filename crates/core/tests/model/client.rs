//! A client: it parses the stream like a browser, keeps its last id, and records received events.

use std::collections::{HashMap, HashSet};

use fanfare_core::cursor::{Cursor, IN_ANOTHER_EPOCH};

use super::expectation::{Due, Expectation};

/// A received event.
#[derive(Debug)]
pub struct StreamTold {
    /// The number in its data.
    pub number: usize,
    /// The number of events merged into it, itself included.
    pub count: usize,
    /// The client's last id before and after the event.
    pub before: String,
    pub id: String,
}

/// Events missed by an open stream.
#[derive(Debug)]
pub struct ModelLoss {
    pub partition: u16,
    pub topics: Vec<String>,
    /// Empty once excused by a gap.
    pub events: HashSet<usize>,
}

/// A parsed event, before its meaning.
#[derive(Debug, Default)]
struct Received {
    event: String,
    data: String,
}

/// A client's expectations and received events.
#[derive(Debug)]
pub struct ModelClient {
    pub expectation: Expectation,
    pub types: Option<Vec<&'static str>>,
    pub last_id: String,
    pub is_stalled: bool,
    /// All received events, in order.
    pub told: Vec<StreamTold>,
    /// The reference's index of each event in `told`. `told` runs ahead until the next update.
    pub got: Vec<usize>,
    pub is_got: HashSet<usize>,
    /// Numbers of fan-outs with an ambiguous received event: its topic is unknown.
    pub blurred: HashSet<usize>,
    /// By index, the expected delivery of each event.
    pub due: Vec<Due>,
    /// By index, whether the client wanted the event's topic at the publish.
    pub topic_due: Vec<Due>,
    /// Events before the head of a snapshot, not part of it: they must never arrive.
    pub not_in_snapshot: HashSet<usize>,
    /// Events left uncounted by a cut: they were merged into a later, unread event, and the last id
    /// is already past them.
    pub uncounted: HashSet<usize>,
    /// Events excused by a gap.
    pub excused: HashSet<usize>,
    /// The events missing in history for each page of the open stream, and the events possibly
    /// missed because of each interruption. The hub must send a `history` gap.
    pub losses: Vec<ModelLoss>,
    /// Topics added live in a partition of the stream: a gap may name them.
    pub additions: HashSet<u16>,
    /// Whether the first page of a partition misses events.
    pub is_missing: bool,
    /// By partition, the events missing in history at the last page of the open stream.
    pub told_evicted: HashMap<u16, HashSet<usize>>,
    /// With the model Redis, for a stream resuming at a time: a replica knows the times of its own
    /// events only, and may call an older loss a gap. Also for topics added after a position kept
    /// for them: their losses are not in `lost`.
    pub may_lack_times: bool,
    /// With the model Redis: partitions with lost events in the range of a page. A replica still
    /// ahead of a server gone back tells a gap, perhaps of other topics too.
    pub gone_back: HashSet<u16>,
    /// Partitions and topics of `history` gaps without a recorded loss: they tell the losses of an
    /// addition.
    pub gaps_of_additions: Vec<(Vec<u16>, Vec<String>)>,
    /// With the model Redis: all events missing in history at the last read. An `epoch` gap excuses
    /// them.
    pub evicted: Option<HashSet<usize>>,
    /// Gaps excuse all events of earlier eras.
    pub epoch_gaps_through: u64,
    /// The number of received events before each `epoch` gap.
    pub epoch_gaps_at: Vec<usize>,
    /// The same, for gaps with a new epoch only.
    pub restarts_at: Vec<usize>,
    /// The number of handled `epoch` gaps.
    pub seen_epoch_gaps: usize,
    /// The number of times the model Redis was emptied, at the last read.
    pub present_era: u64,
    /// The last ids before and after each unhandled `connected` and `epoch` gap: these move the
    /// client's positions without an event.
    pub placed: Vec<(String, String)>,
    /// Whether the client has handled its first `connected`.
    pub has_begun: bool,
    /// Partitions with a `slow` or `rate` gap since their last position, and this position.
    dropping: HashMap<u16, u64>,
    /// Places of dropped live events: partition, era, and the positions around the gap.
    pub dropped: Vec<(u16, u64, u64, u64)>,
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
            not_in_snapshot: HashSet::new(),
            uncounted: HashSet::new(),
            excused: HashSet::new(),
            losses: Vec::new(),
            additions: HashSet::new(),
            is_missing: false,
            told_evicted: HashMap::new(),
            may_lack_times: false,
            gone_back: HashSet::new(),
            gaps_of_additions: Vec::new(),
            evicted: None,
            epoch_gaps_through: 0,
            epoch_gaps_at: Vec::new(),
            restarts_at: Vec::new(),
            seen_epoch_gaps: 0,
            present_era: 0,
            placed: Vec::new(),
            has_begun: false,
            dropping: HashMap::new(),
            dropped: Vec::new(),
            gap_count: 0,
            shutdown_count: 0,
            line: Vec::new(),
            block: Vec::new(),
        }
    }

    /// Whether the client's type filter wants this type.
    pub fn wants_type(&self, event_type: Option<&str>) -> bool {
        let event_type = event_type.unwrap_or("message");
        let is_listed = |types: &Vec<&str>| types.contains(&event_type);
        event_type == "deleted" || self.types.as_ref().is_none_or(is_listed)
    }

    /// Records a loss of the open stream.
    pub fn lose(&mut self, loss: ModelLoss, is_first: bool) {
        if !loss.events.is_empty() {
            self.is_missing |= is_first;
            self.losses.push(loss);
        }
    }

    /// Begins a new connection: drops the incomplete block.
    pub fn reconnect(&mut self) {
        self.line.clear();
        self.block.clear();
        self.losses.clear();
        self.additions.clear();
        self.gone_back.clear();
        self.is_missing = false;
        self.told_evicted.clear();
        // The client returns with the position before the dropped events: none is missed.
        self.dropping.clear();
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
                other => panic!("unknown field {other}"),
            }
        }
        if received.data.is_empty() {
            // An id alone: nothing is dispatched.
            return self.move_on(&self.last_id.clone());
        }
        match received.event.as_str() {
            "connected" => {
                let is_resumed = received.data.contains("\"resumed\":true");
                assert!(!is_resumed || !self.is_missing, "resumed without its gap");
                self.placed.push((before, self.last_id.clone()));
            }
            "gap" => self.on_gap(before, &received.data),
            "shutdown" => self.shutdown_count += 1,
            "live" => {}
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

    /// Data is a number, a string with a number (in a batch), or an object with it as `n`.
    fn on_event(&mut self, before: String, id: String, data: &serde_json::Value) {
        let number = match data {
            serde_json::Value::String(text) => text.parse().unwrap(),
            serde_json::Value::Object(object) => object["n"].as_u64().unwrap() as usize,
            number => number.as_u64().unwrap() as usize,
        };
        let collapsed = data.get("collapsed").map(|count| count.as_u64().unwrap() as usize);
        assert!(collapsed.is_none_or(|count| count > 1), "collapsed, but not merged: {data}");
        self.move_on(&id);
        self.told.push(StreamTold { number, count: collapsed.unwrap_or(1), before, id });
    }

    fn on_gap(&mut self, before: String, data: &str) {
        self.gap_count += 1;
        let gap: serde_json::Value = serde_json::from_str(data).unwrap();
        let partitions = gap["partitions"].as_array().unwrap();
        assert!(!partitions.is_empty());
        let partitions = partitions.iter().map(|number| number.as_u64().unwrap() as u16);
        match gap["reason"].as_str().unwrap() {
            "epoch" => {
                if is_restart(&before, &self.last_id) {
                    self.restarts_at.push(self.told.len());
                }
                self.placed.push((before, self.last_id.clone()));
                self.epoch_gaps_through = self.present_era;
                self.epoch_gaps_at.push(self.told.len());
                self.move_on(&self.last_id.clone());
                self.excused.extend(self.evicted.iter().flatten());
            }
            "history" => {
                let partitions: Vec<u16> = partitions.collect();
                let topics = gap["topics"].as_array().into_iter().flatten();
                let topics: Vec<&str> = topics.filter_map(serde_json::Value::as_str).collect();
                let is_added = partitions.iter().all(|one| self.additions.contains(one));
                let is_behind = partitions.iter().any(|one| self.gone_back.contains(one));
                let mut told = self.losses.iter_mut();
                let told = told.by_ref().filter(|loss| {
                    let is_named = |topic: &String| topics.contains(&topic.as_str());
                    let is_named = topics.is_empty() || loss.topics.iter().any(is_named);
                    partitions.contains(&loss.partition) && is_named
                });
                let mut is_needless = true;
                for loss in told {
                    is_needless = false;
                    self.excused.extend(std::mem::take(&mut loss.events));
                }
                assert!(
                    !is_needless || is_added || is_behind || self.may_lack_times,
                    "a gap, but history has all events: {data}"
                );
                if is_needless {
                    let topics = topics.into_iter().map(str::to_owned).collect();
                    self.gaps_of_additions.push((partitions, topics));
                }
            }
            "slow" | "rate" => {
                let cursor: Cursor = self.last_id.parse().unwrap();
                let positions =
                    partitions.filter_map(|number| Some((number, cursor.positions.get(number)?)));
                for (number, position) in positions.collect::<Vec<_>>() {
                    self.dropping.entry(number).or_insert(position);
                }
            }
            other => panic!("unknown gap reason {other}"),
        }
    }

    /// The id moves on: dropped events are between the positions around their gap.
    fn move_on(&mut self, id: &str) {
        let cursor: Cursor = id.parse().unwrap();
        let era = self.present_era;
        let dropped = self.dropping.extract_if(|number, position| {
            cursor.positions.get(*number).is_some_and(|moved| moved != *position)
        });
        for (number, position) in dropped {
            let moved = cursor.positions.get(number).unwrap_or(position);
            self.dropped.push((number, era, position, moved));
        }
    }
}

/// Whether a gap begins a new epoch, in one of the partitions at least: its id has a new epoch, or
/// the id before it marks a partition as behind.
fn is_restart(before: &str, id: &str) -> bool {
    let (Ok(before), Ok(id)) = (before.parse::<Cursor>(), id.parse::<Cursor>()) else {
        return true;
    };
    let mut positions = before.positions.iter();
    before.epoch != id.epoch || positions.any(|(_, sequence)| sequence == IN_ANOTHER_EPOCH)
}
