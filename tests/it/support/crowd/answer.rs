//! A parser of a stream's answer, byte by byte: head, chunks, events. It is small and fast, for
//! thousands of streams in one unoptimized process. It does not check the bytes; `sse.rs` does.

use std::io::BufRead;

/// An event as received.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event {
    /// Empty if the publisher named none.
    pub kind: String,
    pub id: String,
    pub data: String,
}

/// A parsed piece of the answer.
#[derive(Debug)]
pub enum Piece {
    Comment,
    Event(Event),
}

/// The parser's place in the answer.
#[derive(Debug, Default, PartialEq)]
enum At {
    #[default]
    Head,
    ChunkSize,
    Chunk(usize),
    ChunkEnd,
    Trailer,
    /// The body of a refusal, up to the end of the connection.
    Rest,
    End,
}

/// The parser of one answer.
#[derive(Debug, Default)]
pub struct Answer {
    status: u16,
    at: At,
    /// The incomplete line of HTTP.
    http_line: Vec<u8>,
    /// The incomplete line of the stream, and its event so far.
    line: Vec<u8>,
    event: Event,
    has_data: bool,
    refusal: Vec<u8>,
}

impl Answer {
    /// 0 before the status line.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Whether the body itself has ended, not only the connection.
    pub fn is_whole(&self) -> bool {
        self.at == At::End
    }

    /// The body of an answer other than 200.
    pub fn refusal(&self) -> String {
        String::from_utf8_lossy(&self.refusal).into_owned()
    }

    /// Parses bytes, and passes each completed piece to `tell`.
    pub fn take(&mut self, mut bytes: &[u8], tell: &mut impl FnMut(Piece)) {
        while !bytes.is_empty() {
            match self.at {
                At::Chunk(size) => {
                    let (data, rest) = bytes.split_at(size.min(bytes.len()));
                    bytes = rest;
                    self.at = if data.len() == size {
                        At::ChunkEnd
                    } else {
                        At::Chunk(size - data.len())
                    };
                    self.take_stream(data, tell);
                }
                At::Rest => {
                    self.refusal.extend_from_slice(bytes);
                    return;
                }
                At::End => panic!("bytes after the end: {:?}", String::from_utf8_lossy(bytes)),
                _ => {
                    if take_line(&mut bytes, &mut self.http_line) {
                        let line = std::mem::take(&mut self.http_line);
                        self.on_http_line(
                            std::str::from_utf8(&line).expect("a head is ASCII").trim_end(),
                        );
                    }
                }
            }
        }
    }

    fn on_http_line(&mut self, line: &str) {
        self.at = match self.at {
            At::Head if self.status == 0 => {
                let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
                self.status = status.unwrap_or_else(|| panic!("not a status line: {line:?}"));
                At::Head
            }
            At::Head if !line.is_empty() => At::Head,
            At::Head if self.status == 200 => At::ChunkSize,
            At::Head => At::Rest,
            At::ChunkSize => match usize::from_str_radix(line, 16) {
                Ok(0) => At::Trailer,
                Ok(size) => At::Chunk(size),
                Err(_) => panic!("not a chunk's size: {line:?}"),
            },
            At::ChunkEnd => {
                assert_eq!(line, "", "a chunk is longer than it said");
                At::ChunkSize
            }
            At::Trailer => At::End,
            At::Chunk(_) | At::Rest | At::End => unreachable!("no lines here"),
        };
    }

    /// Parses bytes of a stream without HTTP.
    pub fn take_stream(&mut self, mut bytes: &[u8], tell: &mut impl FnMut(Piece)) {
        while !bytes.is_empty() {
            if take_line(&mut bytes, &mut self.line) {
                let line = std::mem::take(&mut self.line);
                let line = std::str::from_utf8(&line[..line.len() - 1]).expect("streams are UTF-8");
                self.on_line(line, tell);
            }
        }
    }

    fn on_line(&mut self, line: &str, tell: &mut impl FnMut(Piece)) {
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            if std::mem::take(&mut self.has_data) {
                tell(Piece::Event(event));
            }
        } else if let Some(data) = line.strip_prefix("data: ") {
            if self.has_data {
                self.event.data.push('\n');
            }
            self.event.data.push_str(data);
            self.has_data = true;
        } else if let Some(id) = line.strip_prefix("id: ") {
            self.event.id = id.to_owned();
        } else if let Some(kind) = line.strip_prefix("event: ") {
            self.event.kind = kind.to_owned();
        } else if line.starts_with(':') {
            tell(Piece::Comment);
        } else {
            assert!(line.starts_with("retry: ") || line == "data:", "unknown line {line:?}");
            self.has_data |= line == "data:";
        }
    }
}

/// Moves bytes up to and with the next LF; false if there is none yet. The search uses std, since
/// std is optimized in every profile.
fn take_line(bytes: &mut &[u8], line: &mut Vec<u8>) -> bool {
    bytes.read_until(b'\n', line).expect("a slice can be read");
    line.last() == Some(&b'\n')
}
