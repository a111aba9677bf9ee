//! The socket of a connection by HTTP/2 over TLS: it names the number of concurrent streams to the client.
//!
//! The framework names none. Browsers then keep to 100: a page with 100 streams of the hub could make no
//! further request.

use std::{
    io::{self, IoSlice},
    mem::take,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Concurrent streams of one connection. Chromium takes 256 of them. The limits of the hub count for
/// each stream.
const MAX_CONCURRENT_STREAMS: u32 = 1000;

/// The setting's identifier (RFC 9113 §6.5.2).
const SETTING: u16 = 3;

/// Length, type, flags and stream of a frame (RFC 9113 §4.1).
const HEADER_BYTES: usize = 9;

/// Type, flags and stream of a frame with settings.
const SETTINGS: &[u8] = &[4, 0, 0, 0, 0, 0];

/// A socket below the framework's HTTP/2.
pub(super) struct Http2Socket<T> {
    socket: T,
    first: FirstFrame,
}

/// The first frame of the server: its settings.
enum FirstFrame {
    Awaited,
    /// The unwritten rest of the completed frame, and the length of the framework's own.
    Unwritten(Vec<u8>, usize),
    /// Written, or no settings.
    Done,
}

impl<T> Http2Socket<T> {
    pub fn new(socket: T, is_http2: bool) -> Self {
        Self { socket, first: if is_http2 { FirstFrame::Awaited } else { FirstFrame::Done } }
    }
}

/// The settings at the beginning of the bytes with the number of streams, and their original length.
fn completed(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (header, rest) = bytes.split_at_checked(HEADER_BYTES)?;
    let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
    let payload = rest.get(..length as usize).filter(|_| &header[3..] == SETTINGS)?;
    let [_, longer @ ..] = (length + 6).to_be_bytes();
    let (setting, value) = (SETTING.to_be_bytes(), MAX_CONCURRENT_STREAMS.to_be_bytes());
    let frame = [&longer[..], &header[3..], payload, &setting, &value].concat();
    Some((frame, HEADER_BYTES + payload.len()))
}

impl<T: AsyncWrite + Unpin> Http2Socket<T> {
    /// Writes the first frame. `None` after it.
    fn poll_first(
        &mut self,
        task: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<Option<usize>>> {
        if matches!(self.first, FirstFrame::Awaited) {
            let frame = completed(bytes);
            self.first =
                frame.map_or(FirstFrame::Done, |(all, own)| FirstFrame::Unwritten(all, own));
        }
        loop {
            let FirstFrame::Unwritten(rest, own) = &mut self.first else {
                return Poll::Ready(Ok(None));
            };
            let written = ready!(Pin::new(&mut self.socket).poll_write(task, rest))?;
            if written == 0 {
                return Poll::Ready(Ok(Some(0)));
            }
            *rest = take(rest).split_off(written);
            if rest.is_empty() {
                let own = *own;
                self.first = FirstFrame::Done;
                return Poll::Ready(Ok(Some(own)));
            }
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Http2Socket<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(task, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Http2Socket<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match ready!(self.poll_first(task, bytes))? {
            Some(written) => Poll::Ready(Ok(written)),
            None => Pin::new(&mut self.socket).poll_write(task, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let bytes = slices.iter().find(|slice| !slice.is_empty());
        match ready!(self.poll_first(task, bytes.map_or(&[], |bytes| bytes)))? {
            Some(written) => Poll::Ready(Ok(written)),
            None => Pin::new(&mut self.socket).poll_write_vectored(task, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(task)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(task)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    /// The bytes received by a client for these bytes, through a narrow pipe.
    async fn received(is_http2: bool, bytes: &[u8]) -> Vec<u8> {
        let (server, mut client) = duplex(5);
        let mut socket = Http2Socket::new(server, is_http2);
        let send = async {
            socket.write_all(bytes).await.unwrap();
            socket.shutdown().await.unwrap();
        };
        let mut all = Vec::new();
        join(send, client.read_to_end(&mut all)).await.1.unwrap();
        all
    }

    #[tokio::test]
    async fn the_first_settings_name_the_number_of_streams() {
        let own = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0];
        let told = [0, 0, 12, 4, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0, 3, 0, 0, 3, 232];
        let later = [0, 0, 0, 4, 0, 0, 0, 0, 0, 9, 9];
        let sent = [&own[..], &later].concat();
        assert_eq!(received(true, &sent).await, [&told[..], &later].concat());
        assert_eq!(received(false, &sent).await, sent);
    }

    #[tokio::test]
    async fn other_bytes_pass_unchanged() {
        for bytes in [&b"HTTP/1.1 200 OK"[..], &[0, 0, 0, 4, 1, 0, 0, 0, 0], &[0, 0, 9, 4], b""] {
            assert_eq!(received(true, bytes).await, bytes);
        }
    }
}
