//! A connection of plain publishes, without the framework. The first request of any other form goes to the framework,
//! unread, and so does everything behind it.

use std::{
    future::{Future, poll_fn},
    io,
    mem::MaybeUninit,
    net::SocketAddr,
    ops::Range,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use actix_http::KeepAlive;
use bytes::Bytes;
use httparse::{EMPTY_HEADER, Request, Status};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use super::{head_sniffer::SnifferShared, streams::Routes};
use crate::{hops::hop, http::plain_publish::PlainPublish, transport::limit_queued};

/// Bound of a plain request: head and body.
const MAX_REQUEST_BYTES: usize = 4 * 1024;

/// Bound of its header lines.
const MAX_HEADERS: usize = 16;

/// Header lines without a meaning for a publish.
const HARMLESS: [&str; 4] = ["user-agent", "accept", "accept-encoding", "accept-language"];

/// A connection for the framework, and the bytes already read from it.
pub(super) struct Received {
    pub socket: TcpStream,
    pub read: Bytes,
}

impl Received {
    /// A connection without read bytes.
    pub fn unread(socket: TcpStream) -> Self {
        Self { socket, read: Bytes::new() }
    }
}

/// Whether a connection begins like one of plain publishes to this path.
pub(super) fn may_be_plain(bytes: &[u8], path: &str) -> bool {
    let rest = bytes.strip_prefix(b"POST ").and_then(|rest| rest.strip_prefix(path.as_bytes()));
    rest.is_some_and(|rest| rest.starts_with(b" HTTP/1.1\r\n"))
}

/// Answers the plain publishes of a connection, until another request or its end. Returns the connection for another
/// request.
pub(super) async fn answer_all(desk: &SnifferShared, mut socket: TcpStream) -> Option<Received> {
    let KeepAlive::Timeout(idle_time) = desk.keep_alive else {
        return Some(Received::unread(socket));
    };
    let _ = socket.set_nodelay(true);
    limit_queued(&socket);
    let peer = socket.peer_addr().ok();
    let mut stopping = pin!(desk.stopping.notified());
    let mut idle = pin!(sleep(idle_time));
    loop {
        let read = poll_fn(|task| {
            if let Poll::Ready(read) = poll_read(&mut socket, task) {
                return Poll::Ready(read.ok());
            }
            let is_over =
                stopping.as_mut().poll(task).is_ready() || idle.as_mut().poll(task).is_ready();
            if is_over { Poll::Ready(None) } else { Poll::Pending }
        });
        let mut rest = read.await.filter(|read| !read.is_empty())?;
        while !rest.is_empty() {
            let Some((publish, length)) = plain(&desk.routes, peer, &rest) else {
                return Some(Received { socket, read: rest });
            };
            write_all(&mut socket, &publish.answer().await, desk).await?;
            rest = rest.split_off(length);
        }
        idle.as_mut().reset(Instant::now() + idle_time);
    }
}

/// Reads the available bytes. The buffer is on the stack: an idle connection holds none.
fn poll_read(socket: &mut TcpStream, task: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
    let mut buffer = [MaybeUninit::uninit(); MAX_REQUEST_BYTES];
    let mut buffer = ReadBuf::uninit(&mut buffer);
    ready!(Pin::new(socket).poll_read(task, &mut buffer))?;
    hop!("read");
    Poll::Ready(Ok(Bytes::copy_from_slice(buffer.filled())))
}

/// The plain publish at the start of these bytes, and its length; `None` for anything else.
fn plain(routes: &Routes, peer: Option<SocketAddr>, bytes: &[u8]) -> Option<(PlainPublish, usize)> {
    let path = routes.publish_path.as_deref()?;
    let PlainRequest { host, body } = plain_request(bytes, path)?;
    hop!("handler");
    if routes.hosts.as_ref().is_some_and(|hosts| !hosts.has_plain(host)) {
        return None;
    }
    let publish = PlainPublish::check(&routes.hub, peer, &bytes[body.clone()])?;
    Some((publish, body.end))
}

/// A whole request in its plainest form.
#[derive(Debug, PartialEq, Eq)]
struct PlainRequest<'a> {
    host: &'a str,
    body: Range<usize>,
}

fn plain_request<'a>(bytes: &'a [u8], path: &str) -> Option<PlainRequest<'a>> {
    if !may_be_plain(bytes, path) {
        return None;
    }
    let mut headers = [EMPTY_HEADER; MAX_HEADERS];
    let mut request = Request::new(&mut headers);
    let Ok(Status::Complete(start)) = request.parse(bytes) else { return None };
    let (mut host, mut length, mut media_type) = (None, None, None);
    for header in request.headers.iter() {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        // Two of them: the framework decides.
        let earlier = if is("host") {
            host.replace(header.value)
        } else if is("content-length") {
            length.replace(header.value)
        } else if is("content-type") {
            media_type.replace(header.value)
        } else if is("connection") {
            (!header.value.eq_ignore_ascii_case(b"keep-alive")).then_some(header.value)
        } else {
            (!HARMLESS.iter().any(|name| is(name))).then_some(header.value)
        };
        if earlier.is_some() {
            return None;
        }
    }
    let is_json = media_type == Some(b"application/json");
    let length = length.filter(|length| is_json && length.iter().all(u8::is_ascii_digit))?;
    let end = start.checked_add(std::str::from_utf8(length).ok()?.parse().ok()?)?;
    let host = std::str::from_utf8(host?).ok()?;
    (end <= bytes.len()).then_some(PlainRequest { host, body: start..end })
}

