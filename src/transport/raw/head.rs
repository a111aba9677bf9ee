//! The decision about a request's head: raw stream or framework. Every unusual head goes to the
//! framework: it alone decides about valid HTTP, and two parsers must never disagree.

use actix_web::{
    dev::RequestHead,
    http::{
        Method, Uri, Version,
        header::{self, HeaderMap, HeaderName, HeaderValue},
    },
};
use httparse::{Request, Status};

/// Bound of a sniffed head. A longer head, for example with very large cookies, goes to the
/// framework.
pub(crate) const MAX_HEAD_BYTES: usize = 8 * 1024;

/// Bound of a sniffed head's lines: more than browsers and proxies send.
const MAX_HEADERS: usize = 64;

/// The kind of a client's first bytes.
#[derive(Debug)]
pub(crate) enum Sniffed {
    /// A plain `GET` without bytes after its head.
    Plain(Box<RequestHead>),
    /// Possibly the beginning of a plain `GET`: more bytes decide.
    Partial,
    /// Perhaps a plain publish.
    Publish,
    /// Anything else.
    Other,
}

/// Decides the kind of a client's first bytes. Only a path with `is_wanted` can be plain.
pub(crate) fn look(bytes: &[u8], is_wanted: impl Fn(&str) -> bool) -> Sniffed {
    const METHOD: &[u8] = b"GET /";
    // Decide most connections by their first bytes, without the parser: any other method, TLS and
    // HTTP/2 differ here.
    let common = bytes.len().min(METHOD.len());
    if bytes.len() >= MAX_HEAD_BYTES || bytes[..common] != METHOD[..common] {
        return Sniffed::Other;
    }
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(Status::Complete(length)) if length == bytes.len() => {}
        Ok(Status::Partial) => return Sniffed::Partial,
        // Not HTTP, or bytes after the head: a body, or a second request. A raw stream would drop
        // them.
        Ok(Status::Complete(_)) | Err(_) => return Sniffed::Other,
    }
    plain_head(&request, is_wanted).map_or(Sniffed::Other, |head| Sniffed::Plain(Box::new(head)))
}

fn plain_head(request: &Request<'_, '_>, is_wanted: impl Fn(&str) -> bool) -> Option<RequestHead> {
    let target = request.path?;
    // HTTP/1.0 has no chunked coding, and a raw stream is always chunked.
    let is_plain = request.version == Some(1) && request.method == Some("GET");
    let path = target.split('?').next()?;
    if !is_plain || !is_wanted(path) {
        return None;
    }
    let uri = Uri::try_from(target).ok()?;
    let headers = plain_headers(request.headers)?;
    let mut head = RequestHead::default();
    (head.method, head.version, head.uri, head.headers) =
        (Method::GET, Version::HTTP_11, uri, headers);
    Some(head)
}

/// The headers; `None` if one of them needs the framework.
fn plain_headers(parsed: &[httparse::Header<'_>]) -> Option<HeaderMap> {
    let mut headers = HeaderMap::with_capacity(parsed.len());
    for parsed in parsed {
        let name = HeaderName::from_bytes(parsed.name.as_bytes()).ok()?;
        let value = HeaderValue::from_bytes(parsed.value).ok()?;
        match name {
            // Two hosts: the request is ambiguous, and RFC 9112 §3.2 demands a 400.
            header::HOST if headers.contains_key(header::HOST) => return None,
            // A body: the framework reads it, or refuses the request.
            header::CONTENT_LENGTH | header::TRANSFER_ENCODING => return None,
            header::EXPECT | header::UPGRADE => return None,
            // Two origins: a refusal must name both.
            header::ORIGIN if headers.contains_key(header::ORIGIN) => return None,
            header::CONNECTION if !is_plain_connection(&value) => return None,
            _ => headers.append(name, value),
        }
    }
    headers.contains_key(header::HOST).then_some(headers)
}

fn is_plain_connection(value: &HeaderValue) -> bool {
    let is_plain = |option: &str| {
        ["keep-alive", "close"].iter().any(|plain| option.trim().eq_ignore_ascii_case(plain))
    };
    value.to_str().is_ok_and(|options| options.split(',').all(is_plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_plain(text: &str) -> bool {
        matches!(look(text.as_bytes(), |path| path == "/s"), Sniffed::Plain(_))
    }

    #[test]
    fn what_browsers_and_tools_send_is_plain() {
        assert!(is_plain("GET /s HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert!(is_plain(
            "GET /s?topic=a%20b&x HTTP/1.1\r\nhost: a:80\r\nConnection: Close\r\n\r\n"
        ));
        assert!(is_plain(
            "GET /s?topic=a HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nAccept: \
             text/event-stream\r\nOrigin: http://b\r\nCookie: a=b\r\nCookie: c=d\r\nLast-Event-ID: \
             x\r\n\r\n"
        ));
        let Sniffed::Plain(head) =
            look(b"GET /s?a=1 HTTP/1.1\r\nHost: a\r\nX: 1\r\nX: 2\r\n\r\n", |_| true)
        else {
            panic!("it is plain");
        };
        assert_eq!((head.uri.path(), head.uri.query()), ("/s", Some("a=1")));
        assert_eq!(head.headers.get_all("x").count(), 2);
    }

    #[test]
    fn a_part_of_a_plain_head_may_become_one() {
        let whole = "GET /s HTTP/1.1\r\nHost: a\r\n\r\n";
        for length in 0..whole.len() {
            let look = look(&whole.as_bytes()[..length], |path| path == "/s");
            assert!(matches!(look, Sniffed::Partial), "{length}: {look:?}");
        }
    }

    #[test]
    fn all_else_is_the_framework_s() {
        for text in [
            "POST /s HTTP/1.1\r\nHost: a\r\n\r\n",
            "HEAD /s HTTP/1.1\r\nHost: a\r\n\r\n",
            "get /s HTTP/1.1\r\nHost: a\r\n\r\n",
            "\r\nGET /s HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET  /s HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /s HTTP/1.0\r\nHost: a\r\n\r\n",
            "GET /s\r\n\r\n",
            "GET /other HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /%73 HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET //s HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /s/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://a/s HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /s HTTP/1.1\r\n\r\n",
            "GET /s HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            "GET /s HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
            "GET /s HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET /s HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n",
            "GET /s HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
            "GET /s HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\n\r\n",
            "GET /s HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, x\r\n\r\n",
            "GET /s HTTP/1.1\r\nHost: a\r\nOrigin: http://b\r\nOrigin: http://b\r\n\r\n",
            "GET /s HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n",
            "GET /s HTTP/1.1\r\nHost: a\r\nX : 1\r\n\r\n",
            "GET /s HTTP/1.1\r\nHost: a\r\nX: \u{7f}\r\n\r\n",
            "GET /s HTTP/1.1\r\nHost: a\r\n\r\nGET /s HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /s HTTP/1.1\r\nHost: a\r\n\r\n\r\n",
            "\u{16}\u{3}\u{1}",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ] {
            assert!(!is_plain(text), "{text:?}");
        }
        let long = format!("GET /s HTTP/1.1\r\nHost: a\r\nCookie: {}\r\n\r\n", "x".repeat(8192));
        assert!(matches!(look(&long.as_bytes()[..MAX_HEAD_BYTES], |_| true), Sniffed::Other));
        let many = format!("GET /s HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: 1\r\n".repeat(MAX_HEADERS));
        assert!(!is_plain(&many));
    }
}
