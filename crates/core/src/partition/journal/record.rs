//! The records of a partition and their bytes.
//!
//! Numbers are variable in length (LEB128), texts have their length first. A change of the bytes
//! of a record needs a new kind: a log is read by later versions.

use std::sync::Arc;

use bytes::Bytes;

use super::reading::Reader;
use crate::{event::EventBody, history::RemovedTypes, journal::Record};

/// The kinds of records. A number never changes its meaning.
pub(super) mod kind {
    pub const EVENT: u8 = 1;
    pub const FAN_OUT: u8 = 2;
    pub const TOPIC_MARK: u8 = 3;
    pub const LOG_MARK: u8 = 4;
    pub const KEPT_ID: u8 = 5;
    pub const FAN_OUT_MODE: u8 = 6;
}

/// A publish id with the part of its first answer not found elsewhere in the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct IdOf<'a> {
    pub id: &'a str,
    pub receivers: u64,
}

/// One event of one topic.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct EventRecord<'a> {
    pub unix_ms: u64,
    pub topic: &'a str,
    pub id: Option<IdOf<'a>>,
    pub ttl_ms: Option<u64>,
    pub body: BodyBytes<'a>,
}

/// One body for many topics, with ascending sequences.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FanOutRecord<'a> {
    pub unix_ms: u64,
    pub id: Option<&'a str>,
    pub body: BodyBytes<'a>,
    pub topics: Vec<ReachedTopic<'a>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ReachedTopic<'a> {
    pub topic: &'a str,
    pub sequence: u64,
    /// Whether the event is still needed, not only its topic.
    pub has_event: bool,
}

/// The removed events of a topic.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TopicMark<'a> {
    pub topic: &'a str,
    /// The sequence of the topic's last event.
    pub last: u64,
    /// Highest sequence removed by other means than conflation.
    pub evicted_through: u64,
    pub types: RemovedTypes,
}

/// The state of a partition's log beside its events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct LogMark {
    /// The log has no event before this time.
    pub began_at: u64,
    /// The last sequence known to have left the disk, and its time.
    pub left: (u64, u64),
    pub forgotten_through: u64,
    pub damaged_through: u64,
    /// Ranges of sequences lost by unclean stops: from the last kept one (excluded) on.
    pub lost: Vec<(u64, u64)>,
}

/// An id within the window, without its event.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct KeptId<'a> {
    pub unix_ms: u64,
    pub sequence: u64,
    pub topic: &'a str,
    pub id: IdOf<'a>,
}

/// The mode of a fan-out by its id.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ModeRecord<'a> {
    pub unix_ms: u64,
    pub name: &'a str,
    pub is_pull: bool,
}

/// The bytes of an event's body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BodyBytes<'a> {
    pub event_type: Option<&'a str>,
    pub key: Option<&'a str>,
    pub collapse: Option<&'a str>,
    pub text: Option<&'a str>,
    /// The `data:` lines.
    pub lines: &'a [u8],
    pub is_json: bool,
    pub is_deletion: bool,
}

impl<'a> BodyBytes<'a> {
    pub fn of(body: &'a EventBody) -> Self {
        Self {
            event_type: body.event_type.as_deref(),
            key: body.key.as_deref(),
            collapse: body.collapse.as_deref(),
            text: body.text.as_deref(),
            lines: &body.lines[body.data_at..],
            is_json: body.is_json,
            is_deletion: body.is_deletion,
        }
    }

    /// The body as it was, shared by `topic_count` topics.
    pub fn to_body(&self, topic_count: usize) -> Arc<EventBody> {
        let name = |name: Option<&str>| name.map(Into::into);
        let type_line = self.event_type.map_or(0, |name| name.len() + "event: \n".len());
        let mut lines = Vec::with_capacity(type_line + self.lines.len());
        if let Some(event_type) = self.event_type {
            lines.extend_from_slice(b"event: ");
            lines.extend_from_slice(event_type.as_bytes());
            lines.push(b'\n');
        }
        lines.extend_from_slice(self.lines);
        Arc::new(EventBody {
            event_type: name(self.event_type),
            key: name(self.key),
            collapse: name(self.collapse),
            text: name(self.text),
            lines: Bytes::from(lines),
            data_at: type_line,
            is_json: self.is_json,
            is_deletion: self.is_deletion,
            topic_count: topic_count.max(1),
        })
    }

    fn len(&self) -> usize {
        let names = [self.event_type, self.key, self.collapse, self.text];
        let names: usize = names.into_iter().flatten().map(|name| name.len() + 3).sum();
        self.lines.len() + names
    }

    fn push(&self, out: &mut Writer) {
        let names = [self.event_type, self.key, self.collapse, self.text];
        let flags = names.iter().enumerate().map(|(bit, name)| u8::from(name.is_some()) << bit);
        let flags: u8 = flags.sum();
        out.byte(flags | u8::from(self.is_json) << 4 | u8::from(self.is_deletion) << 5);
        names.into_iter().flatten().for_each(|name| out.text(name));
        // The rest of the record.
        out.0.extend_from_slice(self.lines);
    }

