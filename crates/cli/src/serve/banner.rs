//! The text printed by `fanfare serve` after everything has started.

use std::{
    fmt::Write as _,
    io::Write,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use fanfare::Config;

/// Everything the banner shows.
pub(super) struct Banner<'a> {
    pub config: &'a Config,
    pub address: SocketAddr,
    /// The operators' listener.
    pub admin: Option<SocketAddr>,
    pub open_files: u64,
    pub has_demo_data: bool,
    /// Whether Redis answered in time; without Redis, it does not matter.
    pub is_linked: bool,
}

impl Banner<'_> {
    /// A closed standard output must not stop the hub.
    pub fn print(&self) {
        let _ = std::io::stdout().write_all(self.text().as_bytes());
    }

    fn text(&self) -> String {
        let Self { config, address, open_files, .. } = self;
        let scheme = if config.tls.certificate.is_empty() { "http" } else { "https" };
        let base = format!("{scheme}://{}", reachable(*address));
        let operators = match self.admin {
            Some(admin) => format!("http://{}", reachable(admin)),
            None => base.clone(),
        };
        let topic = if self.has_demo_data { "demo:ticker:*" } else { "news" };
        let max_connections = config.hub.max_connections;
        let drain = humantime::format_duration(config.server.drain);
        let event = r#"{"topic":"news","data":"hello"}"#;
        let rows = [
            ("page", format!("{base}/")),
            ("follow", format!("curl -N '{base}/events/stream?topic={topic}'")),
            ("publish", format!("curl --json '{event}' {base}/events/publish")),
            ("stats", format!("{operators}/stats")),
            ("metrics", format!("{operators}/metrics")),
            ("mode", self.mode()),
            ("limits", format!("{open_files} open files, {max_connections} streams")),
            ("stop", format!("Ctrl-C or SIGTERM; streams drain for up to {drain}")),
        ];
        let version = env!("CARGO_PKG_VERSION");
        let mut text = format!("fanfare {version} listens on {scheme}://{address}\n");
        for (name, value) in rows {
            let _ = writeln!(text, "  {name:<8} {value}");
        }
        text
    }

    fn mode(&self) -> String {
        if self.config.log.is_on() {
            return format!("log: {}", self.config.log.directory);
        }
        let url = &self.config.redis.url;
        if url.is_empty() {
            return "memory: history ends with this process".to_owned();
        }
        // The part before `@` may hold a password.
        let (scheme, rest) = url.split_once("://").unwrap_or(("redis", url));
        let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
        let host = host.split(['?', '#']).next().unwrap_or(host);
        match self.is_linked {
            true => format!("Redis: {scheme}://{host}"),
            false => format!(
                "Redis: {scheme}://{host} is UNAVAILABLE; publishes get 503 until it answers"
            ),
        }
    }
}

/// The address for a client on this machine.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        ip if ip.is_unspecified() => (IpAddr::from(Ipv4Addr::LOCALHOST), address.port()).into(),
        _ => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(url: &str, is_linked: bool) -> String {
        let mut config = Config::default();
        config.redis.url = url.to_owned();
        let address = SocketAddr::from(([0, 0, 0, 0], 80));
        Banner {
            config: &config,
            address,
            admin: None,
            open_files: 9,
            has_demo_data: false,
            is_linked,
        }
        .text()
    }

    #[test]
    fn a_password_is_never_printed() {
        let text = text("redis+sentinel://me:hunter2@one:1,two:2/0?x=hunter2", true);
        assert!(!text.contains("hunter2"), "{text}");
        assert!(text.contains("Redis: redis+sentinel://one:1,two:2/0\n"), "{text}");
    }

    #[test]
    fn the_mode_and_an_unavailable_redis_are_named() {
        assert!(text("", true).contains("memory"));
        assert!(text("redis://host", false).contains("UNAVAILABLE"));
    }

    #[test]
    fn the_log_on_disk_is_named() {
        let mut config = Config::default();
        config.log.directory = "/var/lib/fanfare".into();
        let address = SocketAddr::from(([127, 0, 0, 1], 80));
        let (admin, open_files) = (None, 9);
        let banner = Banner {
            config: &config,
            address,
            admin,
            open_files,
            has_demo_data: false,
            is_linked: true,
        };
        assert!(banner.text().contains("mode     log: /var/lib/fanfare\n"), "{}", banner.text());
    }

    #[test]
    fn links_lead_to_an_address_of_this_machine() {
        let text = text("", true);
        assert!(text.starts_with("fanfare ") && text.contains("listens on http://0.0.0.0:80\n"));
        assert!(text.contains("  page     http://127.0.0.1:80/\n"), "{text}");
    }
}
