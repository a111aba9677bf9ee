//! Encoding: events, control events, comments.

use std::{borrow::Cow, fmt::Write as _};

use bytes::Bytes;
use serde::Serialize;

use crate::{
    cursor::{Cursor, CursorText, Epoch, Positions, ReplayMarks, push_cursor},
    event::{Event, EventBody, EventData, SequencedEvent},
};

/// The proof for `expect`.
const ANY_TEXT: &str = "writing text to memory cannot fail";

/// The comment sent to an idle stream.
pub const HEARTBEAT: &[u8] = b": heartbeat\n";

/// Encodes the part of an event common to all streams, shared by at least `topic_count` topics:
/// everything except the `id:` line. The `id:` line comes last in the block: some clients store an
/// id at once, and would miss the event after a cut before the blank line.
pub fn body(event: &Event, topic_count: usize) -> EventBody {
    let payload = event.data.as_str();
    let type_bytes = event.event_type.as_ref().map_or(0, |name| name.len() + "event: \n".len());
    // The exact size of data on one line: history keeps the text long, so it must have no spare
    // room.
    let mut text = String::with_capacity(type_bytes + payload.len() + "data: \n".len());
    if let Some(event_type) = &event.event_type {
        push_line(&mut text, "event", event_type);
    }
    let data_at = text.len();
    let is_json = matches!(event.data, EventData::Json(_));
    for line in lines(payload) {
        push_line(&mut text, "data", line);
    }
    let name = |name: &Option<String>| name.as_deref().map(Into::into);
    EventBody {
        event_type: name(&event.event_type),
        key: name(&event.key),
        collapse: name(&event.collapse),
        text: (!is_json && payload.contains('\r')).then(|| payload.into()),
        lines: text.into_boxed_str().into_boxed_bytes().into(),
        data_at,
        is_json,
        is_deletion: event.delete,
        topic_count: topic_count.max(1),
    }
}

/// Appends an event without its `id:` line, a merged event with `"collapsed":n`.
pub fn push_lines(out: &mut Vec<u8>, event: &SequencedEvent) {
    let lines = &event.body.lines;
    if event.collapsed.is_none() {
        return out.extend_from_slice(lines);
    }
    // Extend the object: the data of an event with a collapse key is a JSON object on one line.
    let end = lines.len() - "}\n".len();
    out.extend_from_slice(&lines[..end]);
    let comma = if lines[end - 1] == b'{' { "" } else { "," };
    writeln!(Text(out), "{comma}\"collapsed\":{}}}", event.count()).expect(ANY_TEXT);
}

/// Appends an event for a stream with this event's partition only.
pub fn push_event(out: &mut Vec<u8>, event: &SequencedEvent) {
    push_lines(out, event);
    let cursor = Cursor::of_event(event.epoch, event.unix_ms, event.partition, event.sequence);
    out.extend_from_slice(b"id: ");
    push_cursor(out, &cursor);
    out.extend_from_slice(b"\n\n");
}

/// Encodes events as [`push_event`] does, in one piece.
pub fn events<'a>(events: impl Iterator<Item = &'a SequencedEvent> + Clone) -> Bytes {
    let size = events.clone().map(SequencedEvent::stream_bytes).sum();
    let mut bytes = Vec::with_capacity(size);
    events.for_each(|event| push_event(&mut bytes, event));
    bytes.into()
}

/// A whole control event; without an `id:` line if `id` is empty.
pub fn control_event(name: &str, id: &str, data: &impl Serialize) -> String {
    let mut text = String::with_capacity(160);
    push_line(&mut text, "event", name);
    if !id.is_empty() {
        push_line(&mut text, "id", id);
    }
    push_line(&mut text, "data", to_json(data));
    text.push('\n');
    text
}

/// The `retry:` line at the start of a stream. It is not a block of its own: the next event's blank
/// line ends it.
pub fn retry(millis: u64) -> String {
    format!("retry: {millis}\n")
}

pub fn cursor_text(
    epoch: Epoch,
    unix_ms: u64,
    positions: &Positions,
    marks: &ReplayMarks,
) -> String {
    CursorText::new(epoch, Some(unix_ms), positions, marks).into_string()
}

/// A block with an id only: it dispatches nothing, and moves the client's last id.
pub fn id_block(id: &str) -> String {
    format!("id: {id}\n\n")
}

/// Appends the `id:` line of a stream over several partitions, and the blank line ending the event.
pub fn push_id_line(out: &mut Vec<u8>, cursor: &[u8]) {
    out.extend_from_slice(b"id: ");
    out.extend_from_slice(cursor);
    out.extend_from_slice(b"\n\n");
}

