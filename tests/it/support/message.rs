//! HTTP/1.1 messages (RFC 9112) from a socket: head and body framing.

use bytes::{Buf, Bytes, BytesMut};
use tokio::{io::AsyncReadExt, net::TcpStream};

/// A response's status line and header fields.
#[derive(Debug, Clone)]
pub struct Head {
    pub status: u16,
    /// Names in their original case and order.
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// A header's value.
    ///
    /// # Panics
    /// The header is present twice.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "`{name}` is there twice: {:?}", self.headers);
        value
    }

    /// Reads a head; bytes after it stay in the buffer.
    ///
    /// # Errors
    /// The connection ended before the head did.
    pub async fn read(socket: &mut TcpStream, buffer: &mut BytesMut) -> std::io::Result<Self> {
        loop {
            if let Some(end) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                let head = buffer.split_to(end + 4);
                return Ok(Self::parse(&head[..end]));
            }
            if socket.read_buf(buffer).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn parse(head: &[u8]) -> Self {
        let text = std::str::from_utf8(head).expect("a head is ASCII");
        let mut lines = text.split("\r\n");
        let status_line = lines.next().expect("split yields one");
        let status = status_line.strip_prefix("HTTP/1.1 ").expect("HTTP/1.1");
        let status = status[..3].parse().expect("a status of three digits");
        let headers = lines.map(|line| {
            let (name, value) = line.split_once(':').expect("a header has a colon");
            (name.to_owned(), value.trim_matches([' ', '\t']).to_owned())
        });
        Self { status, headers: headers.collect() }
    }
}

/// A part of a body.
#[derive(Debug)]
pub enum Piece {
    Data(Bytes),
    /// The end of a chunk of the chunked coding: in all likelihood also of one write.
    ChunkEnd,
    /// The body's end, by its framing.
    End,
}

/// A body's framing, with the progress of reading it.
#[derive(Debug)]
pub enum Framing {
    /// Remaining bytes.
    Length(usize),
    ChunkSize,
    /// Remaining bytes of the chunk.
    Chunk(usize),
    AfterChunk,
    LastChunk,
    UntilClose,
    Done,
}

impl Framing {
    /// The framing announced by a head.
    pub fn of(head: &Head) -> Self {
        let length = head.header("content-length");
        match (head.header("transfer-encoding"), length) {
            (Some("chunked"), None) => Self::ChunkSize,
            (None, Some(length)) => Self::Length(length.parse().expect("a length in digits")),
            (None, None) => Self::UntilClose,
            other => panic!("framing is not one: {other:?}"),
        }
    }

    /// The next piece; `None` if it needs more bytes.
    pub fn next(&mut self, buffer: &mut BytesMut) -> Option<Piece> {
        loop {
            match self {
                Self::Length(0) => {
                    *self = Self::Done;
                    return Some(Piece::End);
                }
                Self::Length(left) => return take(buffer, left),
                Self::UntilClose => return take(buffer, &mut usize::MAX.clone()),
                Self::ChunkSize => {
                    let line = take_line(buffer)?;
                    let size = usize::from_str_radix(&line, 16).expect("a chunk's size in hex");
                    *self = if size == 0 { Self::LastChunk } else { Self::Chunk(size) };
                }
                Self::Chunk(0) => *self = Self::AfterChunk,
                Self::Chunk(left) => return take(buffer, left),
                Self::AfterChunk => {
                    assert_eq!(take_line(buffer)?, "", "a chunk is longer than its size");
                    *self = Self::ChunkSize;
                    return Some(Piece::ChunkEnd);
                }
                Self::LastChunk => {
                    assert_eq!(take_line(buffer)?, "", "no trailers");
                    *self = Self::Done;
                    return Some(Piece::End);
                }
                Self::Done => {
                    assert!(buffer.is_empty(), "bytes after the body: {buffer:?}");
                    return None;
                }
            }
        }
    }
}

fn take(buffer: &mut BytesMut, left: &mut usize) -> Option<Piece> {
    let size = buffer.len().min(*left);
    *left -= size;
    (size > 0).then(|| Piece::Data(buffer.split_to(size).freeze()))
}

fn take_line(buffer: &mut BytesMut) -> Option<String> {
    let end = buffer.windows(2).position(|bytes| bytes == b"\r\n")?;
    let line = buffer.split_to(end);
    buffer.advance(2);
    Some(String::from_utf8(line.to_vec()).expect("framing is ASCII"))
}
