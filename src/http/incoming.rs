//! An event in the JSON of a request.

use std::time::Duration;

use fanfare_core::{
    error::ErrorCode,
    event::{Event, EventData, EventError},
};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{
    body::object,
    refusal::{Refusal, bad_json},
};
use crate::fan_out::FanOutMode;

/// The body of a publish, with all aliases.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PublishBody<'a> {
    #[serde(alias = "channel")]
    topic: Option<String>,
    #[serde(alias = "channels")]
    topics: Option<Vec<String>>,
    #[serde(alias = "eventType")]
    event: Option<String>,
    /// `null` is data; a missing field is an error.
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    key: Option<String>,
    collapse: Option<String>,
    id: Option<String>,
    #[serde(default)]
    delete: bool,
    ttl: Option<String>,
}

/// The body of a fan-out.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FanOutBody<'a> {
    author: String,
    #[serde(alias = "eventType")]
    event: Option<String>,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    collapse: Option<String>,
    id: Option<String>,
    #[serde(default)]
    mode: FanOutMode,
}

/// An event for an author's followers.
pub(crate) struct IncomingFanOut {
    pub author: String,
    pub event: Event,
    pub mode: FanOutMode,
}

/// Reads one event for an author's followers. The hub checks its fields.
pub(crate) fn parse_fan_out(json: &[u8]) -> Result<IncomingFanOut, Refusal> {
    let body: FanOutBody<'_> = object(json).map_err(bad_json)?;
    let FanOutBody { author, event: event_type, data, collapse, id, mode } = body;
    let event = Event { event_type, collapse, id, ..Event::new(data_of(data)?) };
    Ok(IncomingFanOut { author, event, mode })
}

fn data_of(data: Option<&RawValue>) -> Result<EventData, Refusal> {
    let data = data.ok_or_else(|| Refusal::new(ErrorCode::BadEvent, "an event needs `data`"))?;
    Ok(match data.get().starts_with('"') {
        true => EventData::Text(serde_json::from_str(data.get()).map_err(bad_json)?),
        false => EventData::Json(compact(data.get())),
    })
}

fn present<'de: 'a, 'a, D: Deserializer<'de>>(from: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

/// One event and its topics.
pub(crate) struct Incoming {
    pub topics: Vec<String>,
    /// Whether the request has a list of topics. The answer is then a list too.
    pub has_list: bool,
    pub event: Event,
}

/// Reads one event. The hub checks its fields.
pub(crate) fn parse(json: &[u8]) -> Result<Incoming, Refusal> {
    let body: PublishBody<'_> = object(json).map_err(bad_json)?;
    let (topics, has_list) = match (body.topic, body.topics) {
        (Some(topic), None) => (vec![topic], false),
        (None, Some(topics)) if !topics.is_empty() => (topics, true),
        (None, _) => return Err(Refusal::new(ErrorCode::BadTopic, "an event needs a topic")),
        (Some(_), Some(_)) => {
            return Err(Refusal::new(
                ErrorCode::BadTopic,
                "an event has either `topic` or `topics`",
            ));
        }
    };
    let PublishBody { event: event_type, key, collapse, id, delete, data, ttl, .. } = body;
    let data = match (delete, data) {
        (true, None) => EventData::Json(String::new()),
        // Some libraries write every field.
        (true, Some(data)) if data.get() == "null" => EventData::Json(String::new()),
        (true, Some(_)) => return Err(EventError::DeleteAlone.into()),
        (false, data) => data_of(data)?,
    };
    let ttl = ttl.as_deref().map(ttl_of).transpose()?;
    let event = Event { event_type, key, collapse, id, delete, ttl, ..Event::new(data) };
    Ok(Incoming { topics, has_list, event })
}

/// The time to live of a key: a duration with a unit, as in the configuration.
fn ttl_of(text: &str) -> Result<Duration, Refusal> {
    let message = "`ttl` is a duration like `30s` or `5m`";
    humantime::parse_duration(text).map_err(|_| Refusal::new(ErrorCode::BadEvent, message))
}

/// The topics of one event, or of an array of events. The other fields are not checked yet.
pub(crate) fn topics_of(json: &[u8]) -> Result<Vec<String>, Refusal> {
    #[derive(Deserialize)]
    struct Named {
        #[serde(alias = "channel")]
        topic: Option<String>,
        #[serde(alias = "channels", default)]
        topics: Vec<String>,
    }
    let events: Vec<Named> = match json.trim_ascii_start().first() {
        Some(b'[') => serde_json::from_slice(json).map_err(bad_json)?,
        _ => vec![object(json).map_err(bad_json)?],
    };
    let mut topics: Vec<String> =
        events.into_iter().flat_map(|event| event.topic.into_iter().chain(event.topics)).collect();
    topics.sort_unstable();
    topics.dedup();
    Ok(topics)
}

/// Valid JSON without the white space between tokens. Numbers and the order of keys stay literally;
/// a parsed JSON value would lose them.
fn compact(json: &str) -> String {
    let mut compact = String::with_capacity(json.len());
    let mut copied = 0;
    let mut in_string = false;
    let mut escaped = false;
    for (at, byte) in json.bytes().enumerate() {
        if in_string {
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
        } else if byte.is_ascii_whitespace() {
            compact.push_str(&json[copied..at]);
            copied = at + 1;
        } else {
            in_string = byte == b'"';
        }
    }
    compact.push_str(&json[copied..]);
    compact
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_compacted_to_the_letter() {
        let json = r#" { "b" : [ 1.50 , 1e400,-0 ], "a":"x \" \\ y\t",  "c":{ } } "#;
        assert_eq!(compact(json), r#"{"b":[1.50,1e400,-0],"a":"x \" \\ y\t","c":{}}"#);
    }

    #[test]
    fn a_string_is_text_and_null_is_json() {
        let data = |json: &str| parse(json.as_bytes()).map(|incoming| incoming.event.data).ok();
        assert_eq!(
            data(r#"{"topic":"a","data":"x\ny"}"#),
            Some(EventData::Text("x\ny".to_owned()))
        );
        assert_eq!(data(r#"{"channel":"a","data":null}"#), Some(EventData::Json("null".into())));
        assert_eq!(data(r#"{"topic":"a"}"#), None);
        assert_eq!(data(r#"{"topic":"a","data":"\ud800"}"#), None);
    }
}
