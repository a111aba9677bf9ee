//! The format of pushed and logged events, as `publish.lua` writes them. Times are microseconds
//! since 1970; lengths are bytes; fields after the line end have no separators.
//!
//! One event of one topic:
//!
//! ```text
//! 1 <epoch> <sequence> <previous> <time> <text|json|gone> <topic length> <type length> <key length>
//! <topic><type><key><data>
//! ```
//!
//! With `2` in front, the first line ends with the length of the collapse key, and the collapse
//! key follows the key.
//!
//! One event for many topics; the last part repeats for each topic:
//!
//! ```text
//! 1 <epoch> <time> <text|json|gone> <type length> <key length> <collapse length> <data length> <topics>
//! <type><key><collapse><data><sequence> <previous> <topic length> <topic>
//! ```
//!
//! The announcement of a call's events; the last part repeats for each of them:
//!
//! ```text
//! <first sequence> <events>
//! <topic length> <topic>
//! ```

use std::sync::Arc;

use fanfare_core::{
    cursor::{Epoch, IN_ANOTHER_EPOCH},
    event::{Event, EventData},
    log::LogEvent,
    sse::encode,
    topic::Topic,
};

use crate::clock::Clock;

/// A message in another format. Only another program can have written it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid message in the log")]
pub(super) struct BadMessage;

/// Parses one event of one topic.
pub(super) fn parse(message: &[u8], clock: &Clock) -> Result<LogEvent, BadMessage> {
    let text = std::str::from_utf8(message).map_err(|_| BadMessage)?;
    let (head, body) = text.split_once('\n').ok_or(BadMessage)?;
    let mut words = head.split(' ');
    let mut word = || words.next().ok_or(BadMessage);
    let has_collapse = match word()? {
        "1" => false,
        "2" => true,
        _ => return Err(BadMessage),
    };
    let epoch = Epoch::new(number(word()?)?);
    let sequence = sequence(word()?)?;
    let previous = number(word()?)?;
    let micros = number(word()?)?;
    let (published_at, unix_ms) = (clock.at(micros), micros / 1000);
    let kind = word()?;
    let mut rest = MessageParts(body);
    let topic = Topic::parse(rest.part(word()?)?).map_err(|_| BadMessage)?;
    let event_type = rest.part(word()?)?;
    let key = rest.part(word()?)?;
    let collapse = if has_collapse { rest.part(word()?)? } else { "" };
    let event = event(kind, rest.0, event_type, key, collapse)?;
    let body = Arc::new(encode::body(&event, 1));
    Ok(LogEvent { epoch, sequence, previous, published_at, unix_ms, topic, body })
}

/// Parses one event for many topics into one event per topic. All share one body.
pub(super) fn parse_fan_out(message: &[u8], clock: &Clock) -> Result<Vec<LogEvent>, BadMessage> {
    let text = std::str::from_utf8(message).map_err(|_| BadMessage)?;
    let (head, body) = text.split_once('\n').ok_or(BadMessage)?;
    let words: Vec<&str> = head.split(' ').collect();
    let ["1", epoch, at, kind, event_type, key, collapse, data, count] = words[..] else {
        return Err(BadMessage);
    };
    let (epoch, micros) = (Epoch::new(number(epoch)?), number(at)?);
    let (published_at, unix_ms) = (clock.at(micros), micros / 1000);
    let mut rest = MessageParts(body);
    let (event_type, key) = (rest.part(event_type)?, rest.part(key)?);
    let (collapse, count) = (rest.part(collapse)?, number(count)?);
    let event = event(kind, rest.part(data)?, event_type, key, collapse)?;
    let body = Arc::new(encode::body(&event, count as usize));
    let mut events = Vec::new();
    for _ in 0..count {
        let (sequence, previous) = (sequence(rest.word()?)?, number(rest.word()?)?);
        let length = rest.word()?;
        let topic = Topic::parse(rest.part(length)?).map_err(|_| BadMessage)?;
        let body = body.clone();
        events.push(LogEvent { epoch, sequence, previous, published_at, unix_ms, topic, body });
    }
    Ok(events)
}

/// Parses an announcement: its first sequence, and the topic of each event.
pub(super) fn parse_announcement(message: &[u8]) -> Result<(u64, Vec<Topic>), BadMessage> {
    let text = std::str::from_utf8(message).map_err(|_| BadMessage)?;
    let (head, body) = text.split_once('\n').ok_or(BadMessage)?;
    let (first, count) = head.split_once(' ').ok_or(BadMessage)?;
    let mut rest = MessageParts(body);
    let mut topics = Vec::new();
    for _ in 0..number(count)? {
        let length = rest.word()?;
        topics.push(Topic::parse(rest.part(length)?).map_err(|_| BadMessage)?);
    }
    Ok((sequence(first)?, topics))
}

/// Unparsed text. Each call takes one part from its front.
struct MessageParts<'a>(&'a str);

