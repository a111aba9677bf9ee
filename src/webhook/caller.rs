//! A caller as the application sees it: the headers sent along, and the client's address.

use std::net::IpAddr;

use actix_web::{
    dev::RequestHead,
    http::header::{AUTHORIZATION, COOKIE, HeaderName},
};
use fanfare_core::access::AskedCaller;
use sha2::{Digest, Sha256};

/// Names a credential in the cache, without holding it.
pub(super) type CallerKey = [u8; 32];

/// The caller of a request: `Cookie`, `Authorization` and the configured headers, as received.
pub(super) fn caller_of(
    head: &RequestHead,
    extra: &[HeaderName],
    address: Option<IpAddr>,
) -> AskedCaller {
    let mut caller = AskedCaller::new(address);
    for name in [COOKIE, AUTHORIZATION].iter().chain(extra) {
        for value in head.headers.get_all(name) {
            caller.push(name.as_str(), value.as_bytes());
        }
    }
    caller
}

/// The key of the credential. Callers without a credential differ by their address.
pub(super) fn key_of(caller: &AskedCaller) -> CallerKey {
    let mut digest = Sha256::new();
    for (name, value) in caller.headers() {
        for part in [name.as_bytes(), &value] {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
    }
    if !caller.has_headers() {
        digest.update(caller.address().map(|address| address.to_string()).unwrap_or_default());
    }
    digest.finalize().into()
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn key(headers: &[(&str, &str)], address: [u8; 4]) -> CallerKey {
        let mut request = TestRequest::default();
        for (name, value) in headers {
            request = request.append_header((*name, *value));
        }
        let extra = [HeaderName::from_static("x-tenant")];
        key_of(&caller_of(request.to_http_request().head(), &extra, Some(address.into())))
    }

    #[test]
    fn the_credential_is_the_headers_else_the_address() {
        let (one, other) = ([10, 0, 0, 1], [10, 0, 0, 2]);
        assert_eq!(key(&[("cookie", "a=1")], one), key(&[("cookie", "a=1")], other));
        assert_eq!(key(&[("accept", "x")], one), key(&[], one));
        assert_ne!(key(&[], one), key(&[], other));
        let all = [
            key(&[("cookie", "a=1")], one),
            key(&[("cookie", "a=2")], one),
            key(&[("authorization", "a=1")], one),
            key(&[("cookie", "a=1"), ("x-tenant", "t")], one),
            key(&[("cookie", "a=1"), ("cookie", "t")], one),
            key(&[("cookie", "a=1t")], one),
        ];
        let different: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len());
    }
}
