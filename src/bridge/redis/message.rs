//! The form in which events are pushed and logged, as `publish.lua` writes it:
//! `1 <epoch> <sequence> <previous> <microseconds since 1970> <text|json> <bytes of topic>
//! <of type> <of key>`, a line end, then topic, type, key and data without separators.

use super::clock::Clock;
use crate::domain::{
    cursor::Epoch,
    event::{Event, EventData},
    relay::RelayedEvent,
    topic::Topic,
};

/// A message is not as it should be: another program has written it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a message of the log is not readable")]
pub(super) struct BadMessage;

/// Reads one.
pub(super) fn parse(message: &[u8], clock: &Clock) -> Result<RelayedEvent, BadMessage> {
    let text = std::str::from_utf8(message).map_err(|_| BadMessage)?;
    let (head, body) = text.split_once('\n').ok_or(BadMessage)?;
    let mut words = head.split(' ');
    let mut word = || words.next().ok_or(BadMessage);
    if word()? != "1" {
        return Err(BadMessage);
    }
    let number = |word: &str| word.parse::<u64>().map_err(|_| BadMessage);
    let epoch = Epoch::new(number(word()?)?);
    let sequence = number(word()?)?;
    let previous = number(word()?)?;
    let published_at = clock.at(number(word()?)?);
    let is_json = word()? == "json";
    let mut rest = body;
    let mut part = |length: &str| {
        let length = length.parse::<usize>().map_err(|_| BadMessage)?;
        let (part, after) = rest.split_at_checked(length).ok_or(BadMessage)?;
        rest = after;
        Ok::<_, BadMessage>(part)
    };
    let topic = Topic::parse(part(word()?)?).map_err(|_| BadMessage)?;
    let event_type = part(word()?)?;
    let key = part(word()?)?;
    let data = if is_json { EventData::Json(rest.into()) } else { EventData::Text(rest.into()) };
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let (event_type, key) = (some(event_type), some(key));
    let event = Event { data, event_type, key, collapse: None, id: None };
    // Whatever wrote it: nothing that a stream could not carry goes further.
    event.validate(usize::MAX).map_err(|_| BadMessage)?;
    Ok(RelayedEvent { epoch, sequence, previous, published_at, topic, event })
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
        assert_eq!(event.event, expected);
        assert_eq!(event.published_at, clock.at(1_500_000));
    }

    #[test]
    fn what_is_not_a_message_is_refused() {
        let clock = Clock::new(Instant::now(), 0);
        for message in [
            "",
            "1 7 12 3 0 text 3 0 0",
            "2 7 12 3 0 text 1 0 0\na",
            "1 7 12 3 0 text 9 0 0\na",
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
