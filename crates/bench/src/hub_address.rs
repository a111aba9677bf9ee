//! The options for the address of a hub and its token, shared by the commands.

use std::fmt;

use http::{HeaderValue, Uri};
use serde::Deserialize;

use crate::BenchError;

const DEFAULT_URL: &str = "http://127.0.0.1:8080";

/// Address and token of a hub.
#[derive(Debug, Clone, clap::Args)]
pub struct HubArgs {
    /// Address of the hub
    #[arg(long, env = "FANFARE_URL", hide_env_values = true, default_value = DEFAULT_URL)]
    pub url: String,
    /// Bearer token; the environment keeps it out of the process list
    #[arg(long, env = "FANFARE_TOKEN", hide_env_values = true)]
    pub token: Option<Token>,
}

/// A secret: debug output hides it.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// An empty environment variable gives an empty token: send no token then.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<String> for Token {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// The error object of every refusal: `{"code":…,"message":…}`.
#[derive(Debug, Deserialize)]
pub struct ErrorBody {
    pub code: String,
    #[serde(default)]
    pub message: String,
}

/// The address without the slashes at its end.
///
/// # Errors
/// Not an `http://` or `https://` URL, or one with a user name, a query or a fragment.
pub fn base_url(url: &str) -> Result<String, BenchError> {
    let usage = |problem: &str| Err(BenchError::Usage(format!("--url {url}: {problem}")));
    let Ok(parsed) = url.parse::<Uri>() else {
        return usage("invalid URL");
    };
    match parsed.scheme_str() {
        Some("http" | "https") => {}
        _ => return usage("the address must begin with http:// or https://"),
    }
    // `http` takes any text behind the colon: the port would silently be 80.
    let has_port = parsed.authority().is_some_and(|authority| {
        let port = authority.as_str().rsplit_once(']').map_or(authority.as_str(), |(_, port)| port);
        port.contains(':')
    });
    if has_port && parsed.port_u16().is_none_or(|port| port == 0) {
        return usage("the port must be a number from 1 to 65535");
    }
    if parsed.authority().is_none_or(|authority| authority.as_str().contains('@')) {
        return usage("the address must have no user name; use --token to authenticate");
    }
    if parsed.query().is_some() || url.contains('#') {
        return usage("the address must not contain ? or #");
    }
    Ok(url.trim_end_matches('/').to_owned())
}

/// The value of the `Authorization` header.
///
/// # Errors
/// The token contains characters other than printable ASCII.
pub fn authorization(token: &Token) -> Result<HeaderValue, BenchError> {
    let is_sendable = token.0.bytes().all(|byte| byte.is_ascii_graphic());
    let value = HeaderValue::from_str(&format!("Bearer {}", token.0)).ok();
    value.filter(|_| is_sendable).ok_or_else(|| {
        BenchError::Usage("the token contains characters other than printable ASCII".to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(url: &str) -> Result<String, String> {
        base_url(url).map_err(|error| error.to_string())
    }

    #[test]
    fn an_address_may_have_a_path_and_slashes_at_its_end() {
        assert_eq!(base("http://127.0.0.1:8080"), Ok("http://127.0.0.1:8080".to_owned()));
        assert_eq!(base("http://hub/"), Ok("http://hub".to_owned()));
        assert_eq!(base("https://hub:8443/"), Ok("https://hub:8443".to_owned()));
        assert_eq!(base("http://[::1]:1/live//"), Ok("http://[::1]:1/live".to_owned()));
    }

    #[test]
    fn other_addresses_are_bad_usage() {
        for url in [
            "",
            "hub",
            "hub:8080",
            "/x",
            "ftp://hub",
            "http://",
            "http://a b",
            "http://me:pw@hub",
            "http://hub?x",
            "http://hub/#x",
            "http://127.0.0.1:99999",
            "http://127.0.0.1:8080x",
            "http://127.0.0.1:-1",
            "http://127.0.0.1:0",
            "http://127.0.0.1:",
            "http://[::1]:99999",
        ] {
            assert!(matches!(base_url(url), Err(BenchError::Usage(_))), "{url:?}");
        }
    }

    #[test]
    fn a_token_is_sent_whole_or_refused_and_never_shown() {
        assert_eq!(authorization(&Token("a.b-c".into())).unwrap(), "Bearer a.b-c");
        for token in ["a b", "a\nb", "é"] {
            let error = authorization(&Token(token.into())).unwrap_err();
            assert!(!error.to_string().contains(token));
        }
        assert!(!format!("{:?}", Token("secret".into())).contains("secret"));
    }
}
