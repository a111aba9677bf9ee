//! The flags of `fanfare serve`, as the last layer of the configuration.

use std::{net::Ipv4Addr, path::PathBuf};

use fanfare::{
    Config,
    config::{EffectiveValue, Sources, process_environment},
};

use crate::{CliError, logging::LogArgs};

#[derive(Debug, Default, clap::Args)]
pub(crate) struct ServeArgs {
    /// Configuration file (TOML); config/fanfare.toml lists every key
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Address and port, like 127.0.0.1:8080, localhost:8080, :8080 or 8080. Without an address,
    /// it is loopback, or every address with --open-to-network [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<String>,
    /// Worker threads; 0 is one per core
    #[arg(long, value_name = "N")]
    workers: Option<String>,
    /// Redis linking this instance to others
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
    /// Directory of the log on disk: events and followers outlive a restart
    #[arg(long = "log", value_name = "DIR")]
    log_directory: Option<PathBuf>,
    /// Allows an address reachable by other machines without access control
    #[arg(long)]
    open_to_network: bool,
    /// Publishes the demo's data, also with --config, --log or --redis. With several instances, give it to
    /// one
    #[arg(long)]
    demo: bool,
    /// Publishes no demo data
    #[arg(long, conflicts_with = "demo")]
    no_demo: bool,
    /// Checks the configuration, prints the files read, and exits
    #[arg(long)]
    pub check: bool,
    /// With --check: prints the effective configuration, and the source of each value
    #[arg(long, requires = "check")]
    pub print: bool,
    /// With --check: prints the policy of this topic
    #[arg(long, requires = "check", value_name = "TOPIC")]
    pub topic: Option<String>,
    #[command(flatten)]
    pub log: LogArgs,
}

/// The configuration of all layers.
pub(super) struct LoadedConfig {
    pub config: Config,
    pub values: Vec<EffectiveValue>,
}

impl ServeArgs {
    /// Whether the demo's data is published: by default only without any configuration.
    pub fn wants_demo_data(&self, config: &Config) -> bool {
        let is_in_memory = config.redis.url.is_empty() && !config.log.is_on();
        let is_alone = self.config.is_none() && is_in_memory;
        self.demo || (is_alone && !self.no_demo)
    }

    /// # Errors
    /// All problems of the configuration, or an address open to the network by mistake.
    pub(super) fn load(&self) -> Result<LoadedConfig, CliError> {
        let listen = self.listen.as_deref().map(Listen::parse);
        let mut sources = Sources::default().environment(process_environment());
        sources.file = self.config.as_deref();
        sources.flags = self.flags(listen.as_ref());
        let (mut config, values) = Config::load_with_places(&sources)
            .map_err(|problems| CliError::Usage(problems.to_string()))?;
        if matches!(listen, Some(Listen::Port(_))) && config.server.open_to_network {
            config.server.listen.set_ip(Ipv4Addr::UNSPECIFIED.into());
        }
        let is_guarded = config.access.enabled || config.server.open_to_network;
        if !config.server.listen.ip().is_loopback() && !is_guarded {
            let message = format!(
                "server.listen: {} is reachable by other machines, without access control; \
                 access.enabled turns it on, --open-to-network allows it without",
                config.server.listen
            );
            return Err(CliError::Usage(message));
        }
        Ok(LoadedConfig { config, values })
    }

    fn flags(&self, listen: Option<&Listen>) -> Vec<(&'static str, String, &'static str)> {
        let log_directory = self.log_directory.as_ref().map(|path| path.display().to_string());
        let given = [
            ("server.listen", listen.map(Listen::address), "--listen"),
            ("server.workers", self.workers.clone(), "--workers"),
            ("log.directory", log_directory, "--log"),
            ("redis.url", self.redis.clone(), "--redis"),
            (
                "server.open_to_network",
                self.open_to_network.then(|| "true".to_owned()),
                "--open-to-network",
            ),
        ];
        given.into_iter().filter_map(|(key, value, flag)| Some((key, value?, flag))).collect()
    }
}

/// The value of `--listen`.
enum Listen {
    /// `8080` or `:8080`: the address depends on `server.open_to_network`.
    Port(u16),
    /// Any other text; the configuration checks it.
    Address(String),
}

impl Listen {
    fn parse(text: &str) -> Self {
        if let Ok(port) = text.strip_prefix(':').unwrap_or(text).parse() {
            return Self::Port(port);
        }
        match text.strip_prefix("localhost:") {
            Some(port) => Self::Address(format!("{}:{port}", Ipv4Addr::LOCALHOST)),
            None => Self::Address(text.to_owned()),
        }
    }

    fn address(&self) -> String {
        match self {
            Self::Port(port) => format!("{}:{port}", Ipv4Addr::LOCALHOST),
            Self::Address(address) => address.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listens_on(listen: &str, open_to_network: bool) -> Option<String> {
        let args =
            ServeArgs { listen: Some(listen.to_owned()), open_to_network, ..ServeArgs::default() };
        args.load().ok().map(|loaded| loaded.config.server.listen.to_string())
    }

    #[test]
    fn a_port_alone_is_loopback_unless_opened_to_the_network() {
        for (listen, alone, opened) in [
            (":8080", "127.0.0.1:8080", "0.0.0.0:8080"),
            ("8080", "127.0.0.1:8080", "0.0.0.0:8080"),
            ("localhost:8080", "127.0.0.1:8080", "127.0.0.1:8080"),
            ("127.0.0.1:1", "127.0.0.1:1", "127.0.0.1:1"),
            ("[::1]:1", "[::1]:1", "[::1]:1"),
        ] {
            assert_eq!(listens_on(listen, false).as_deref(), Some(alone), "{listen}");
            assert_eq!(listens_on(listen, true).as_deref(), Some(opened), "{listen}");
        }
    }

    #[test]
    fn other_texts_are_no_address() {
        for listen in ["", ":", "nowhere", "localhost", "localhost:", ":80800", "hub:80"] {
            assert_eq!(listens_on(listen, false), None, "{listen}");
        }
        assert_eq!(listens_on("0.0.0.0:80", false), None, "open by mistake");
    }
}