/// Writes a response; `None` if the client is gone or does not read.
async fn write_all(socket: &mut TcpStream, response: &[u8], desk: &SnifferShared) -> Option<()> {
    let mut written = socket.try_write(response).unwrap_or_default();
    if written == response.len() {
        return Some(());
    }
    let rest = poll_fn(|task| {
        while written < response.len() {
            match ready!(Pin::new(&mut *socket).poll_write(task, &response[written..])) {
                Ok(count) if count > 0 => written += count,
                _ => return Poll::Ready(None),
            }
        }
        Poll::Ready(Some(()))
    });
    timeout(desk.routes.write_timeout(), rest).await.ok()?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body_of(text: &str) -> Option<&str> {
        let plain = plain_request(text.as_bytes(), "/p")?;
        text.get(plain.body)
    }

    const HEAD: &str = "POST /p HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n";

    #[test]
    fn requests_of_programs_are_plain() {
        assert_eq!(body_of(&format!("{HEAD}Content-Length: 2\r\n\r\n{{}}")), Some("{}"));
        let agent = "User-Agent: x\r\nAccept: */*\r\nConnection: keep-alive\r\n";
        let next = "POST /p HTTP/1.1\r\n";
        let text = format!("{HEAD}{agent}content-length: 2\r\n\r\n{{}}{next}");
        assert_eq!(body_of(&text), Some("{}"), "the next request follows");
    }

    #[test]
    fn all_else_is_the_framework_s() {
        for text in [
            format!("{HEAD}Content-Length: 3\r\n\r\n{{}}"),
            format!("{HEAD}Content-Length: 2\r\n\r\n"),
            format!("{HEAD}Content-Length: 2\r\n"),
            format!("{HEAD}Content-Length: +2\r\n\r\n{{}}"),
            format!("{HEAD}Content-Length: 2\r\nContent-Length: 2\r\n\r\n{{}}"),
            format!("{HEAD}Content-Length: 99999999999999999999\r\n\r\n{{}}"),
            format!("{HEAD}Content-Length:\r\n\r\n{{}}"),
            format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n"),
            format!("{HEAD}\r\n{{}}"),
            format!("{HEAD}Content-Length: 2\r\nHost: b\r\n\r\n{{}}"),
            format!("{HEAD}Content-Length: 2\r\nContent-Type: text/plain\r\n\r\n{{}}"),
            format!("{HEAD}Content-Length: 2\r\nConnection: close\r\n\r\n{{}}"),
            format!("{HEAD}Content-Length: 2\r\nExpect: 100-continue\r\n\r\n{{}}"),
            format!("{HEAD}Content-Length: 2\r\nOrigin: http://a\r\n\r\n{{}}"),
            format!("{HEAD}Content-Length: 2\r\nSec-Fetch-Site: none\r\n\r\n{{}}"),
            format!("{HEAD}Content-Length: 2\r\nAuthorization: x\r\n\r\n{{}}"),
            format!("{HEAD}Content-Length: 2\r\nCookie: x\r\n\r\n{{}}"),
            format!("{HEAD}Content-Length: 2\r\nX-Forwarded-For: x\r\n\r\n{{}}"),
            format!("{HEAD}Content-Length: 2\r\nContent-Encoding: gzip\r\n\r\n{{}}"),
            format!("{HEAD}Content-Length : 2\r\n\r\n{{}}"),
            format!("{HEAD}Content-Length: 2\r\n 2\r\n\r\n{{}}"),
            format!("\r\n{HEAD}Content-Length: 2\r\n\r\n{{}}"),
            format!("{}Content-Length: 2\r\n\r\n{{}}", HEAD.replace("/p ", "/p?a ")),
            format!("{}Content-Length: 2\r\n\r\n{{}}", HEAD.replace("1.1", "1.0")),
            format!("{}Content-Length: 2\r\n\r\n{{}}", HEAD.replace("POST", "PUT")),
            format!("{}Content-Length: 2\r\n\r\n{{}}", HEAD.replace("Host: a\r\n", "")),
            format!("{}Content-Length: 2\r\n\r\n{{}}", HEAD.replace("json", "x-ndjson")),
        ] {
            assert_eq!(body_of(&text), None, "{text:?}");
        }
    }
}
