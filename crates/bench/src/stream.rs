//! One stream of a run: opens it, reads it to its end, and counts its deliveries.

use std::{
    future::poll_fn,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::Pin,
    rc::Rc,
    sync::atomic::Ordering::Relaxed,
    task::{Poll, ready},
    time::Duration,
};

use hdrhistogram::Histogram;
use tokio::{
    io::{AsyncRead, AsyncWriteExt, ReadBuf},
    net::{TcpSocket, TcpStream},
    sync::OwnedSemaphorePermit,
    time::timeout,
};

use super::{
    ledger::TopicRecord,
    reader::{ReadError, Said, StreamReader},
    records::{ReaderThread, StreamRecord},
    run::Run,
};

/// From the first packet of the connection to the open stream.
pub(super) const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

/// Streams from one source address to a server on this machine. The kernel has about 28,000 ports
/// for them.
const STREAMS_PER_SOURCE: usize = 20_000;

/// Why a stream failed to open, or ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamError {
    #[error("the connection failed: {0}")]
    Socket(#[from] io::Error),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("no answer within {OPEN_TIMEOUT:?}")]
    Silent,
    #[error("the hub ended the stream: {0}")]
    Shutdown(String),
}

/// Opens a stream and reads it. Returns the permit once the stream is open. A stream reopened
/// after a cut has no permit.
pub(super) async fn follow(
    thread: Rc<ReaderThread>,
    slot: usize,
    permit: Option<OwnedSemaphorePermit>,
) {
    let counters = &thread.run.counters;
    let opening = async {
        let mut stream = BenchStream::connect(&thread, slot).await?;
        while !stream.is_open {
            stream.read().await?;
        }
        Ok(stream)
    };
    let opened = timeout(OPEN_TIMEOUT, opening).await.unwrap_or(Err(StreamError::Silent));
    let mut stream = match opened {
        Ok(stream) => stream,
        Err(error) => {
            counters.first_refusal.lock().get_or_insert_with(|| error.to_string());
            counters.refused.fetch_add(1, Relaxed);
            return;
        }
    };
    if permit.is_some() {
        counters.opened.fetch_add(1, Relaxed);
    } else {
        counters.last_return_micros.fetch_max(thread.run.micros(), Relaxed);
        counters.returned.fetch_add(1, Relaxed);
    }
    drop(permit);
    let error = loop {
        if let Err(error) = stream.read().await {
            break error;
        }
    };
    let error = stream.shutdown.take().map_or(error, StreamError::Shutdown);
    counters.first_end.lock().get_or_insert_with(|| error.to_string());
    counters.ended.fetch_add(1, Relaxed);
}

/// An open connection.
struct BenchStream<'a> {
    thread: &'a ReaderThread,
    socket: TcpStream,
    reader: StreamReader,
    first_topic: u32,
    /// Index of its record in the thread's totals.
    slot: usize,
    is_open: bool,
    /// The data of the hub's `shutdown` event.
    shutdown: Option<String>,
}

impl<'a> BenchStream<'a> {
    async fn connect(thread: &'a ReaderThread, slot: usize) -> Result<Self, StreamError> {
        let run = &thread.run;
        let (number, request) = {
            let record = &thread.totals.borrow().streams[slot];
            (record.number, request(run, record.number, &record.last_id))
        };
        let mut socket = connect(run, number, None).await?;
        socket.write_all(request.as_bytes()).await?;
        Ok(Self {
            thread,
            socket,
            reader: StreamReader::new(run.settings.greeting),
            first_topic: run.settings.topics.first(number),
            slot,
            is_open: false,
            shutdown: None,
        })
    }

    /// Reads once, and counts the items of this read.
    async fn read(&mut self) -> Result<(), StreamError> {
        let thread = self.thread;
        poll_fn(|cx| {
            // All streams of the thread share one buffer. No other task of the thread runs during
            // this poll, and the borrow ends with it.
            let mut buffer = thread.buffer.borrow_mut();
            let mut bytes = ReadBuf::new(&mut buffer);
            ready!(Pin::new(&mut self.socket).poll_read(cx, &mut bytes))?;
            Poll::Ready(self.take(bytes.filled()))
        })
        .await
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), StreamError> {
        if bytes.is_empty() {
            return Err(self.reader.end().into());
        }
        let run = &self.thread.run;
        let totals = &mut *self.thread.totals.borrow_mut();
        let StreamRecord { ledgers, last_id, .. } = &mut totals.streams[self.slot];
        let keeps_id = run.settings.reconnect.is_some();
        let mut batch = DeliveryBatch {
            run,
            first_topic: self.first_topic,
            ledgers,
            latencies: &mut totals.latencies,
            now_micros: run.micros(),
            same_stamp: (0, 0),
            delivered: 0,
            strays: 0,
        };
        let (is_open, shutdown) = (&mut self.is_open, &mut self.shutdown);
        let result = self.reader.feed(bytes, &mut |said| match said {
            Said::Opened => *is_open = true,
            Said::Data(line) => batch.on_data(line),
            Said::Id(id) if keeps_id => id.clone_into(last_id),
            Said::Id(_) => {}
            Said::Gap => totals.gaps += 1,
            Said::Shutdown(data) => *shutdown = Some(String::from_utf8_lossy(data).into_owned()),
        });
        batch.record_latencies();
        let DeliveryBatch { now_micros, delivered, strays, .. } = batch;
        totals.strays += strays;
        if delivered > 0 {
            run.counters.last_delivery_micros.fetch_max(now_micros, Relaxed);
            run.counters.delivered.fetch_add(delivered, Relaxed);
            if run.window.is_within(now_micros) {
                totals.delivered += delivered;
            }
        }
        Ok(result?)
    }
}