    pub fn read(reader: &mut Reader<'a>) -> Option<Self> {
        let flags = reader.byte()?;
        let mut name = |bit: u8| match flags >> bit & 1 {
            1 => Some(Some(reader.text()?)),
            _ => Some(None),
        };
        let (event_type, key, collapse, text) = (name(0)?, name(1)?, name(2)?, name(3)?);
        let lines = reader.rest();
        // The bytes go to streams as text.
        std::str::from_utf8(lines).ok()?;
        let (is_json, is_deletion) = (flags >> 4 & 1 == 1, flags >> 5 & 1 == 1);
        Some(Self { event_type, key, collapse, text, lines, is_json, is_deletion })
    }
}

impl<'a> EventRecord<'a> {
    pub fn to_record(&self, sequence: u64) -> Record {
        let id = self.id.map_or(0, |id| id.id.len() + 12);
        let mut out = Writer::with_capacity(40 + self.topic.len() + id + self.body.len());
        out.byte(u8::from(self.id.is_some()) | u8::from(self.ttl_ms.is_some()) << 1);
        out.number(self.unix_ms);
        out.text(self.topic);
        if let Some(id) = self.id {
            out.id(id);
        }
        if let Some(ttl_ms) = self.ttl_ms {
            out.number(ttl_ms);
        }
        self.body.push(&mut out);
        out.record(sequence, kind::EVENT)
    }

    pub fn read(payload: &'a [u8]) -> Option<Self> {
        let mut reader = Reader(payload);
        let flags = reader.byte()?;
        let (unix_ms, topic) = (reader.number()?, reader.text()?);
        let id = if flags & 1 == 1 { Some(reader.id()?) } else { None };
        let ttl_ms = if flags & 2 == 2 { Some(reader.number()?) } else { None };
        Some(Self { unix_ms, topic, id, ttl_ms, body: BodyBytes::read(&mut reader)? })
    }
}

impl<'a> FanOutRecord<'a> {
    /// `sequence` is the last one of the fan-out, as written first.
    pub fn to_record(&self, sequence: u64) -> Record {
        let topics: usize = self.topics.iter().map(|reached| reached.topic.len() + 6).sum();
        let id = self.id.map_or(0, |id| id.len() + 3);
        let mut out = Writer::with_capacity(40 + id + topics + self.body.len());
        out.byte(u8::from(self.id.is_some()));
        out.number(self.unix_ms);
        self.id.into_iter().for_each(|id| out.text(id));
        out.number(self.topics.len() as u64);
        let mut before = 0;
        for reached in &self.topics {
            out.number((reached.sequence - before) << 1 | u64::from(reached.has_event));
            before = reached.sequence;
            out.text(reached.topic);
        }
        self.body.push(&mut out);
        out.record(sequence, kind::FAN_OUT)
    }

    pub fn read(payload: &'a [u8]) -> Option<Self> {
        let mut reader = Reader(payload);
        let has_id = reader.byte()? & 1 == 1;
        let unix_ms = reader.number()?;
        let id = if has_id { Some(reader.text()?) } else { None };
        let mut before = 0;
        let topics = (0..reader.number()?).map(|_| {
            let number = reader.number()?;
            before = number.checked_shr(1)?.checked_add(before)?;
            let topic = reader.text()?;
            Some(ReachedTopic { topic, sequence: before, has_event: number & 1 == 1 })
        });
        let topics = topics.collect::<Option<Vec<_>>>()?;
        Some(Self { unix_ms, id, topics, body: BodyBytes::read(&mut reader)? })
    }
}

impl<'a> TopicMark<'a> {
    pub fn to_record(&self) -> Record {
        let mut out = Writer::with_capacity(40 + self.topic.len());
        out.text(self.topic);
        out.number(self.last);
        out.number(self.evicted_through);
        out.number(self.types.others);
        for (hash, sequence) in &self.types.known {
            out.number((*hash).into());
            out.number(*sequence);
        }
        out.record(0, kind::TOPIC_MARK)
    }

    pub fn read(payload: &'a [u8]) -> Option<Self> {
        let mut reader = Reader(payload);
        let (topic, last) = (reader.text()?, reader.number()?);
        let (evicted_through, others) = (reader.number()?, reader.number()?);
        let mut known = Vec::new();
        while !reader.is_empty() {
            known.push((u32::try_from(reader.number()?).ok()?, reader.number()?));
        }
        Some(Self { topic, last, evicted_through, types: RemovedTypes { known, others } })
    }
}

impl LogMark {
    pub fn to_record(&self) -> Record {
        let mut out = Writer::with_capacity(64 + 20 * self.lost.len());
        let numbers = [self.began_at, self.left.0, self.left.1];
        numbers.into_iter().for_each(|number| out.number(number));
        out.number(self.forgotten_through);
        out.number(self.damaged_through);
        for (after, through) in &self.lost {
            out.number(*after);
            out.number(*through);
        }
        out.record(0, kind::LOG_MARK)
    }

