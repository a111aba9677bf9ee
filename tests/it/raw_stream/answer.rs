//! A server's answer to any bytes, in a form for comparing two servers.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

const DEADLINE: Duration = Duration::from_secs(20);

/// An answer without its changing parts.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub status_line: String,
    /// Lines, sorted. Of the date only its presence.
    pub headers: Vec<String>,
    pub body: Body,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Body {
    /// A stream with a `connected` event.
    Stream,
    /// All bytes until the end.
    Text(String),
}

impl Answer {
    /// Sends the pieces, each in a packet of its own if the network keeps them separated.
    pub async fn to(addr: SocketAddr, pieces: &[&[u8]]) -> Self {
        let mut socket = TcpStream::connect(addr).await.expect("the server accepts");
        socket.set_nodelay(true).expect("a TCP socket");
        for piece in pieces {
            // A refusing server may close before it has read everything.
            let _ = socket.write_all(piece).await;
            tokio::task::yield_now().await;
        }
        let answered = timeout(DEADLINE, Self::read(&mut socket)).await;
        answered.unwrap_or_else(|_| panic!("no answer in time to {pieces:?}"))
    }

    async fn read(socket: &mut TcpStream) -> Self {
        let mut bytes = Vec::new();
        let is_stream = loop {
            let text = String::from_utf8_lossy(&bytes);
            if text.contains("event: connected\n") {
                break true;
            }
            if is_whole(&text) || socket.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                break false;
            }
        };
        let text = String::from_utf8(bytes).expect("UTF-8");
        let text = text.trim_start_matches("HTTP/1.1 100 Continue\r\n\r\n");
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let mut lines = head.split("\r\n").map(without_time);
        let status_line = lines.next().unwrap_or_default();
        let mut headers: Vec<String> = lines.collect();
        headers.sort_unstable();
        let body = if is_stream { Body::Stream } else { Body::Text(body.to_owned()) };
        Self { status_line, headers, body }
    }

    pub fn is_stream(&self) -> bool {
        self.body == Body::Stream
    }
}

/// Whether an answer with a known length is complete.
fn is_whole(text: &str) -> bool {
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    length.is_some_and(|length| length.parse() == Ok(body.len()))
}

fn without_time(line: &str) -> String {
    match line.strip_prefix("date: ") {
        Some(date) => {
            let is_date = date.len() == "Thu, 01 Jan 1970 00:00:00 GMT".len();
            assert!(is_date && date.ends_with(" GMT"), "{date}");
            "date".to_owned()
        }
        None => line.to_owned(),
    }
}
