//! The part of HTTP/1.1 (RFC 9112) needed by the load tool: parses the head and the body of a
//! response from pieces of any size. A client library would allocate buffers for each of very many
//! streams, and its time would add to the hub's latency.

/// Longest head accepted.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// Most header fields of a response.
const MAX_HEADERS: usize = 64;

/// Longest chunk size line or trailer line.
const MAX_CHUNK_LINE_BYTES: usize = 1024;

/// Not a valid response.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid HTTP/1.1 response: {0}")]
pub(super) struct BadResponse(pub &'static str);

/// The relevant facts of a response head.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ResponseHead {
    pub status: u16,
    pub is_event_stream: bool,
    pub is_kept_alive: bool,
    framing: Framing,
}

impl ResponseHead {
    /// Whether the body has a length or chunks; otherwise it ends with the connection.
    pub fn has_end(&self) -> bool {
        self.framing != Framing::UntilClose
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Chunked(Chunks),
    UntilClose,
}

/// The parser of one response: first the head, then the body.
#[derive(Debug, Default)]
pub(super) struct ParsedResponse {
    /// Bytes of the incomplete head.
    start: Vec<u8>,
    head: Option<Box<ResponseHead>>,
}

impl ParsedResponse {
    /// The head. None before it is complete.
    pub fn head(&self) -> Option<&ResponseHead> {
        self.head.as_deref()
    }

    /// Parses the next bytes and passes their body bytes to `part`. True once the body is complete;
    /// later bytes are ignored.
    pub fn feed(
        &mut self,
        bytes: &[u8],
        part: &mut impl FnMut(&[u8]),
    ) -> Result<bool, BadResponse> {
        if let Some(head) = &mut self.head {
            return head.framing.feed(bytes, part);
        }
        self.start.extend_from_slice(bytes);
        loop {
            let Some((mut head, length)) = parse_head(&self.start)? else {
                let is_too_long = self.start.len() > MAX_HEAD_BYTES;
                return if is_too_long {
                    Err(BadResponse("head exceeds 64 KiB"))
                } else {
                    Ok(false)
                };
            };
            let rest = std::mem::take(&mut self.start).split_off(length);
            if (100..200).contains(&head.status) {
                // An interim response (1xx): the final one follows.
                self.start = rest;
                continue;
            }
            let is_complete = head.framing.feed(&rest, part)?;
            self.head = Some(Box::new(head));
            return Ok(is_complete);
        }
    }
}

/// A complete head and its length.
fn parse_head(bytes: &[u8]) -> Result<Option<(ResponseHead, usize)>, BadResponse> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(BadResponse("malformed head")),
    };
    let value = |name: &str| {
        let header = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        let text = header.and_then(|header| std::str::from_utf8(header.value).ok());
        text.map(|text| text.trim().to_ascii_lowercase())
    };
    let status = response.code.unwrap_or_default();
    let framing = if matches!(status, 100..200 | 204 | 304) {
        Framing::Length(0)
    } else if value("transfer-encoding").is_some_and(|value| value.ends_with("chunked")) {
        Framing::Chunked(Chunks::default())
    } else if let Some(length) = value("content-length") {
        Framing::Length(length.parse().map_err(|_| BadResponse("invalid content-length"))?)
    } else {
        Framing::UntilClose
    };
    let content_type = value("content-type").unwrap_or_default();
    let head = ResponseHead {
        status,
        is_event_stream: content_type.starts_with("text/event-stream"),
        is_kept_alive: framing != Framing::UntilClose
            && value("connection").is_none_or(|value| value != "close"),
        framing,
    };
    Ok(Some((head, length)))
}

impl Framing {
    fn feed(&mut self, bytes: &[u8], part: &mut impl FnMut(&[u8])) -> Result<bool, BadResponse> {
        match self {
            Self::Length(left) => {
                let taken = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                give(&bytes[..taken], part);
                *left -= taken as u64;
                Ok(*left == 0)
            }
            Self::Chunked(chunks) => chunks.feed(bytes, part),
            Self::UntilClose => {
                give(bytes, part);
                Ok(false)
            }
        }
    }
}

fn give(bytes: &[u8], part: &mut impl FnMut(&[u8])) {
    if !bytes.is_empty() {
        part(bytes);
    }
}

/// The parser state of a chunked body (RFC 9112 §7.1).
#[derive(Debug, Default, PartialEq, Eq)]
enum Chunks {
    #[default]
    Start,
    /// The size so far, whether its digits have ended, and the length of the line.
    Size {
        size: u64,
        has_ended: bool,
        length: usize,
    },
    Data(u64),
    /// The line end after a chunk's data.
    DataEnd,
    /// Length of the current trailer line, without CR.
    Trailer(usize),
    Complete,
}

