//! The origin of a request: whether a page of another site sent it, and its publisher.

use std::net::Ipv4Addr;

use actix_web::{
    HttpRequest,
    dev::RequestHead,
    http::{
        Uri,
        header::{HOST, ORIGIN},
    },
};
use fanfare_core::{error::ErrorCode, ids::PublisherId};

use super::refusal::Refusal;
use crate::{
    access::Action,
    hub::{Caller, Hub},
};

/// Refuses a change from a page of another site. Browsers send bodies of simple types to other
/// sites without asking first, so CORS does not stop such a page. Every browser sends `Origin` with
/// a change, also over plain HTTP; programs leave it out.
pub(crate) fn refuse_other_sites(hub: &Hub, request: &HttpRequest) -> Result<(), Refusal> {
    let head = request.head();
    let mut origins = head.headers.get_all(ORIGIN).peekable();
    let is_admitted = match origins.peek() {
        Some(_) => origins.all(|origin| {
            let origin = origin.to_str().unwrap_or_default();
            let configured = &hub.parts().config.cors;
            is_own(head, origin) || configured.is_any() || configured.names(origin)
        }),
        // Every browser sends it with a change, so a request by cookie without it is no page's.
        None if hub.parts().access.is_by_cookie(head) => false,
        None => head.headers.get("sec-fetch-site").is_none_or(|site| site != "cross-site"),
    };
    if is_admitted {
        return Ok(());
    }
    let message = "pages of other sites may not publish or change anything, and a change by cookie \
                   needs an `Origin`; `cors.origins` lists the exceptions";
    Err(Refusal::new(ErrorCode::CrossSite, message).of_access("cross_site"))
}

/// The caller of a request changing something, not from a page of another site.
pub(crate) async fn caller_of_change(hub: &Hub, request: &HttpRequest) -> Result<Caller, Refusal> {
    refuse_other_sites(hub, request)?;
    Ok(hub.caller(request.head(), Action::Publish(&[])).await?)
}

/// The caller of a request reading something without topics.
pub(crate) async fn caller_of_read(hub: &Hub, request: &HttpRequest) -> Result<Caller, Refusal> {
    Ok(hub.caller(request.head(), Action::Subscribe(&[])).await?)
}

/// The publisher of a request's events. Requests without an address, for example of tests, are one
/// publisher.
pub(crate) fn publisher_of(hub: &Hub, request: &HttpRequest) -> PublisherId {
    let address = hub.parts().addresses.client(request.peer_addr(), request.headers());
    PublisherId::of_address(address.unwrap_or(Ipv4Addr::UNSPECIFIED.into()))
}

/// Whether an origin has the host and port of the request. The scheme may differ: a proxy may add
/// TLS.
fn is_own(head: &RequestHead, origin: &str) -> bool {
    let Some((scheme, host)) = origin.split_once("://") else { return false };
    let default_port = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return false,
    };
    let own = match head.uri.host() {
        Some(_) => head.uri.authority().map(|authority| authority.as_str()),
        None => head.headers.get(HOST).and_then(|host| host.to_str().ok()),
    };
    let parts = |authority: &str| {
        let uri: Uri = format!("http://{authority}/").parse().ok()?;
        let port = uri.port_u16().unwrap_or(default_port);
        Some((uri.host()?.to_ascii_lowercase(), port))
    };
    own.and_then(parts).is_some_and(|own| Some(own) == parts(host))
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn is_own_of(host: &'static str, origin: &str) -> bool {
        is_own(TestRequest::default().insert_header((HOST, host)).to_http_request().head(), origin)
    }

    #[test]
    fn an_origin_is_the_host_s_own_with_the_same_name_and_port() {
        for (host, origin) in [
            ("hub.example", "http://hub.example"),
            ("hub.example", "https://hub.example"),
            ("hub.example:443", "https://hub.example"),
            ("HUB.example:8080", "http://hub.EXAMPLE:8080"),
            ("[::1]:8080", "http://[::1]:8080"),
        ] {
            assert!(is_own_of(host, origin), "{host} {origin}");
        }
        for (host, origin) in [
            ("hub.example", "http://other.example"),
            ("hub.example", "http://hub.example.evil"),
            ("hub.example", "http://hub.example:8080"),
            ("hub.example:8080", "http://hub.example"),
            ("hub.example:80", "https://hub.example"),
            ("hub.example", "null"),
            ("hub.example", "file://hub.example"),
            ("hub.example", "hub.example"),
            ("hub.example", ""),
        ] {
            assert!(!is_own_of(host, origin), "{host} {origin}");
        }
    }
}