/// The events of one read. Millions of events per second pass through here.
struct DeliveryBatch<'a> {
    run: &'a Run,
    first_topic: u32,
    ledgers: &'a mut [TopicRecord],
    latencies: &'a mut Histogram<u64>,
    now_micros: u64,
    /// Send time of the last events, and their count. Events of one request have the same send
    /// time and arrive one after the other, so the histogram records them together.
    same_stamp: (u64, u64),
    delivered: u64,
    strays: u64,
}

impl DeliveryBatch<'_> {
    fn on_data(&mut self, line: &[u8]) {
        let Some(mark) = self.run.marker.find(line) else {
            return;
        };
        let position = self.run.settings.topics.position(self.first_topic, mark.topic);
        let Some(position) = position else {
            self.strays += 1;
            return;
        };
        if !self.ledgers[position].on_number(mark.number) {
            return;
        }
        self.delivered += 1;
        if mark.sent_micros != self.same_stamp.0 {
            self.record_latencies();
            self.same_stamp = (mark.sent_micros, 0);
        }
        self.same_stamp.1 += 1;
    }

    fn record_latencies(&mut self) {
        let (sent_micros, count) = self.same_stamp;
        if count > 0 && self.run.window.is_after_start(sent_micros) {
            let micros = self.now_micros.saturating_sub(sent_micros).max(1);
            self.latencies.saturating_record_n(micros, count);
        }
    }
}

/// Connects to the address of the streams. Stalled streams set the size of the kernel's buffer.
pub(super) async fn connect(
    run: &Run,
    number: usize,
    kernel_buffer_bytes: Option<u32>,
) -> io::Result<TcpStream> {
    let address = run.stream_address;
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if let Some(source) = source(address, number) {
        socket.bind(source)?;
    }
    if let Some(bytes) = kernel_buffer_bytes {
        // Before the connect, because the handshake offers the first window.
        socket.set_recv_buffer_size(bytes)?;
    }
    let socket = socket.connect(address).await?;
    if run.settings.reconnect.is_some() {
        // Closing sends RST. Otherwise TIME_WAIT would block the ports of all streams for a minute.
        socket.set_zero_linger()?;
    }
    Ok(socket)
}

/// A further source address, if one address has too few ports. On loopback, all of 127/8 belongs
/// to this machine.
fn source(address: SocketAddr, number: usize) -> Option<SocketAddr> {
    let more = u8::try_from(number / STREAMS_PER_SOURCE).ok().filter(|more| *more > 0)?;
    let is_loopback = matches!(address.ip(), IpAddr::V4(ip) if ip.is_loopback());
    is_loopback.then(|| SocketAddr::from((Ipv4Addr::new(127, 1, 0, more), 0)))
}

/// The request for the stream with this number. A non-empty `last_id` resumes it.
pub(super) fn request(run: &Run, number: usize, last_id: &[u8]) -> String {
    let settings = &run.settings;
    let topics = &settings.topics;
    let names: Vec<String> = topics.of_stream(number).map(|topic| topics.name(topic)).collect();
    let place = &settings.streams;
    let last_id = match last_id {
        [] => String::new(),
        id => format!("last-event-id: {}\r\n", String::from_utf8_lossy(id)),
    };
    format!(
        "GET {} HTTP/1.1\r\nhost: {}\r\naccept: text/event-stream\r\n{last_id}{}\r\n",
        place.path_of(&names),
        place.authority,
        settings.authorization
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_streams_on_this_machine_come_from_several_addresses() {
        let local = SocketAddr::from(([127, 0, 0, 1], 8080));
        assert_eq!(source(local, 19_999), None);
        assert_eq!(source(local, 20_000), Some(SocketAddr::from(([127, 1, 0, 1], 0))));
        assert_eq!(source(local, 999_999), Some(SocketAddr::from(([127, 1, 0, 49], 0))));
        assert_eq!(source(SocketAddr::from(([192, 0, 2, 1], 80)), 50_000), None);
    }
}