/// Appends one event of a JSON batch: `{"id":…,"topic":…,"event":…,"key":…,"data":…}`. Leaves out
/// `event` and `key` if the publisher set none.
pub fn push_batch_item(out: &mut String, id: &str, event: &SequencedEvent) {
    #[derive(Serialize)]
    struct JsonBatchItem<'a> {
        id: &'a str,
        topic: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        event: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        key: Option<&'a str>,
        data: serde_json::Value,
    }
    let data = match &event.body.text {
        Some(text) => Cow::from(&**text),
        None => data_of(event).into(),
    };
    let item = JsonBatchItem {
        id,
        topic: event.topic.as_str(),
        event: event.event_type(),
        key: event.key(),
        data: serde_json::Value::Null,
    };
    let head = to_json(&item);
    // Insert JSON data unchanged: parsing it again could change its numbers.
    out.push_str(head.strip_suffix("null}").expect("the last field is null"));
    if event.body.is_json {
        out.push_str(&data);
    } else {
        out.push_str(&to_json(&data));
    }
    out.push('}');
}

/// The data of an event in a stream, with LF line ends only.
fn data_of(event: &SequencedEvent) -> String {
    let mut lines = Vec::with_capacity(event.body.lines.len());
    push_lines(&mut lines, event);
    let text = std::str::from_utf8(&lines[event.body.data_at..]).expect("encoded from text");
    let values = text.lines().map(|line| line.strip_prefix("data: ").unwrap_or(line));
    values.collect::<Vec<_>>().join("\n")
}

/// Splits at the line ends of the standard: LF, CRLF or CR. A last empty line counts, so data
/// ending in a line end keeps it.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let Some(end) = text.find(['\n', '\r']) else {
            rest = None;
            return Some(text);
        };
        let skipped = if text[end..].starts_with("\r\n") { 2 } else { 1 };
        rest = Some(&text[end + skipped..]);
        Some(&text[..end])
    })
}

fn push_line(out: &mut String, field: &str, value: impl std::fmt::Display) {
    writeln!(out, "{field}: {value}").expect(ANY_TEXT);
}

/// Writes text to bytes.
struct Text<'a>(&'a mut Vec<u8>);

impl std::fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain structs and strings serialize")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequenced(event: &Event, collapsed: &[u64]) -> SequencedEvent {
        let policy = crate::testing::policy(crate::policy::Conflate::None);
        let any = crate::testing::sequenced("topic", 70, None, &policy);
        let body = body(event, 1).into();
        let (partition, epoch) = (3, Epoch::new(1));
        let collapsed = crate::event::Collapsed::new(collapsed);
        SequencedEvent { body, partition, epoch, collapsed, ..(*any).clone() }
    }

    fn encoded(event: &Event) -> String {
        let event = sequenced(event, &[]);
        String::from_utf8(events([&event].into_iter()).to_vec()).unwrap()
    }

    #[test]
    fn an_event_is_an_id_a_type_and_data_lines() {
        assert_eq!(encoded(&Event::text("x")), "data: x\nid: 00000001~00000gK.3:16\n\n");
        assert_eq!(
            encoded(&Event::text("x").event_type("like")),
            "event: like\ndata: x\nid: 00000001~00000gK.3:16\n\n"
        );
    }

    #[test]
    fn every_line_end_starts_a_data_line_and_nothing_else_does() {
        assert_eq!(
            encoded(&Event::text("a\nb\r\nc\rd\u{2028}e\u{85}")),
            "data: a\ndata: b\ndata: c\ndata: d\u{2028}e\u{85}\nid: 00000001~00000gK.3:16\n\n"
        );
        assert_eq!(encoded(&Event::text("")), "data: \nid: 00000001~00000gK.3:16\n\n");
        assert_eq!(encoded(&Event::text("a\n")), "data: a\ndata: \nid: 00000001~00000gK.3:16\n\n");
    }

    #[test]
    fn data_is_found_again_in_the_encoded_bytes() {
        for text in ["", "a", "a\nb", "a\n", "\n\n", " data: x"] {
            let event = sequenced(&Event::text(text).event_type("t"), &[]);
            assert_eq!(data_of(&event), text, "{text:?}");
        }
    }

    #[test]
    fn a_batch_has_the_line_ends_of_the_publisher() {
        for text in ["a\r\nb", "a\rb\n", "\r", "a\nb"] {
            let mut item = String::new();
            push_batch_item(&mut item, "1", &sequenced(&Event::text(text), &[]));
            let item: serde_json::Value = serde_json::from_str(&item).unwrap();
            assert_eq!(item["data"], text);
        }
    }

    #[test]
    fn a_merged_event_says_how_many_it_stands_for() {
        for (data, merged) in
            [("{}", "{\"collapsed\":3}"), ("{\"a\":{}}", "{\"a\":{},\"collapsed\":3}")]
        {
            let event = Event::new(EventData::Json(data.to_owned())).collapse("k");
            assert_eq!(data_of(&sequenced(&event, &[])), data);
            assert_eq!(data_of(&sequenced(&event, &[1, 2])), merged);
        }
    }
}
