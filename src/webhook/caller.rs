//! A caller as the application sees it: the headers sent along, and the client's address.

use std::{fmt, net::IpAddr};

use actix_web::{
    dev::RequestHead,
    http::header::{AUTHORIZATION, COOKIE, HeaderName},
};
use sha2::{Digest, Sha256};

/// Names a credential in the cache, without holding it.
pub(super) type CallerKey = [u8; 32];

/// The part of a request the application decides by.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    /// `Cookie`, `Authorization` and the configured headers, as received.
    pub headers: Vec<(HeaderName, Box<[u8]>)>,
    pub address: Option<IpAddr>,
}

impl Caller {
    /// `extra` are the configured headers.
    pub fn of(head: &RequestHead, extra: &[HeaderName], address: Option<IpAddr>) -> Self {
        let names = [COOKIE, AUTHORIZATION];
        let headers = names.iter().chain(extra).flat_map(|name| {
            let values = head.headers.get_all(name);
            values.map(move |value| (name.clone(), value.as_bytes().into()))
        });
        Self { headers: headers.collect(), address }
    }

    /// The key of the credential. Callers without a credential differ by their address.
    pub fn key(&self) -> CallerKey {
        let mut digest = Sha256::new();
        for (name, value) in &self.headers {
            for part in [name.as_str().as_bytes(), value] {
                digest.update((part.len() as u64).to_be_bytes());
                digest.update(part);
            }
        }
        if self.headers.is_empty() {
            digest.update(self.address.map(|address| address.to_string()).unwrap_or_default());
        }
        digest.finalize().into()
    }

    /// The bytes held for it.
    #[allow(dead_code, reason = "streams keep it to ask again")]
    pub fn bytes(&self) -> usize {
        let headers = self.headers.iter();
        size_of::<Self>()
            + headers.map(|(name, value)| size_of_val(name) + value.len() + 16).sum::<usize>()
    }
}

/// Hides the headers.
impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller").field("address", &self.address).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn caller(headers: &[(&str, &str)], address: [u8; 4]) -> Caller {
        let mut request = TestRequest::default();
        for (name, value) in headers {
            request = request.append_header((*name, *value));
        }
        let extra = [HeaderName::from_static("x-tenant")];
        Caller::of(request.to_http_request().head(), &extra, Some(address.into()))
    }

    #[test]
    fn the_credential_is_the_headers_else_the_address() {
        let (one, other) = ([10, 0, 0, 1], [10, 0, 0, 2]);
        let key = |headers: &[_], address| caller(headers, address).key();
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

    #[test]
    fn debug_output_hides_the_headers() {
        let shown = format!("{:?}", caller(&[("cookie", "session=hunter2")], [10, 0, 0, 1]));
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
