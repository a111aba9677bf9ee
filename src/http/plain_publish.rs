//! A plain publish: one event for one topic, without a credential, a browser or a proxy. The server reads its request and
//! writes its answer without the framework. Anything else is for the framework: it alone refuses requests.

use std::{
    cell::RefCell,
    io::Write,
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, SystemTime},
};

use actix_web::{HttpResponse, ResponseError, body::MessageBody, http::header::HeaderMap};
use fanfare_core::{access::Grant, ids::PublisherId};

use super::{
    publish::{EventAnswer, IncomingPost, Poster},
    refusal::Refusal,
};
use crate::{
    hub::{Caller, Hub},
    request_budget::{RequestBytes, Room},
};

/// A checked plain publish.
pub(crate) struct PlainPublish {
    hub: Hub,
    post: IncomingPost,
    /// The bytes of its request, until its answer.
    _held: RequestBytes,
}

impl PlainPublish {
    /// Checks the body of a request without headers about its sender. `None` leaves the request to the framework.
    pub fn check(hub: &Hub, peer: Option<SocketAddr>, body: &[u8]) -> Option<Self> {
        let (parts, headers) = (hub.parts(), HeaderMap::new());
        // The framework adds the headers of `[cors]`.
        if parts.config.access.enabled || !parts.config.cors.origins.is_empty() {
            return None;
        }
        let held = parts.requests.request(parts.addresses.bytes(peer, &headers));
        held.add(body.len());
        if held.room() != Room::Free {
            return None;
        }
        let address = parts.addresses.client(peer, &headers);
        let poster = Poster {
            hub: hub.clone(),
            publisher: PublisherId::of_address(address.unwrap_or(Ipv4Addr::UNSPECIFIED.into())),
            caller: Caller::new(hub.clone(), Grant::everything()),
        };
        let post = IncomingPost::parse(&poster, body).ok().filter(IncomingPost::is_single)?;
        // Over the rate of its address, the framework refuses the request.
        parts.addresses.request(peer, &headers).ok()?;
        Some(Self { hub: poster.hub, post, _held: held })
    }

    /// Publishes the event. Returns the whole response.
    pub async fn answer(self) -> Vec<u8> {
        match self.hub.publish_checked(self.post.into_checked()).await {
            Ok(published) => accepted(&EventAnswer::from(published)),
            Err(error) => refused(Refusal::from(error).error_response()),
        }
    }
}

const WRITES: &str = "writing to memory cannot fail";

/// The response of the framework's endpoint to an accepted event.
fn accepted(answer: &EventAnswer) -> Vec<u8> {
    let body = serde_json::to_vec(answer).expect("texts and numbers serialize");
    let mut response = Vec::with_capacity(128 + body.len());
    let head = "HTTP/1.1 200 OK\r\ncontent-length: ";
    write!(response, "{head}{}\r\ncontent-type: application/json\r\n", body.len()).expect(WRITES);
    finish(response, &body)
}

fn refused(response: HttpResponse) -> Vec<u8> {
    let (head, body) = response.into_parts();
    let body = body.try_into_bytes().unwrap_or_default();
    let mut response = Vec::new();
    let (status, length) = (head.status(), body.len());
    write!(response, "HTTP/1.1 {status}\r\ncontent-length: {length}\r\n").expect(WRITES);
    for (name, value) in head.headers() {
        response.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    finish(response, &body)
}

fn finish(mut response: Vec<u8>, body: &[u8]) -> Vec<u8> {
    response.extend_from_slice(b"date: ");
    write_date(&mut response);
    response.extend_from_slice(b"\r\n\r\n");
    response.extend_from_slice(body);
    response
}

/// Writes the time of day. Its text is made once a second.
fn write_date(to: &mut Vec<u8>) {
    thread_local! {
        static DATE: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
    }
    let now = SystemTime::now();
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    DATE.with_borrow_mut(|(at, text)| {
        if *at != seconds || text.is_empty() {
            (*at, *text) = (seconds, httpdate::fmt_http_date(now));
        }
        to.extend_from_slice(text.as_bytes());
    });
}
