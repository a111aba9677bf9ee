//! The host names answered by a server. A page can point its own name at any address (DNS
//! rebinding), and its requests then look like the hub's own; but they carry the page's name.

use std::net::{IpAddr, SocketAddr};

use actix_web::{
    dev::RequestHead,
    http::{Uri, header::HOST},
};

/// The names of a server, without ports.
#[derive(Debug, Clone)]
pub struct Hosts {
    names: Vec<String>,
    listen: IpAddr,
}

impl Hosts {
    /// The configured names; `*` stands for any. Without names: the names and addresses of
    /// loopback, and the address of `listen`. An unspecified address (`0.0.0.0`, `::`) stands for
    /// every IP address: a page cannot have one as its name.
    pub fn new(names: &[String], listen: SocketAddr) -> Self {
        let names = names.iter().map(|name| name.to_ascii_lowercase()).collect();
        Self { names, listen: listen.ip() }
    }

    /// Whether the server answers the host of this request. A request without a host is not from a
    /// browser.
    pub fn answers(&self, head: &RequestHead) -> bool {
        // The name in an absolute target wins over the header (RFC 9112 §3.2.2).
        if let Some(host) = head.uri.host() {
            return self.has(host);
        }
        let Some(host) = head.headers.get(HOST) else { return true };
        let Ok(host) = host.to_str() else { return false };
        if let Some(name) = plain_name(host) {
            return self.has(name);
        }
        let uri = format!("http://{host}/").parse::<Uri>();
        host.is_empty() || uri.is_ok_and(|uri| uri.host().is_some_and(|name| self.has(name)))
    }

    /// Whether the server answers a host in its usual form. Any other form is false.
    pub(super) fn has_plain(&self, host: &str) -> bool {
        plain_name(host).is_some_and(|name| self.has(name))
    }

    fn has(&self, host: &str) -> bool {
        let name = host.trim_end_matches('.').to_ascii_lowercase();
        if !self.names.is_empty() {
            return self.names.iter().any(|known| known == "*" || *known == name);
        }
        let address = name.trim_matches(['[', ']']).parse::<IpAddr>();
        match address {
            Ok(address) => {
                address.is_loopback() || address == self.listen || self.listen.is_unspecified()
            }
            Err(_) => name == "localhost" || name.ends_with(".localhost"),
        }
    }
}

/// The name of a host in its usual form, `name` or `name:port`. Any other form is `None`: parsing it costs ten times as
/// much.
fn plain_name(host: &str) -> Option<&str> {
    let (name, port) = host.split_once(':').unwrap_or((host, "80"));
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    let is_port = port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
    (!name.is_empty() && name.bytes().all(is_plain) && is_port).then_some(name)
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn answers(hosts: &Hosts, host: &str) -> bool {
        let request = TestRequest::default().insert_header((HOST, host));
        hosts.answers(request.to_http_request().head())
    }

    fn hosts(names: &[&str], listen: &str) -> Hosts {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        Hosts::new(&names, listen.parse().unwrap())
    }

    #[test]
    fn without_names_loopback_and_the_listen_address_are_answered() {
        let own = hosts(&[], "192.0.2.7:8080");
        for host in ["localhost", "LOCALHOST:1", "app.localhost", "127.0.0.1:8080", "[::1]:80"] {
            assert!(answers(&own, host), "{host}");
        }
        assert!(answers(&own, "192.0.2.7:8080"));
        for host in ["evil.example", "192.0.2.8", "localhost.evil.example", "127.0.0.1.evil", "a b"]
        {
            assert!(!answers(&own, host), "{host}");
        }
        let any = hosts(&[], "0.0.0.0:8080");
        assert!(answers(&any, "192.0.2.8"));
        assert!(!answers(&any, "evil.example"));
    }

    #[test]
    fn a_plain_host_is_read_as_its_uri() {
        for host in [
            "a",
            "a.b-c:1",
            "127.0.0.1:65535",
            "a:65536",
            "a:",
            "a:b",
            ":1",
            "",
            "[::1]",
            "a_b",
            "a@b",
        ] {
            let uri = format!("http://{host}/").parse::<Uri>();
            let parsed = uri.as_ref().ok().and_then(Uri::host);
            assert!(plain_name(host).is_none_or(|name| Some(name) == parsed), "{host}");
        }
        assert_eq!(plain_name("a.b-c:1"), Some("a.b-c"));
        assert_eq!(plain_name("127.0.0.1"), Some("127.0.0.1"));
    }

    #[test]
    fn with_names_only_these_are_answered() {
        let own = hosts(&["Hub.example"], "127.0.0.1:8080");
        assert!(answers(&own, "hub.EXAMPLE."));
        assert!(answers(&own, "hub.example:8443"));
        assert!(!answers(&own, "localhost"));
        assert!(answers(&hosts(&["*"], "127.0.0.1:8080"), "evil.example"));
    }
}
