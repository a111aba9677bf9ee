//! The answer to one poll, built from the bytes of its stream: what `connected` said, the gaps, and
//! the items of the JSON batches, within a bound in bytes. Owns no waiting.

use std::{borrow::Cow, collections::BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::sse::decode::{Decoded, Decoder};

/// Room of an answer for its fields beside `events` and `gap`: the cursor is the longest.
const FIELDS_BYTES: usize = 512;

/// A gap as the stream told it. Several gaps of one answer become one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct PollGap {
    reason: String,
    partitions: BTreeSet<u16>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    topics: BTreeSet<String>,
}

impl PollGap {
    /// Adds another gap of the same answer. An epoch gap tells the client most, so its reason
    /// stays.
    fn merge(&mut self, other: Self) {
        if other.reason == "epoch" {
            self.reason = other.reason;
        }
        self.partitions.extend(other.partitions);
        self.topics.extend(other.topics);
    }
}

/// The collected part of an answer. A waiting poll has collected nothing and holds no memory here.
#[derive(Debug, Default)]
pub struct PollAnswer {
    is_open: bool,
    is_resumed: bool,
    collected: Option<Box<Collected>>,
}

#[derive(Debug, Default)]
struct Collected {
    /// The items of the batches, separated by commas.
    items: String,
    gap: Option<PollGap>,
    /// The cursor after the last item, once a further item did not fit.
    full_at: Option<String>,
    last_id: String,
    /// The reason of the stream's `shutdown`.
    ended: Option<String>,
}

#[derive(Deserialize)]
struct ConnectedData {
    resumed: bool,
}

#[derive(Deserialize)]
struct ShutdownData {
    reason: String,
}

#[derive(Deserialize)]
struct Item<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
}

impl PollAnswer {
    /// Adds a piece of the stream: whole blocks, with JSON batches. `max_bytes` bounds the answer;
    /// the first item is added whatever its size.
    pub fn push(&mut self, piece: &[u8], max_bytes: usize) {
        let mut decoder = Decoder::default();
        // The bound of the decoder is far above a piece.
        if decoder.push(piece).is_err() {
            return;
        }
        while let Some(decoded) = decoder.pop() {
            if let Decoded::Event { event_type, data, .. } = decoded {
                self.on_event(&event_type, &data, max_bytes);
            }
        }
    }

    fn on_event(&mut self, event_type: &str, data: &str, max_bytes: usize) {
        match event_type {
            "connected" => {
                self.is_open = true;
                self.is_resumed =
                    serde_json::from_str(data).is_ok_and(|data: ConnectedData| data.resumed);
            }
            "gap" => {
                if let Ok(gap) = serde_json::from_str(data) {
                    self.add_gap(gap);
                }
            }
            "batch" => self.add_items(data, max_bytes),
            "shutdown" => {
                let data = serde_json::from_str(data);
                let reason = data.map_or_else(|_| String::new(), |data: ShutdownData| data.reason);
                self.collected().ended = Some(reason);
            }
            _ => {}
        }
    }

    fn collected(&mut self) -> &mut Collected {
        self.collected.get_or_insert_default()
    }

    fn add_gap(&mut self, gap: PollGap) {
        let collected = self.collected();
        match &mut collected.gap {
            Some(before) => before.merge(gap),
            None => collected.gap = Some(gap),
        }
    }

    fn add_items(&mut self, batch: &str, max_bytes: usize) {
        let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(batch) else { return };
        let room = max_bytes.saturating_sub(FIELDS_BYTES);
        let collected = self.collected();
        for item in items {
            if collected.full_at.is_some() {
                return;
            }
            let is_first = collected.items.is_empty();
            if !is_first && collected.items.len() + 1 + item.get().len() > room {
                collected.full_at = Some(std::mem::take(&mut collected.last_id));
                return;
            }
            if !is_first {
                collected.items.push(',');
            }
            collected.items.push_str(item.get());
            if let Ok(Item { id }) = serde_json::from_str(item.get()) {
                collected.last_id = id.into_owned();
            }
        }
    }

