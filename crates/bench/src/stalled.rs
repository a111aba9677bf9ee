//! StreamsReport that are opened and then not read: what a hub does with such, and whether others
//! feel it. They count in nothing else.

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

/// What the kernel takes for a stream that is not read; it doubles that.
const KERNEL_BUFFER_BYTES: u32 = 4096;

/// The same when they are read at last.
const LAST_KERNEL_BUFFER_BYTES: usize = 1024 * 1024;

/// Longest head that is looked at.
const PEEK_BYTES: usize = 2048;

/// After this long without a byte, the server has not ended a stream that is read again.
const MAX_SILENCE: Duration = Duration::from_secs(1);

/// How long one may go on sending.
const MAX_DRAINING: Duration = Duration::from_secs(20);

pub(super) struct Stalled(Vec<TcpStream>);

impl Stalled {
    /// Opens as many as the run asks for.
    pub async fn open(run: &Run) -> Result<Self, BenchError> {
        let first = run.settings.stream_count;
        let numbers = first..first + run.settings.stalled_count;
        let opening = numbers.map(async |number| {
            let _permit = run.connecting.acquire().await;
            let opened = timeout(OPEN_TIMEOUT, open(run, number)).await;
            opened.unwrap_or(Err(StreamError::Silent))
        });
        let failed =
            |error| BenchError::Failed(format!("a --stalled stream was not opened: {error}"));
        Ok(Self(try_join_all(opening).await.map_err(failed)?))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many the server has ended. They are read now, for the kernel tells of an end only
    /// behind what was sent before it.
    pub async fn count_ended(self) -> u64 {
        let drained = self.0.into_iter().map(|socket| timeout(MAX_DRAINING, has_ended(socket)));
        let drained = join_all(drained).await;
        drained.into_iter().filter(|ended| matches!(ended, Ok(true))).count() as u64
    }
}

/// Looks for the head, and leaves it where it is.
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
    // With the small one it would only take longer.
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
