//! The future of a raw poll: a waiting poll on its bare socket, as small as a raw stream.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use fanfare_core::error::SubscribeError;
use tokio::{io::AsyncWrite, net::TcpStream, time::Sleep};

use super::{gone::Ignored, stream::CLOSE_CHECK};
use crate::{
    clock::{now, poll_sleep},
    transport::{NewStream, PollReader, PollSpec, Progress, limit_in_flight, limit_queued},
};

/// Renders the whole HTTP response of an answer or refusal, with further header lines.
type RenderFn = fn(Result<String, SubscribeError>, &str) -> Vec<u8>;

/// Waits for a poll's answer, and writes the response. The connection closes
/// behind it.
pub(crate) struct RawPoll {
    socket: TcpStream,
    progress: Progress,
    poll: PollReader,
    render: RenderFn,
    more_lines: Box<str>,
    ignored: Ignored,
    response: Option<Box<Response>>,
}

struct Response {
    bytes: Vec<u8>,
    written_bytes: usize,
    write_timeout: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl RawPoll {
    /// Answers a request. Its head is still unread in the socket: sniffing only peeked.
    pub fn new(
        socket: TcpStream,
        stream: NewStream,
        spec: PollSpec,
        more_lines: Box<str>,
        render: RenderFn,
    ) -> Self {
        let poll = PollReader::start(stream, spec);
        limit_queued(&socket);
        limit_in_flight(&socket);
        let (ignored, progress) = (Ignored::new(), Progress::default());
        Self { socket, progress, poll, render, more_lines, ignored, response: None }
    }

    fn poll_response(&mut self, task: &mut Context<'_>) -> Poll<()> {
        if self.response.is_none() {
            let answer = ready!(self.poll.poll_answer(task));
            let bytes = (self.render)(answer, &self.more_lines);
            let write_timeout = self.poll.write_timeout();
            let response = Response { bytes, written_bytes: 0, write_timeout, sleep: None };
            self.response = Some(Box::new(response));
            self.progress.on_write(now());
        }
        Poll::Ready(())
    }

    /// Ready once the client has acknowledged the whole response, or a write has failed, or the
    /// client makes no progress.
    fn poll_written(&mut self, task: &mut Context<'_>) -> Poll<()> {
        let Some(response) = &mut self.response else { return Poll::Ready(()) };
        while let left = &response.bytes[response.written_bytes..]
            && !left.is_empty()
        {
            match Pin::new(&mut self.socket).poll_write(task, left) {
                Poll::Ready(Ok(count)) if count > 0 => response.written_bytes += count,
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => {
                    ready!(poll_stalled(&self.socket, &mut self.progress, response, task));
                    return Poll::Ready(());
                }
            }
        }
        // A close over unread bytes would reset the connection and could lose the answer:
        // `poll_gone` has read them.
        let _ = ready!(Pin::new(&mut self.socket).poll_shutdown(task));
        while !Progress::is_complete(&self.socket) {
            ready!(poll_sleep(&mut response.sleep, now() + CLOSE_CHECK, task));
            if self.progress.has_stalled(&self.socket, response.write_timeout) {
                break;
            }
        }
        Poll::Ready(())
    }
}

/// For a full socket: ready once the client has stalled.
fn poll_stalled(
    socket: &TcpStream,
    progress: &mut Progress,
    response: &mut Response,
    task: &mut Context<'_>,
) -> Poll<()> {
    loop {
        let at = progress.deadline(response.write_timeout);
        ready!(poll_sleep(&mut response.sleep, at, task));
        if progress.has_stalled(socket, response.write_timeout) {
            return Poll::Ready(());
        }
    }
}

impl Future for RawPoll {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if this.ignored.poll_gone(&mut this.socket, task).is_ready() {
            return Poll::Ready(());
        }
        ready!(this.poll_response(task));
        this.poll_written(task)
    }
}