impl<'a> MessageParts<'a> {
    /// Takes `length` bytes.
    fn part(&mut self, length: &str) -> Result<&'a str, BadMessage> {
        let length = length.parse::<usize>().map_err(|_| BadMessage)?;
        let (part, after) = self.0.split_at_checked(length).ok_or(BadMessage)?;
        self.0 = after;
        Ok(part)
    }

    /// Takes the text before the next space, and the space.
    fn word(&mut self) -> Result<&'a str, BadMessage> {
        let (word, after) = self.0.split_once(' ').ok_or(BadMessage)?;
        self.0 = after;
        Ok(word)
    }
}

/// A sequence with room in a cursor.
fn sequence(word: &str) -> Result<u64, BadMessage> {
    number(word).and_then(|number| (number < IN_ANOTHER_EPOCH).then_some(number).ok_or(BadMessage))
}

fn number(word: &str) -> Result<u64, BadMessage> {
    word.parse().map_err(|_| BadMessage)
}

fn event(
    kind: &str,
    data: &str,
    event_type: &str,
    key: &str,
    collapse: &str,
) -> Result<Event, BadMessage> {
    let data = match kind {
        "json" | "gone" => EventData::Json(data.into()),
        _ => EventData::Text(data.into()),
    };
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let (event_type, key, collapse) = (some(event_type), some(key), some(collapse));
    let delete = kind == "gone";
    let event = Event { event_type, key, collapse, delete, ..Event::new(data) };
    // Any program may publish by the script. Without this check, a control character in the type
    // or a null character in the data would reach the streams.
    event.validate(usize::MAX).map_err(|_| BadMessage)?;
    Ok(event)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_message_is_read_as_the_script_writes_it() {
        let clock = Clock::new(Instant::now(), 1_000_000);
        let message = "1 7 12 3 1500000 text 3 4 1\na:blikek\nd\u{e9}";
        let event = parse(message.as_bytes(), &clock).unwrap();
        assert_eq!((event.epoch, event.sequence, event.previous), (Epoch::new(7), 12, 3));
        assert_eq!(event.topic.as_str(), "a:b");
        let expected = Event::text("\nd\u{e9}").event_type("like").key("k");
        assert_eq!(*event.body, encode::body(&expected, 1));
        assert_eq!(event.published_at, clock.at(1_500_000));
    }

    #[test]
    fn one_event_for_many_topics_is_read_with_one_body() {
        let clock = Clock::new(Instant::now(), 0);
        let message = "1 7 0 json 4 0 1 2 2\nlikek{}12 3 3 a:b13 0 1 c";
        let events = parse_fan_out(message.as_bytes(), &clock).unwrap();
        let places = events.iter().map(|one| (one.topic.as_str(), one.sequence, one.previous));
        assert_eq!(places.collect::<Vec<_>>(), [("a:b", 12, 3), ("c", 13, 0)]);
        assert!(Arc::ptr_eq(&events[0].body, &events[1].body));
        assert_eq!(events[0].body.collapse.as_deref(), Some("k"));
        for message in ["", "1 7 0 json 4 0 1 2 2\nlikek{}12 3 3 a:b13 0 2 c", "1 7 0 json 4 1 2\n"]
        {
            assert!(parse_fan_out(message.as_bytes(), &clock).is_err(), "{message:?}");
        }
    }

    #[test]
    fn an_announcement_names_the_topics_of_consecutive_events() {
        let (first, topics) = parse_announcement(b"12 2\n3 a:b1 c").unwrap();
        assert_eq!((first, topics.iter().map(Topic::as_str).collect()), (12, vec!["a:b", "c"]));
        for message in ["", "12 2\n3 a:b", "12\n1 a", "x 1\n1 a", "12 1\n1 *"] {
            assert!(parse_announcement(message.as_bytes()).is_err(), "{message:?}");
        }
    }

    #[test]
    fn what_is_not_a_message_is_refused() {
        let clock = Clock::new(Instant::now(), 0);
        for message in [
            "",
            "1 7 12 3 0 text 3 0 0",
            "2 7 12 3 0 text 1 0 0\na",
            "3 7 12 3 0 text 1 0 0\na",
            "2 7 12 3 0 text 1 0 0 1\nak{}",
            "1 7 12 3 0 text 9 0 0\na",
            "1 7 18446744073709551000 3 0 text 1 0 0\na",
            "1 7 18014398509481983 3 0 text 1 0 0\na",
            "1 7 12 3 0 text 1 0 18446744073709551615\na",
            "1 7 x 3 0 text 1 0 0\na",
            "1 7 12 3 0 text 1 0 0\n*",
            "1 7 12 3 0 text 1 3 0\nagap",
            "1 7 12 3 0 text 1 0 0\na\0",
        ] {
            assert!(parse(message.as_bytes(), &clock).is_err(), "{message:?}");
        }
    }
}
