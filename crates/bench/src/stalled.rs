//! Stalled streams: opened and never read. They show the hub's handling of slow readers, and the
//! effect on other streams. No other figure counts them.

use std::{io, time::Duration};

use futures_util::future::{join_all, try_join_all};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

use super::{
    POLL,
    reader::{Greeting, Said, StreamReader},
    run::Run,
    stream::{self, OPEN_TIMEOUT, StreamError},
};
use crate::BenchError;

/// Receive buffer of a stalled stream. The kernel doubles it.
const KERNEL_BUFFER_BYTES: u32 = 4096;

/// Receive buffer for reading the streams at the end of the run.
const LAST_KERNEL_BUFFER_BYTES: usize = 1024 * 1024;

/// Longest head accepted.
const PEEK_BYTES: usize = 2048;

/// After this long without a byte at the end of the run, a stream counts as not ended.
const MAX_SILENCE: Duration = Duration::from_secs(1);

/// Time limit for reading one stream at the end of the run.
const MAX_DRAINING: Duration = Duration::from_secs(20);

pub(super) struct Stalled(Vec<TcpStream>);

impl Stalled {
    /// Opens the stalled streams of the run.
    pub async fn open(run: &Run) -> Result<Self, BenchError> {
        let first = run.settings.stream_count;
        let numbers = first..first + run.settings.stalled_count;
        let opening = numbers.map(async |number| {
            let _permit = run.connecting.acquire().await;
            let opened = timeout(OPEN_TIMEOUT, open(run, number)).await;
            opened.unwrap_or(Err(StreamError::Silent))
        });
        let failed =
            |error| BenchError::Failed(format!("a --stalled stream failed to open: {error}"));
        Ok(Self(try_join_all(opening).await.map_err(failed)?))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Counts the streams ended by the server. It reads them first: the kernel reports an end
    /// only after the bytes sent before it.
    pub async fn count_ended(self) -> u64 {
        let drained = self.0.into_iter().map(|socket| timeout(MAX_DRAINING, has_ended(socket)));
        let drained = join_all(drained).await;
        drained.into_iter().filter(|ended| matches!(ended, Ok(true))).count() as u64
    }
}

/// Opens a stream. It peeks at the head, so not even the head is read.
async fn open(run: &Run, number: usize) -> Result<TcpStream, StreamError> {
    let mut socket = stream::connect(run, number, Some(KERNEL_BUFFER_BYTES)).await?;
    socket.write_all(stream::request(run, number, &[]).as_bytes()).await?;
    let (mut buffer, mut is_open) = ([0; PEEK_BYTES], false);
    loop {
        let length = socket.peek(&mut buffer).await?;
        let mut reader = StreamReader::new(Greeting::Head);
        reader.feed(&buffer[..length], &mut |said| is_open |= said == Said::Opened)?;
        if is_open {
            return Ok(socket);
        }
        if length == 0 {
            return Err(reader.end().into());
        }
        sleep(POLL).await;
    }
}

async fn has_ended(mut socket: TcpStream) -> bool {
    // The small buffer would only slow the reading down.
    let _: io::Result<()> =
        socket2::SockRef::from(&socket).set_recv_buffer_size(LAST_KERNEL_BUFFER_BYTES);
    let mut buffer = [0; 16 * 1024];
    loop {
        match timeout(MAX_SILENCE, socket.read(&mut buffer)).await {
            Ok(Ok(0) | Err(_)) => return true,
            Ok(Ok(_)) => {}
            Err(_) => return false,
        }
    }
}
