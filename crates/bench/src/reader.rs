//! Decodes the bytes of one stream: its opening, data lines, ids, and the hub's control events.
//! Stores no events, only an incomplete line.

use memchr::memchr;

use super::http::{BadResponse, ParsedResponse};

/// Longest incomplete line kept in memory: more than any hub's largest payload.
const MAX_LINE_BYTES: usize = 16 * 1024 * 1024;

/// Bytes kept of a refusal's body.
const MAX_REFUSAL_BYTES: usize = 300;

/// The sign of an open stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Greeting {
    /// The event `connected`, sent by fanfare.
    Connected,
    /// The response head: streams of other hubs, and stalled streams.
    Head,
}

/// One decoded item of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said<'a> {
    Opened,
    /// A `data:` line of a published event.
    Data(&'a [u8]),
    /// The value of an `id:` line.
    Id(&'a [u8]),
    /// The hub reports missed events.
    Gap,
    /// The hub ends the stream; the data holds its reason.
    Shutdown(&'a [u8]),
}

/// Why reading ended.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ReadError {
    #[error(transparent)]
    BadResponse(#[from] BadResponse),
    #[error("the server answered HTTP {status}{}{body}", if .body.is_empty() { "" } else { ": " })]
    Refused { status: u16, body: String },
    #[error("no hub at this address: the response is not an event stream")]
    NoEventStream,
    #[error("a line of the stream is too long")]
    EndlessLine,
    #[error("the server ended the stream")]
    Ended,
}

#[derive(Debug)]
pub(super) struct StreamReader {
    answer: ParsedResponse,
    lines: LineReader,
    greeting: Greeting,
    is_open: bool,
}

impl StreamReader {
    pub fn new(greeting: Greeting) -> Self {
        Self {
            answer: ParsedResponse::default(),
            lines: LineReader::default(),
            greeting,
            is_open: false,
        }
    }

    /// Decodes the next bytes. An error ends the stream.
    pub fn feed(&mut self, bytes: &[u8], on: &mut impl FnMut(Said<'_>)) -> Result<(), ReadError> {
        let lines = &mut self.lines;
        if !self.is_open {
            return self.feed_opening(bytes, on);
        }
        let is_complete = self.answer.feed(bytes, &mut |part| lines.feed(part, on))?;
        self.lines.check(is_complete)
    }

    /// Decodes until the stream is open. The last of these bytes may contain events too.
    fn feed_opening(
        &mut self,
        bytes: &[u8],
        on: &mut impl FnMut(Said<'_>),
    ) -> Result<(), ReadError> {
        let mut body = Vec::new();
        let is_complete = self.answer.feed(bytes, &mut |part| body.extend_from_slice(part))?;
        let Some(head) = self.answer.head() else {
            return Ok(());
        };
        match head.status {
            200 if head.is_event_stream => {}
            200 => return Err(ReadError::NoEventStream),
            status => return self.lines.refused(status, &body, is_complete),
        }
        if self.greeting == Greeting::Head {
            self.is_open = true;
            on(Said::Opened);
        }
        let mut is_open = false;
        self.lines.feed(&body, &mut |said| {
            is_open |= said == Said::Opened;
            on(said);
        });
        self.is_open |= is_open;
        self.lines.check(is_complete)
    }

    /// The meaning of a closed connection. A refusal with an incomplete body is reported here.
    pub fn end(&self) -> ReadError {
        match self.answer.head() {
            Some(head) if head.status != 200 => ReadError::Refused {
                status: head.status,
                body: String::from_utf8_lossy(&self.lines.line).into_owned(),
            },
            _ => ReadError::Ended,
        }
    }
}

/// The kind of event the current lines belong to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum BlockKind {
    #[default]
    Published,
    Connected,
    Gap,
    Shutdown,
}

#[derive(Debug, Default)]
struct LineReader {
    /// The incomplete line. Without one, no memory is allocated: thousands of readers exist.
    line: Vec<u8>,
    kind: BlockKind,
}

impl LineReader {
    fn feed(&mut self, mut bytes: &[u8], on: &mut impl FnMut(Said<'_>)) {
        while let Some(end) = memchr(b'\n', bytes) {
            if self.line.is_empty() {
                self.on_line(&bytes[..end], on);
            } else {
                let mut line = std::mem::take(&mut self.line);
                line.extend_from_slice(&bytes[..end]);
                self.on_line(&line, on);
            }
            bytes = &bytes[end + 1..];
        }
        self.line.extend_from_slice(bytes);
    }

    fn on_line(&mut self, line: &[u8], on: &mut impl FnMut(Said<'_>)) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            self.kind = BlockKind::Published;
        } else if let Some(data) = line.strip_prefix(b"data:") {
            match self.kind {
                BlockKind::Published => on(Said::Data(data)),
                BlockKind::Connected => on(Said::Opened),
                BlockKind::Gap => on(Said::Gap),
                BlockKind::Shutdown => on(Said::Shutdown(data.trim_ascii())),
            }
        } else if let Some(id) = line.strip_prefix(b"id:") {
            on(Said::Id(id.strip_prefix(b" ").unwrap_or(id)));
        } else if let Some(name) = line.strip_prefix(b"event:") {
            self.kind = match name.trim_ascii() {
                b"connected" => BlockKind::Connected,
                b"gap" => BlockKind::Gap,
                b"shutdown" => BlockKind::Shutdown,
                _ => BlockKind::Published,
            };
        }
    }

    fn check(&self, is_complete: bool) -> Result<(), ReadError> {
        if is_complete {
            return Err(ReadError::Ended);
        }
        if self.line.len() > MAX_LINE_BYTES {
            return Err(ReadError::EndlessLine);
        }
        Ok(())
    }

    /// Collects the body of a refusal. Returns it as the error once it is complete, or
    /// [`MAX_REFUSAL_BYTES`] long.
    fn refused(&mut self, status: u16, body: &[u8], is_complete: bool) -> Result<(), ReadError> {
        let room = MAX_REFUSAL_BYTES.saturating_sub(self.line.len());
        self.line.extend_from_slice(&body[..body.len().min(room)]);
        if !is_complete && self.line.len() < MAX_REFUSAL_BYTES {
            return Ok(());
        }
        let body = String::from_utf8_lossy(&self.line).trim().to_owned();
        Err(ReadError::Refused { status, body })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";

    /// Decodes the bytes, and checks that pieces of any size give the same items.
    fn said(greeting: Greeting, bytes: &str) -> (Vec<String>, Option<ReadError>) {
        let read = |piece_bytes: usize| {
            let mut reader = StreamReader::new(greeting);
            let mut all = Vec::new();
            let mut pieces = bytes.as_bytes().chunks(piece_bytes);
            let error = pieces.find_map(|piece| {
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                let mut on = |said: Said<'_>| {
                    all.push(match said {
                        Said::Opened => "opened".to_owned(),
                        Said::Data(line) => format!("data {}", text(line)),
                        Said::Id(id) => format!("id {}", text(id)),
                        Said::Gap => "gap".to_owned(),
                        Said::Shutdown(line) => format!("shutdown {}", text(line)),
                    });
                };
                reader.feed(piece, &mut on).err()
            });
            (all, error)
        };
        let whole = read(bytes.len());
        for piece_bytes in 1..40 {
            assert_eq!(read(piece_bytes), whole, "in pieces of {piece_bytes}");
        }
        whole
    }

    #[test]
    fn a_stream_is_open_when_it_says_so() {
        let stream = format!("{HEAD}retry: 3000\n\nevent: connected\nid: 1\ndata: {{}}\n\n");
        let all = ["id 1", "opened"].map(str::to_owned);
        assert_eq!(said(Greeting::Connected, &stream), (all.to_vec(), None));
        assert_eq!(said(Greeting::Connected, HEAD), (vec![], None));
        assert_eq!(said(Greeting::Head, HEAD), (vec!["opened".to_owned()], None));
    }

    #[test]
    fn published_events_are_told_from_the_hub_s_own() {
        let stream = format!(
            "{HEAD}event: like\ndata: a\nid:7:0 \n\n: heartbeat\nevent: gap\ndata: x\n\ndata: b\r\n\r\n\
             event: shutdown\ndata: {{}}\n\ndata: c"
        );
        let all =
            ["opened", "data  a", "id 7:0 ", "gap", "data  b", "shutdown {}"].map(str::to_owned);
        assert_eq!(said(Greeting::Head, &stream), (all.to_vec(), None));
    }

    #[test]
    fn a_refusal_says_what_the_server_said() {
        let refusal = "HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nfull";
        let (_, error) = said(Greeting::Connected, refusal);
        assert_eq!(error.unwrap().to_string(), "the server answered HTTP 503: full");
        let page = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n<ht>";
        assert_eq!(said(Greeting::Connected, page).1, Some(ReadError::NoEventStream));
    }

    #[test]
    fn a_body_that_ends_ends_the_stream() {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        let stream = format!("{head}9\r\ndata: a\n\n\r\n0\r\n\r\n");
        let all = vec!["opened".to_owned(), "data  a".to_owned()];
        assert_eq!(said(Greeting::Head, &stream), (all, Some(ReadError::Ended)));
    }
}
