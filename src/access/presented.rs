//! The credential presented by a request: a bearer token or the cookie. Nothing here is logged.

use std::borrow::Cow;

use actix_web::{
    dev::RequestHead,
    http::header::{AUTHORIZATION, COOKIE},
};

/// The credential of a request.
#[derive(PartialEq, Eq)]
pub(crate) enum Presented<'a> {
    None,
    Bearer(&'a str),
    Cookie(Cow<'a, str>),
    /// Several headers, or one of an unknown kind.
    Invalid,
    SeveralCookies,
}

impl<'a> Presented<'a> {
    /// A header wins over the cookie.
    pub fn of(head: &'a RequestHead, cookie: &str) -> Self {
        let mut headers = head.headers.get_all(AUTHORIZATION);
        match (headers.next(), headers.next()) {
            (Some(header), None) => {
                let text = header.to_str().unwrap_or_default();
                bearer(text).map_or(Self::Invalid, Self::Bearer)
            }
            (Some(_), Some(_)) => Self::Invalid,
            (None, _) => Self::of_cookie(head, cookie),
        }
    }

    fn of_cookie(head: &'a RequestHead, name: &str) -> Self {
        let headers = head.headers.get_all(COOKIE).filter_map(|header| header.to_str().ok());
        let pairs = headers.flat_map(|header| header.split(';'));
        let values = pairs.filter_map(|pair| {
            let (key, value) = pair.trim().split_once('=')?;
            (key == name).then(|| value.trim_matches('"'))
        });
        let values: Vec<&str> = values.collect();
        match values[..] {
            [] => Self::None,
            [value] => Self::Cookie(value.into()),
            _ => Self::SeveralCookies,
        }
    }

    pub fn is_none(&self) -> bool {
        *self == Self::None
    }

    /// Whether the cookie is there, and no header.
    pub fn is_by_cookie(&self) -> bool {
        matches!(self, Self::Cookie(_) | Self::SeveralCookies)
    }

    /// The presented token.
    pub fn token(&self) -> Option<&str> {
        match self {
            Self::Bearer(token) => Some(token),
            Self::Cookie(token) => Some(token),
            Self::None | Self::Invalid | Self::SeveralCookies => None,
        }
    }
}

/// The token of `Bearer <token>`; the scheme in any case (RFC 9110 §11.1).
fn bearer(text: &str) -> Option<&str> {
    let (scheme, token) = text.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use actix_web::{http::header::HeaderName, test::TestRequest};

    use super::*;

    fn token(headers: &[(HeaderName, &'static str)]) -> Option<String> {
        let mut request = TestRequest::default();
        for (name, value) in headers {
            request = request.append_header((name.clone(), *value));
        }
        let request = request.to_http_request();
        let presented = Presented::of(request.head(), "__Host-fanfare");
        if matches!(presented, Presented::Invalid | Presented::SeveralCookies) {
            return Some("invalid".to_owned());
        }
        presented.token().map(str::to_owned)
    }

    #[test]
    fn a_token_is_in_the_header_or_in_the_cookie() {
        for (headers, expected) in [
            (&[][..], None),
            (&[(AUTHORIZATION, "Bearer abc")], Some("abc")),
            (&[(AUTHORIZATION, "bearer  abc ")], Some("abc")),
            (&[(AUTHORIZATION, "Bearer")], Some("invalid")),
            (&[(AUTHORIZATION, "Basic abc")], Some("invalid")),
            (&[(AUTHORIZATION, "Bearer a"), (AUTHORIZATION, "Bearer a")], Some("invalid")),
            (&[(COOKIE, "a=b; __Host-fanfare=abc")], Some("abc")),
            (&[(COOKIE, "fanfare=abc")], None),
            (&[(COOKIE, "__Host-fanfare=a"), (COOKIE, "__Host-fanfare=b")], Some("invalid")),
            (&[(COOKIE, "__Host-fanfare=a"), (AUTHORIZATION, "Bearer b")], Some("b")),
        ] {
            assert_eq!(token(headers).as_deref(), expected, "{headers:?}");
        }
    }
}
