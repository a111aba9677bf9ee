//! The mark in the payload of each event: its run, its topic, its number in the topic, and its
//! send time. The characters of a mark pass through JSON, URLs and other hubs unchanged.

use memchr::memmem::Finder;

/// Shortest payload: room for a mark with the largest numbers of a run.
pub(super) const MIN_PAYLOAD_BYTES: usize = 64;

const PREFIX: &str = "~fb~";

/// The decoded mark of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub topic: u32,
    /// Counts from 0 in each topic.
    pub number: u64,
    /// Microseconds since the start of the run, on this process's clock.
    pub sent_micros: u64,
}

/// Writes and finds the marks of one run. Events of other runs on the same topics have no mark.
#[derive(Debug, Clone)]
pub(super) struct Marker {
    /// The mark's prefix, up to the topic.
    start: String,
    finder: Finder<'static>,
}

impl Marker {
    pub fn new(run: u32) -> Self {
        let start = format!("{PREFIX}{run:x}~");
        Self { finder: Finder::new(start.as_bytes()).into_owned(), start }
    }

    /// A payload of this size.
    pub fn payload(&self, mark: Mark, payload_bytes: usize) -> String {
        let Mark { topic, number, sent_micros } = mark;
        let mut payload = format!("{}{topic}~{number}~{sent_micros}~", self.start);
        while payload.len() < payload_bytes {
            payload.push('x');
        }
        payload
    }

    /// The mark at any position in a line. None for an event of another publisher.
    pub fn find(&self, line: &[u8]) -> Option<Mark> {
        let start = self.start.as_bytes();
        // Most hubs send the payload unchanged: checking the start first avoids the search.
        let unwrapped = line.strip_prefix(b" ").unwrap_or(line).strip_prefix(start);
        let mut fields = match unwrapped {
            Some(fields) => fields,
            None => &line[self.finder.find(line)? + start.len()..],
        };
        let topic = u32::try_from(number(&mut fields)?).ok()?;
        Some(Mark { topic, number: number(&mut fields)?, sent_micros: number(&mut fields)? })
    }
}

/// Takes the number at the start of the line, and the `~` after it.
fn number(fields: &mut &[u8]) -> Option<u64> {
    let mut number: u64 = 0;
    for (at, byte) in fields.iter().enumerate() {
        match byte {
            b'0'..=b'9' => {
                number = number.checked_mul(10)?.checked_add(u64::from(byte - b'0'))?;
            }
            b'~' if at > 0 => {
                *fields = &fields[at + 1..];
                return Some(number);
            }
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: Mark = Mark { topic: 7, number: 123, sent_micros: 456_789 };

    #[test]
    fn a_mark_is_found_in_whatever_a_hub_wraps_it_in() {
        let marker = Marker::new(0xabc);
        let payload = marker.payload(MARK, 100);
        assert_eq!(payload.len(), 100);
        let lines = [
            format!(" {payload}"),
            payload.clone(),
            format!("data: {payload}"),
            format!(r#" {{"data":"{payload}"}}"#),
        ];
        for line in lines {
            assert_eq!(marker.find(line.as_bytes()), Some(MARK));
        }
    }

    #[test]
    fn events_of_others_have_none() {
        let payload = Marker::new(1).payload(MARK, 100);
        assert_eq!(Marker::new(2).find(payload.as_bytes()), None);
        assert_eq!(Marker::new(2).find(b"data: ~fb~2~1~x~3~"), None);
        for bad in ["~fb~2~1", "~fb~2~1~2~3", "~fb~2~~2~3~", "~fb~2~1~99999999999999999999~3~"] {
            assert_eq!(Marker::new(2).find(format!("data: {bad}").as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn the_shortest_payload_holds_the_largest_mark_of_a_day() {
        let micros_of_a_day = 24 * 3600 * 1_000_000;
        let mark = Mark { topic: u32::MAX, number: 1 << 40, sent_micros: micros_of_a_day };
        let payload = Marker::new(u32::MAX).payload(mark, MIN_PAYLOAD_BYTES);
        assert_eq!(payload.len(), MIN_PAYLOAD_BYTES);
    }
}
