//! A publisher with one lasting connection. It numbers its events and measures its answers.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Interval, MissedTickBehavior, interval},
};

use super::Numbered;
use crate::support::{
    http::request_head,
    message::{Framing, Head, Piece},
};

/// One connection, one request at a time.
pub struct Publisher {
    addr: SocketAddr,
    socket: TcpStream,
    buffer: BytesMut,
    /// The last number of each lane.
    last: Vec<u32>,
    /// The duration of each request, in microseconds.
    pub answer_micros: Vec<u32>,
}

impl Publisher {
    pub async fn connect(addr: SocketAddr) -> Self {
        Self::try_connect(addr).await.expect("the server accepts")
    }

    pub async fn try_connect(addr: SocketAddr) -> io::Result<Self> {
        let socket = TcpStream::connect(addr).await?;
        socket.set_nodelay(true)?;
        let (buffer, last, answer_micros) = (BytesMut::new(), Vec::new(), Vec::new());
        Ok(Self { addr, socket, buffer, last, answer_micros })
    }

    /// The number of a lane's last event.
    pub fn last(&self, lane: usize) -> u32 {
        self.last.get(lane).copied().unwrap_or(0)
    }

    /// The body of a lane's next event.
    pub fn next(&mut self, lane: usize, topic: &str, text: &str) -> Value {
        if self.last.len() <= lane {
            self.last.resize(lane + 1, 0);
        }
        self.last[lane] += 1;
        json!({ "topic": topic, "data": Numbered::write(lane, self.last[lane], text) })
    }

    /// Publishes a lane's next event.
    pub async fn publish(&mut self, lane: usize, topic: &str, text: &str) {
        let event = self.next(lane, topic, text);
        self.send(&event).await;
    }

    /// Publishes one event or an array of events. A refusal panics.
    pub async fn send(&mut self, body: &Value) -> Value {
        let (status, answer) = self.try_send(body).await.expect("an answer");
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// Publishes and returns any answer; an error if the connection ends before it.
    pub async fn try_send(&mut self, body: &Value) -> io::Result<(u16, Value)> {
        let body = body.to_string();
        let headers = [("Content-Type", "application/json")];
        let mut request =
            request_head(self.addr, "POST", "/events/publish", &headers, body.as_bytes());
        request.extend_from_slice(body.as_bytes());
        let start = Instant::now();
        self.socket.write_all(&request).await?;
        let head = Head::read(&mut self.socket, &mut self.buffer).await?;
        let body = self.body(&head).await?;
        self.answer_micros.push(u32::try_from(start.elapsed().as_micros()).unwrap_or(u32::MAX));
        Ok((head.status, serde_json::from_slice(&body)?))
    }

    async fn body(&mut self, head: &Head) -> io::Result<Vec<u8>> {
        let mut framing = Framing::of(head);
        let mut body = Vec::new();
        loop {
            match framing.next(&mut self.buffer) {
                Some(Piece::Data(bytes)) => body.extend_from_slice(&bytes),
                Some(Piece::ChunkEnd) => {}
                Some(Piece::End) => return Ok(body),
                None => {
                    if self.socket.read_buf(&mut self.buffer).await? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
            }
        }
    }
}

/// Ticks at this rate. Missed ticks are made up for, so the rate stays constant.
pub fn pace(times_per_second: u32) -> Interval {
    let mut interval = interval(Duration::from_secs(1) / times_per_second);
    interval.set_missed_tick_behavior(MissedTickBehavior::Burst);
    interval
}