    /// Whether the stream has begun. Before, there is no cursor to answer.
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// Whether there is something to tell: an event or a gap.
    pub fn has_news(&self) -> bool {
        self.collected.as_ref().is_some_and(|all| !all.items.is_empty() || all.gap.is_some())
    }

    /// Whether no further item fits. The rest of the pieces is then not taken.
    pub fn is_full(&self) -> bool {
        self.collected.as_ref().is_some_and(|all| all.full_at.is_some())
    }

    /// The reason of the stream's `shutdown`, if it ended.
    pub fn ended(&self) -> Option<&str> {
        self.collected.as_ref()?.ended.as_deref()
    }

    /// The answer as JSON. `cursor` is the stream's cursor after all pieces.
    pub fn finish(&mut self, cursor: String) -> String {
        #[derive(Serialize)]
        struct Fields<'a> {
            cursor: &'a str,
            events: [(); 0],
            #[serde(skip_serializing_if = "Option::is_none")]
            gap: Option<&'a PollGap>,
            resumed: bool,
        }
        let collected = self.collected.take().unwrap_or_default();
        let cursor = collected.full_at.as_deref().unwrap_or(&cursor);
        let gap = collected.gap.as_ref();
        let fields = Fields { cursor, events: [], gap, resumed: self.is_resumed };
        let mut text = serde_json::to_string(&fields).expect("plain fields serialize");
        // Insert the items unchanged: parsing their data again could change its numbers.
        const EVENTS: &str = "\"events\":[";
        let at = text.find(EVENTS).expect("the fields have events") + EVENTS.len();
        text.insert_str(at, &collected.items);
        text
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn batch(items: &[Value]) -> String {
        format!("event: batch\ndata: {}\nid: x\n\n", Value::from(items))
    }

    fn answer(pieces: &[String], max_bytes: usize) -> Value {
        let mut answer = PollAnswer::default();
        pieces.iter().for_each(|piece| answer.push(piece.as_bytes(), max_bytes));
        serde_json::from_str(&answer.finish("end".into())).unwrap()
    }

    #[test]
    fn the_answer_has_the_items_and_the_last_cursor() {
        let open = "retry: 100\nevent: connected\nid: a\ndata: {\"resumed\":true}\n\n".to_owned();
        let items = [json!({"id":"b","topic":"t","data":1.5}), json!({"id":"c","data":"\n"})];
        let pieces = [open, ": heartbeat\n".into(), batch(&items[..1]), batch(&items[1..])];
        let expected = json!({"cursor":"end","events":items,"resumed":true});
        assert_eq!(answer(&pieces, 10_000), expected);
    }

    #[test]
    fn a_full_answer_ends_after_a_whole_item_with_its_cursor() {
        let items: Vec<Value> =
            (0..5).map(|n| json!({"id": format!("i{n}"), "data": "x".repeat(100)})).collect();
        let pieces = [batch(&items)];
        let answer = answer(&pieces, FIELDS_BYTES + 300);
        assert_eq!(answer["cursor"], "i1");
        assert_eq!(answer["events"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn the_first_item_fits_always() {
        let item = json!({"id":"a","data":"x".repeat(1000)});
        assert_eq!(answer(&[batch(&[item])], 1)["events"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn several_gaps_are_one() {
        let gap = |text: &str| format!("event: gap\nid: a\ndata: {text}\n\n");
        let pieces = [
            gap(r#"{"reason":"history","partitions":[1],"topics":["a"]}"#),
            gap(r#"{"reason":"epoch","partitions":[0,1]}"#),
        ];
        let expected = json!({"reason":"epoch","partitions":[0,1],"topics":["a"]});
        assert_eq!(answer(&pieces, 10_000)["gap"], expected);
    }
}
