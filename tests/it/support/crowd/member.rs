//! One stream of a crowd: it connects, reads, is cut, and reconnects.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpSocket, TcpStream},
    sync::watch,
    time::sleep,
};

use super::{
    Order, Plan,
    answer::{Answer, Piece},
    ledger::{End, Ledger},
};

/// The pause before the next try of a stream without a server.
const PAUSE: Duration = Duration::from_millis(10);

/// Bytes per read.
const READ_BYTES: usize = 16 * 1024;

pub(super) struct Member {
    addr: SocketAddr,
    index: usize,
    query: String,
    comes_back: bool,
    returns_always: bool,
    cuts: VecDeque<usize>,
    receive_buffer_bytes: Option<u32>,
    ledger: Arc<Mutex<Ledger>>,
}

impl Member {
    pub fn new(addr: SocketAddr, index: usize, plan: Plan, ledger: Arc<Mutex<Ledger>>) -> Self {
        let Plan { query, comes_back, returns_always, cuts, receive_buffer_bytes, texts: _ } = plan;
        let cuts = cuts.into();
        Self { addr, index, query, comes_back, returns_always, cuts, receive_buffer_bytes, ledger }
    }

    /// Runs until its stream ends for good.
    pub async fn run(mut self, mut orders: watch::Receiver<Order>) {
        loop {
            // The channel closes with the crowd; then this task ends too.
            let Ok(_) = orders.wait_for(|order| *order == Order::Read).await else { return };
            let end = match self.connect().await {
                Ok(socket) => self.listen(socket, &mut orders).await,
                Err(error) => End::NotOpened(error.to_string()),
            };
            let is_cut = end == End::Cut;
            let is_refused = matches!(end, End::Refused(..) | End::NotOpened(_));
            self.ledger.lock().ends.push(end);
            if is_refused && self.returns_always {
                sleep(PAUSE).await;
            } else if is_refused || !(is_cut || self.comes_back) {
                return;
            }
        }
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        if let Some(bytes) = self.receive_buffer_bytes {
            socket.set_recv_buffer_size(bytes)?;
        }
        let mut stream = socket.connect(self.addr).await?;
        stream.write_all(self.request().as_bytes()).await?;
        Ok(stream)
    }

    fn request(&self) -> String {
        let mut ledger = self.ledger.lock();
        ledger.on_open();
        let last_id = ledger.last_id.as_ref();
        let last_id = last_id.map_or_else(String::new, |id| format!("Last-Event-ID: {id}\r\n"));
        format!(
            "GET /events/stream?{} HTTP/1.1\r\nHost: {}\r\n{last_id}\r\n",
            self.query, self.addr
        )
    }

    /// Reads until the stream ends or an order ends it.
    async fn listen(&mut self, socket: TcpStream, orders: &mut watch::Receiver<Order>) -> End {
        let mut left = self.cuts.pop_front();
        let mut answer = Answer::default();
        loop {
            let ordered = tokio::select! {
                biased;
                // A dropped crowd means: leave.
                order = orders.wait_for(|order| *order != Order::Read) => {
                    Some(order.map_or(Order::Leave, |order| *order))
                }
                ready = socket.readable() => match ready {
                    Ok(()) => None,
                    Err(error) => return End::Torn(error.to_string()),
                },
            };
            match ordered {
                None | Some(Order::Read) => {
                    if let Some(end) = self.read(&socket, &mut answer, &mut left) {
                        return end;
                    }
                }
                Some(Order::Stall) => {
                    if orders.wait_for(|order| *order != Order::Stall).await.is_err() {
                        return End::Cut;
                    }
                }
                Some(Order::Leave) => return self.leave(&socket),
            }
        }
    }

    /// Closes with FIN or RST.
    fn leave(&self, socket: &TcpStream) -> End {
        if self.index % 2 == 1 {
            socket.set_zero_linger().expect("a TCP socket");
        }
        End::Cut
    }

    /// Reads the available bytes, at most up to the cut.
    fn read(
        &self,
        socket: &TcpStream,
        answer: &mut Answer,
        left: &mut Option<usize>,
    ) -> Option<End> {
        let mut buffer = [0_u8; READ_BYTES];
        loop {
            let wanted = left.unwrap_or(READ_BYTES).min(READ_BYTES);
            if wanted == 0 {
                return Some(self.leave(socket));
            }
            let count = match socket.try_read(&mut buffer[..wanted]) {
                Ok(0) => return Some(ended(answer)),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) => return Some(End::Torn(error.to_string())),
            };
            let mut ledger = self.ledger.lock();
            answer.take(&buffer[..count], &mut |piece| match piece {
                Piece::Comment => ledger.heartbeats.push(Instant::now()),
                Piece::Event(event) => ledger.on_event(event),
            });
            if answer.is_whole() {
                // A proxy keeps the connection open for further requests, so the end of the body
                // counts.
                return Some(End::Whole);
            }
            if let Some(left) = left {
                *left -= count;
            }
        }
    }
}

fn ended(answer: &Answer) -> End {
    match answer.status() {
        200 if answer.is_whole() => End::Whole,
        200 | 0 => End::Torn("closed within the body".to_owned()),
        status => End::Refused(status, answer.refusal()),
    }
}
