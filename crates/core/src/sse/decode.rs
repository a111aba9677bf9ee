//! Decodes an event stream (WHATWG HTML §9.2.6) from pieces of any size. Owns neither the meaning
//! of the hub's own events nor connections.

use std::{collections::VecDeque, mem, time::Duration};

/// Bound on the bytes of one incomplete event. A hub's payloads are far smaller. Without the bound,
/// a stream without line ends would use all memory.
const MAX_EVENT_BYTES: usize = 64 * 1024 * 1024;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// One decoded piece of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decoded {
    Event {
        /// `message` for an event without a type.
        event_type: String,
        data: String,
        /// The last event id: this event's own, or the most recent one before it.
        id: String,
    },
    /// The waiting time before a reconnect.
    Retry(Duration),
    /// A comment line: only a sign of life.
    Comment,
}

/// The bound is exceeded. The decoder is then unusable: open the stream again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an event of the stream is larger than {max_bytes} bytes")]
pub struct DecodeError {
    max_bytes: usize,
}

/// One decoder per connection. Drop it with the connection, together with any incomplete event.
#[derive(Debug)]
pub struct Decoder {
    /// The unfinished line.
    line: Vec<u8>,
    is_first_line: bool,
    /// The last byte was a CR, so a following LF belongs to it.
    is_after_cr: bool,
    event_type: String,
    /// With an LF after each line.
    data: String,
    /// The value of the last `id` line. It takes effect at the end of its block: after a cut
    /// within the block the client resumes before this event.
    id: String,
    last_event_id: String,
    decoded: VecDeque<Decoded>,
    max_event_bytes: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            line: Vec::new(),
            is_first_line: true,
            is_after_cr: false,
            event_type: String::new(),
            data: String::new(),
            id: String::new(),
            last_event_id: String::new(),
            decoded: VecDeque::new(),
            max_event_bytes: MAX_EVENT_BYTES,
        }
    }
}