    pub fn read(payload: &[u8]) -> Option<Self> {
        let mut reader = Reader(payload);
        let began_at = reader.number()?;
        let left = (reader.number()?, reader.number()?);
        let (forgotten_through, damaged_through) = (reader.number()?, reader.number()?);
        let mut lost = Vec::new();
        while !reader.is_empty() {
            lost.push((reader.number()?, reader.number()?));
        }
        Some(Self { began_at, left, forgotten_through, damaged_through, lost })
    }
}

impl<'a> KeptId<'a> {
    pub fn to_record(&self) -> Record {
        let mut out = Writer::with_capacity(50 + self.topic.len() + self.id.id.len());
        out.number(self.unix_ms);
        out.number(self.sequence);
        out.text(self.topic);
        out.id(self.id);
        out.record(0, kind::KEPT_ID)
    }

    pub fn read(payload: &'a [u8]) -> Option<Self> {
        let mut reader = Reader(payload);
        let (unix_ms, sequence) = (reader.number()?, reader.number()?);
        Some(Self { unix_ms, sequence, topic: reader.text()?, id: reader.id()? })
    }
}

impl<'a> ModeRecord<'a> {
    pub fn to_record(&self) -> Record {
        let mut out = Writer::with_capacity(16 + self.name.len());
        out.number(self.unix_ms);
        out.byte(u8::from(self.is_pull));
        out.text(self.name);
        out.record(0, kind::FAN_OUT_MODE)
    }

    pub fn read(payload: &'a [u8]) -> Option<Self> {
        let mut reader = Reader(payload);
        let (unix_ms, is_pull) = (reader.number()?, reader.byte()? == 1);
        Some(Self { unix_ms, name: reader.text()?, is_pull })
    }
}

/// Writes the payload of one record.
struct Writer(Vec<u8>);

impl Writer {
    fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.extend_from_slice(text.as_bytes());
    }

    fn id(&mut self, id: IdOf<'_>) {
        self.number(id.receivers);
        self.text(id.id);
    }

    fn record(self, sequence: u64, kind: u8) -> Record {
        Record { sequence, kind, payload: self.0.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{event::Event, sse::encode};

    fn body(event: &Event) -> EventBody {
        encode::body(event, 1)
    }

    #[test]
    fn every_record_is_read_as_it_was_written() {
        let text = Event::text("a\r\nb").event_type("t").key("k").collapse("c");
        for event in [Event::text(""), text, Event::json(&[1, 2]).unwrap()] {
            let body = body(&event);
            for (id, ttl_ms) in [(None, None), (Some(IdOf { id: "i", receivers: 300 }), Some(1))] {
                let bytes = BodyBytes::of(&body);
                let event = EventRecord { unix_ms: 1 << 41, topic: "a:b", id, ttl_ms, body: bytes };
                let record = event.to_record(9);
                assert_eq!((record.sequence, record.kind), (9, kind::EVENT));
                let read = EventRecord::read(&record.payload).unwrap();
                assert_eq!(read, event);
                assert_eq!(*read.body.to_body(1), body);
            }
        }
        let types = RemovedTypes { known: vec![(7, 8), (u32::MAX, 1)], others: 3 };
        let mark = TopicMark { topic: "a", last: 300, evicted_through: 200, types };
        assert_eq!(TopicMark::read(&mark.to_record().payload).unwrap(), mark);
        let lost = vec![(5, 1 << 20), (1 << 21, u64::MAX)];
        let mark = LogMark { began_at: 1, left: (2, 3), lost, ..LogMark::default() };
        assert_eq!(LogMark::read(&mark.to_record().payload).unwrap(), mark);
        let id = IdOf { id: "i", receivers: 0 };
        let kept = KeptId { unix_ms: 1, sequence: 2, topic: "a", id };
        assert_eq!(KeptId::read(&kept.to_record().payload).unwrap(), kept);
        let mode = ModeRecord { unix_ms: 1, name: "ada", is_pull: true };
        assert_eq!(ModeRecord::read(&mode.to_record().payload).unwrap(), mode);
    }

    #[test]
    fn a_fan_out_keeps_the_sequences_of_its_topics() {
        let body = body(&Event::text("x"));
        let reached = |(topic, sequence, has_event)| ReachedTopic { topic, sequence, has_event };
        let topics = [("a", 5, true), ("b", 6, false), ("c", 900, true)].map(reached).to_vec();
        let body = BodyBytes::of(&body);
        let fan_out = FanOutRecord { unix_ms: 1, id: Some("once"), topics, body };
        let record = fan_out.to_record(900);
        assert_eq!(FanOutRecord::read(&record.payload).unwrap(), fan_out);
    }

    #[test]
    fn cut_bytes_are_no_record_and_never_a_panic() {
        let body = body(&Event::text("x").event_type("type").key("key"));
        let id = Some(IdOf { id: "an id", receivers: 1 });
        let body = BodyBytes::of(&body);
        let event = EventRecord { unix_ms: 1, topic: "topic", id, ttl_ms: Some(5), body };
        let payload = event.to_record(1).payload;
        let data = payload.len() - "data: x\n".len();
        for length in 0..data {
            assert_eq!(EventRecord::read(&payload[..length]), None);
            FanOutRecord::read(&payload[..length]);
            TopicMark::read(&payload[..length]);
            LogMark::read(&payload[..length]);
        }
    }
}
