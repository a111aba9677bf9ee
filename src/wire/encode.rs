//! What the hub writes: events, control events, comments.

use std::fmt::Write as _;

use bytes::Bytes;
use serde::Serialize;

use crate::domain::{
    cursor::{Cursor, Epoch, Positions, write_cursor},
    event::{Encoded, Event, EventData, SequencedEvent},
};

/// The comment that keeps an idle stream alive.
pub const HEARTBEAT: &[u8] = b": heartbeat\n";

/// Encodes an event for all streams, with the `id:` line of a stream that touches just this
/// partition. That line is the last: some clients take an id over when they read its line,
/// and would miss the event if the connection were cut between there and the blank line.
pub fn event(epoch: Epoch, partition: u16, sequence: u64, event: &Event) -> Encoded {
    let payload = event.data.as_str();
    let mut text = String::with_capacity(payload.len() + 80);
    if let Some(event_type) = &event.event_type {
        push_line(&mut text, "event", event_type);
    }
    let data_at = text.len();
    for line in lines(payload) {
        push_line(&mut text, "data", line);
    }
    let id_at = text.len();
    push_line(&mut text, "id", Cursor::of_event(epoch, partition, sequence));
    text.push('\n');
    let is_json = matches!(event.data, EventData::Json(_));
    Encoded { bytes: text.into(), data_at, id_at, is_json }
}

/// A whole control event.
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

/// The `retry:` line that opens a stream: no block of its own, the event after it ends it.
pub fn retry(millis: u64) -> String {
    format!("retry: {millis}\n")
}

/// A cursor's text.
pub fn cursor_text(epoch: Epoch, positions: &Positions) -> String {
    let mut text = String::new();
    push_cursor(&mut text, epoch, positions);
    text
}

/// The `id:` line of a stream over several partitions, and the blank line that ends the event.
pub fn push_id_line(out: &mut String, epoch: Epoch, positions: &Positions) {
    out.push_str("id: ");
    push_cursor(out, epoch, positions);
    out.push_str("\n\n");
}

/// One event of a JSON batch: `{"id":…,"topic":…,"event":…,"key":…,"data":…}`, without
/// `event` and `key` where the publisher named none.
pub fn push_batch_item(out: &mut String, id: &str, event: &SequencedEvent) {
    #[derive(Serialize)]
    struct Item<'a> {
        id: &'a str,
        topic: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        event: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        key: Option<&'a str>,
        data: serde_json::Value,
    }
    let data = data_of(&event.encoded);
    let item = Item {
        id,
        topic: event.topic.as_str(),
        event: event.event_type.as_deref(),
        key: event.key.as_deref(),
        data: serde_json::Value::Null,
    };
    let head = to_json(&item);
    // JSON data goes in as it stands: parsing it again could change its numbers.
    out.push_str(head.strip_suffix("null}").expect("the last field is null"));
    if event.encoded.is_json {
        out.push_str(&data);
    } else {
        out.push_str(&to_json(&data));
    }
    out.push('}');
}

/// The data that an encoded event carries, its line ends all LF.
fn data_of(encoded: &Encoded) -> String {
    let lines = &encoded.bytes[encoded.data_at..encoded.id_at];
    let text = std::str::from_utf8(lines).expect("encoded from text");
    let values = text.lines().map(|line| line.strip_prefix("data: ").unwrap_or(line));
    values.collect::<Vec<_>>().join("\n")
}

/// Several events' bytes in one piece.
pub fn join<'a>(events: impl ExactSizeIterator<Item = &'a [u8]> + Clone) -> Bytes {
    let size = events.clone().map(<[u8]>::len).sum();
    let mut joined = Vec::with_capacity(size);
    events.for_each(|bytes| joined.extend_from_slice(bytes));
    joined.into()
}

/// Splits where the standard ends a line: LF, CRLF or CR. A last empty line counts, so
/// that data that ends in a line end comes out as it went in.
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
    writeln!(out, "{field}: {value}").expect("a String takes any text");
}

fn push_cursor(out: &mut String, epoch: Epoch, positions: &Positions) {
    write_cursor(out, epoch, positions).expect("a String takes any text");
}

fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain structs and strings serialize")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(event: &Event) -> String {
        let encoded = super::event(Epoch::new(1), 3, 70, event);
        String::from_utf8(encoded.bytes.to_vec()).unwrap()
    }

    #[test]
    fn an_event_is_an_id_a_type_and_data_lines() {
        assert_eq!(encoded(&Event::text("x")), "data: x\nid: 00000001.3:16\n\n");
        assert_eq!(
            encoded(&Event::text("x").event_type("like")),
            "event: like\ndata: x\nid: 00000001.3:16\n\n"
        );
    }

    #[test]
    fn every_line_end_starts_a_data_line_and_nothing_else_does() {
        assert_eq!(
            encoded(&Event::text("a\nb\r\nc\rd\u{2028}e\u{85}")),
            "data: a\ndata: b\ndata: c\ndata: d\u{2028}e\u{85}\nid: 00000001.3:16\n\n"
        );
        assert_eq!(encoded(&Event::text("")), "data: \nid: 00000001.3:16\n\n");
        assert_eq!(encoded(&Event::text("a\n")), "data: a\ndata: \nid: 00000001.3:16\n\n");
    }

    #[test]
    fn data_is_found_again_in_the_encoded_bytes() {
        for text in ["", "a", "a\nb", "a\n", "\n\n", " data: x"] {
            let encoded = super::event(Epoch::new(1), 0, 1, &Event::text(text));
            assert_eq!(data_of(&encoded), text, "{text:?}");
        }
    }
}