impl Decoder {
    /// Decodes the next bytes. Take the completed pieces by [`pop`](Self::pop) before the next
    /// push: their queue is unbounded.
    ///
    /// # Errors
    /// An incomplete event exceeds 64 MiB.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), DecodeError> {
        while let Some(first) = bytes.first() {
            // The CR has ended the line at once, without waiting for the LF of a CRLF.
            if mem::take(&mut self.is_after_cr) && *first == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
                return self.keep(bytes);
            };
            self.keep(&bytes[..end])?;
            self.is_after_cr = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            self.on_line_end();
        }
        Ok(())
    }

    /// The next completed piece, in order.
    pub fn pop(&mut self) -> Option<Decoded> {
        self.decoded.pop_front()
    }

    /// The last event id of all complete blocks, blocks without data included. Empty if there was
    /// none.
    pub fn last_event_id(&self) -> &str {
        &self.last_event_id
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        if self.line.len() + bytes.len() + self.data.len() > self.max_event_bytes {
            return Err(DecodeError { max_bytes: self.max_event_bytes });
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn on_line_end(&mut self) {
        let mut kept = mem::take(&mut self.line);
        let mut line = kept.as_slice();
        if mem::take(&mut self.is_first_line) {
            line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
        }
        // Decoding UTF-8 line by line gives the same text: no sequence spans a line end.
        self.on_line(&String::from_utf8_lossy(line));
        kept.clear();
        self.line = kept;
    }

    fn on_line(&mut self, line: &str) {
        match line.split_once(':') {
            None if line.is_empty() => self.on_block_end(),
            None => self.on_field(line, ""),
            Some(("", _)) => self.decoded.push_back(Decoded::Comment),
            Some((field, value)) => self.on_field(field, value.strip_prefix(' ').unwrap_or(value)),
        }
    }

    fn on_field(&mut self, field: &str, value: &str) {
        match field {
            "event" => value.clone_into(&mut self.event_type),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            "id" if !value.contains('\0') => value.clone_into(&mut self.id),
            "retry" if value.bytes().all(|byte| byte.is_ascii_digit()) => {
                let millis = value.parse().ok().map(Duration::from_millis);
                self.decoded.extend(millis.map(Decoded::Retry));
            }
            _ => {}
        }
    }

    fn on_block_end(&mut self) {
        self.last_event_id.clone_from(&self.id);
        let mut event_type = mem::take(&mut self.event_type);
        let mut data = mem::take(&mut self.data);
        // A block without data is no event, but its id counts.
        if data.pop().is_none() {
            return;
        }
        if event_type.is_empty() {
            event_type.push_str("message");
        }
        self.decoded.push_back(Decoded::Event { event_type, data, id: self.id.clone() });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Decoded>, String) {
        let mut decoder = Decoder::default();
        let mut all = Vec::new();
        for piece in pieces {
            decoder.push(piece).unwrap();
            all.extend(std::iter::from_fn(|| decoder.pop()));
        }
        (all, decoder.last_event_id().to_owned())
    }

    fn events(stream: &[u8]) -> Vec<Decoded> {
        decode([stream]).0
    }

    fn event(event_type: &str, data: &str, id: &str) -> Decoded {
        Decoded::Event { event_type: event_type.into(), data: data.into(), id: id.into() }
    }

    #[test]
    fn an_event_has_its_type_its_data_and_its_id() {
        assert_eq!(
            events(b"event: like\ndata: a\ndata:b\nid: 7\n\ndata:  c\n\n"),
            [event("like", "a\nb", "7"), event("message", " c", "7")]
        );
    }

    #[test]
    fn lf_crlf_and_cr_end_a_line() {
        let expected = [event("message", "a\nb", ""), event("message", "c", "")];
        assert_eq!(events(b"data: a\ndata: b\n\ndata: c\n\n"), expected);
        assert_eq!(events(b"data: a\r\ndata: b\r\n\r\ndata: c\r\n\r\n"), expected);
        assert_eq!(events(b"data: a\rdata: b\r\rdata: c\r\r"), expected);
        assert_eq!(events(b"data: a\rdata: b\n\r\ndata: c\r\n\n"), expected);
    }

    #[test]
    fn a_cr_ends_the_event_without_waiting_for_what_follows() {
        let mut decoder = Decoder::default();
        decoder.push(b"data: a\r\n\r").unwrap();
        assert_eq!(decoder.pop(), Some(event("message", "a", "")));
        decoder.push(b"\ndata: b\r\n\r\n").unwrap();
        assert_eq!(decoder.pop(), Some(event("message", "b", "")));
        assert_eq!(decoder.pop(), None);
    }

    #[test]
    fn one_byte_order_mark_at_the_start_is_left_out() {
        assert_eq!(events(b"\xef\xbb\xbfdata: a\n\n"), [event("message", "a", "")]);
        assert_eq!(events(b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n"), []);
        assert_eq!(events(b"\n\xef\xbb\xbfdata: a\n\n"), []);
    }

    #[test]
    fn an_id_with_nul_is_ignored_and_an_empty_one_resets() {
        assert_eq!(
            events(b"id: 1\ndata\n\nid: 2\0\ndata\n\nid\ndata\n\n"),
            [event("message", "", "1"), event("message", "", "1"), event("message", "", "")]
        );
    }

    #[test]
    fn a_block_without_data_is_no_event_but_sets_the_id() {
        let (decoded, last_event_id) = decode([b"event: like\nid: 3\n\n".as_slice()]);
        assert_eq!((decoded, last_event_id.as_str()), (vec![], "3"));
        assert_eq!(events(b"event: like\nid: 3\n\ndata: x\n\n"), [event("message", "x", "3")]);
    }

    #[test]
    fn an_incomplete_block_counts_for_nothing() {
        let (decoded, last_event_id) = decode([b"id: 1\ndata: a\n\nid: 2\ndata: b\n".as_slice()]);
        assert_eq!((decoded, last_event_id.as_str()), (vec![event("message", "a", "1")], "1"));
    }

    #[test]
    fn retry_takes_digits_only_and_at_once() {
        assert_eq!(events(b"retry: 1500\n"), [Decoded::Retry(Duration::from_millis(1500))]);
        assert_eq!(events(b"retry: 1.5\nretry: -1\nretry\nretry: +1\nretry:  1\n"), []);
        assert_eq!(events(b"retry: 99999999999999999999999\n"), []);
    }

    #[test]
    fn comments_are_seen_and_unknown_fields_are_not() {
        assert_eq!(
            events(b": heartbeat\n:\nfoo: bar\nfoo\n Data: x\ndata: a\n\n"),
            [Decoded::Comment, Decoded::Comment, event("message", "a", "")]
        );
    }

    #[test]
    fn bytes_that_are_not_utf_8_are_replaced() {
        assert_eq!(
            events(b"data: a\xff\xe2\x82\ndata: \xe2\x82\xac\n\n"),
            [event("message", "a\u{fffd}\u{fffd}\n\u{20ac}", "")]
        );
    }

    #[test]
    fn an_event_without_end_is_refused_and_events_in_any_number_are_not() {
        let mut decoder = Decoder { max_event_bytes: 20, ..Decoder::default() };
        for _ in 0..10 {
            decoder.push(b"data: 12345\n\n").unwrap();
        }
        assert_eq!(decoder.push(b"data: 1\n").and(decoder.push(b"data: 2\n")), Ok(()));
        let too_large = Err(DecodeError { max_bytes: 20 });
        assert_eq!(decoder.push(b"data: 345678901234567"), too_large);
        let mut decoder = Decoder { max_event_bytes: 20, ..Decoder::default() };
        assert_eq!(decoder.push(&[b':'; 21]), too_large);
    }

    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop::sample::select(vec![
            "data",
            "event",
            "id",
            "retry",
            ":",
            " ",
            "\n",
            "\r",
            "\r\n",
            "\n\n",
            "\u{feff}",
            "\0",
            "7",
            "é",
            "data: x\n\n",
            "id: 9\r\n",
        ]);
        let text = prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat());
        prop_oneof![text.prop_map(String::into_bytes), any::<Vec<u8>>()]
    }

    proptest! {
        #[test]
        fn how_the_bytes_are_split_makes_no_difference(
            stream in stream(),
            sizes in prop::collection::vec(0_usize..6, 1..20),
        ) {
            let mut pieces = Vec::new();
            let mut rest = stream.as_slice();
            for size in sizes.iter().cycle().take(400) {
                let (piece, tail) = rest.split_at((*size).min(rest.len()));
                pieces.push(piece);
                rest = tail;
            }
            pieces.push(rest);
            prop_assert_eq!(decode(pieces), decode([stream.as_slice()]));
        }
    }
}