impl Chunks {
    fn feed(
        &mut self,
        mut bytes: &[u8],
        part: &mut impl FnMut(&[u8]),
    ) -> Result<bool, BadResponse> {
        while let Some(first) = bytes.first() {
            let mut taken = 1;
            *self = match *self {
                Self::Complete => return Ok(true),
                Self::Data(left) => {
                    taken = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    part(&bytes[..taken]);
                    match left - taken as u64 {
                        0 => Self::DataEnd,
                        left => Self::Data(left),
                    }
                }
                Self::Start => size_digit(0, false, 0, *first)?,
                Self::Size { size, has_ended, length } => match first {
                    b'\n' if size > 0 => Self::Data(size),
                    b'\n' => Self::Trailer(0),
                    byte => size_digit(size, has_ended, length, *byte)?,
                },
                Self::DataEnd if *first == b'\n' => Self::Start,
                Self::DataEnd if *first == b'\r' => Self::DataEnd,
                Self::DataEnd => return Err(BadResponse("chunk longer than its size")),
                Self::Trailer(length) => match first {
                    b'\n' if length == 0 => Self::Complete,
                    b'\n' => Self::Trailer(0),
                    b'\r' => Self::Trailer(length),
                    _ if length > MAX_CHUNK_LINE_BYTES => {
                        return Err(BadResponse("trailer line too long"));
                    }
                    _ => Self::Trailer(length + 1),
                },
            };
            bytes = &bytes[taken..];
        }
        Ok(*self == Self::Complete)
    }
}

/// Handles a byte of a chunk size line: a digit of the size, or a byte of an extension.
fn size_digit(size: u64, has_ended: bool, length: usize, byte: u8) -> Result<Chunks, BadResponse> {
    let digit = char::from(byte).to_digit(16).filter(|_| !has_ended);
    let is_first = length == 0;
    if length > MAX_CHUNK_LINE_BYTES || size > u64::MAX >> 8 || (is_first && digit.is_none()) {
        return Err(BadResponse("invalid chunk size"));
    }
    let length = length + 1;
    Ok(match digit {
        Some(digit) => {
            Chunks::Size { size: size * 16 + u64::from(digit), has_ended: false, length }
        }
        None => Chunks::Size { size, has_ended: true, length },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Status, body, and completeness. Checks that pieces of any size give the same result.
    fn answer(bytes: &[u8]) -> Result<(u16, String, bool), BadResponse> {
        let read = |piece_bytes: usize| {
            let (mut answer, mut body, mut is_complete) =
                (ParsedResponse::default(), Vec::new(), false);
            for piece in bytes.chunks(piece_bytes) {
                is_complete = answer.feed(piece, &mut |part| body.extend_from_slice(part))?;
            }
            let status = answer.head().map_or(0, |head| head.status);
            Ok((status, String::from_utf8(body).expect("text"), is_complete))
        };
        let whole = read(bytes.len());
        for piece_bytes in 1..bytes.len() {
            assert_eq!(read(piece_bytes), whole, "in pieces of {piece_bytes}");
        }
        whole
    }

    fn is(status: u16, body: &str, is_complete: bool) -> Result<(u16, String, bool), BadResponse> {
        Ok((status, body.to_owned(), is_complete))
    }

    #[test]
    fn a_body_ends_with_its_length() {
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n";
        assert_eq!(answer(&[head, b"abc".as_slice()].concat()), is(200, "abc", true));
        assert_eq!(answer(&[head, b"ab".as_slice()].concat()), is(200, "ab", false));
    }

    #[test]
    fn a_chunked_body_is_parted_from_its_chunks() {
        let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        let whole = b"3\r\nabc\r\n0A;x=\"1\"\r\n0123456789\r\n0\r\na: b\r\n\r\n";
        assert_eq!(answer(&[head, whole.as_slice()].concat()), is(200, "abc0123456789", true));
        assert_eq!(answer(&[head, b"5\r\nabc".as_slice()].concat()), is(200, "abc", false));
        for bad in ["\r\n", "x\r\n", "1\r\nab", "fffffffffffffffffff\r\n"] {
            assert!(answer(&[head, bad.as_bytes()].concat()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_body_without_either_ends_with_the_connection() {
        assert_eq!(answer(b"HTTP/1.1 200 OK\r\n\r\nabc"), is(200, "abc", false));
    }

    #[test]
    fn answers_without_a_body_and_those_before_the_answer_are_known() {
        assert_eq!(answer(b"HTTP/1.1 204 No Content\r\n\r\n"), is(204, "", true));
        let continued =
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\na";
        assert_eq!(answer(continued), is(200, "a", true));
    }

    #[test]
    fn a_head_says_what_follows() {
        let text = b"HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Type: text/event-stream; charset=utf-8\r\n\r\n";
        let (head, length) = parse_head(text).unwrap().unwrap();
        assert_eq!(length, text.len());
        assert!(head.is_event_stream && !head.is_kept_alive);
        assert!(answer(b"SSH-2.0\r\n\r\n").is_err());
    }
}
