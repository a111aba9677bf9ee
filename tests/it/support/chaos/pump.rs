//! One direction of a connection. Bytes pass through a bounded queue, and leave it when the mode
//! allows.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::tcp::{ReadHalf, WriteHalf},
    sync::{
        mpsc::{self, Receiver, Sender},
        watch,
    },
    time::{Instant, timeout_at},
};

use super::Mode;

/// Most pieces in the queue. When it is full, the reader waits, and so does the sender's kernel.
const QUEUE: usize = 256;

/// Most bytes of a piece.
const PIECE_BYTES: usize = 16 * 1024;

/// Bytes, and the time of their read.
struct Piece {
    bytes: Bytes,
    read_at: Instant,
}

/// Moves bytes until the reader has ended and all are written, or until the writer's side is gone.
pub(super) async fn pump(
    reader: &mut ReadHalf<'_>,
    writer: &mut WriteHalf<'_>,
    mode: watch::Receiver<Mode>,
    saw: impl FnMut(&[u8]),
) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    // Errors are ignored: each side notices its own end.
    let _ = tokio::join!(read(reader, sender, saw), write(writer, receiver, mode));
}

async fn read(
    reader: &mut ReadHalf<'_>,
    queue: Sender<Piece>,
    mut saw: impl FnMut(&[u8]),
) -> io::Result<()> {
    loop {
        let mut buffer = BytesMut::with_capacity(PIECE_BYTES);
        if reader.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
        saw(&buffer);
        let piece = Piece { bytes: buffer.freeze(), read_at: Instant::now() };
        if queue.send(piece).await.is_err() {
            return Ok(());
        }
    }
}

async fn write(
    writer: &mut WriteHalf<'_>,
    mut queue: Receiver<Piece>,
    mut mode: watch::Receiver<Mode>,
) -> io::Result<()> {
    while let Some(piece) = queue.recv().await {
        until_due(piece.read_at, &mut mode).await;
        writer.write_all(&piece.bytes).await?;
    }
    // The end of the stream is delayed like its bytes.
    until_due(Instant::now(), &mut mode).await;
    writer.shutdown().await
}

/// Waits until the mode lets bytes read at `read_at` pass.
async fn until_due(read_at: Instant, mode: &mut watch::Receiver<Mode>) {
    loop {
        let now = *mode.borrow_and_update();
        let is_changed = match now {
            Mode::Pass => return,
            Mode::Delay(time) => match timeout_at(read_at + time, mode.changed()).await {
                Ok(changed) => changed.is_ok(),
                Err(_) => return,
            },
            // A cut connection sends nothing more.
            Mode::Stall | Mode::Cut => mode.changed().await.is_ok(),
        };
        if !is_changed {
            return;
        }
    }
}
