//! How a Redis server is started.

use std::path::Path;

use super::Certificates;

/// The file, below a server's directory, that its log goes to.
pub const LOG_FILE: &str = "log";

/// What differs from a Redis that keeps everything in memory and lets everybody in.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Whether every write is on disk before it is answered.
    pub is_append_only: bool,
    /// Of the default user.
    pub password: Option<String>,
    /// Listens for TLS alone.
    pub certificates: Option<Certificates>,
    /// Port of the master that this one replicates.
    pub replica_of: Option<u16>,
    pub is_cluster_node: bool,
}

impl Options {
    /// Keeps what it acknowledged, whatever happens to the process.
    pub fn append_only() -> Self {
        Self { is_append_only: true, ..Self::default() }
    }

    /// The arguments of `redis-server`.
    pub(super) fn arguments(&self, port: u16, directory: &Path) -> Vec<String> {
        let mut settings: Vec<(&str, String)> = vec![
            ("dir", directory.display().to_string()),
            ("logfile", LOG_FILE.to_owned()),
            ("bind", "127.0.0.1".to_owned()),
            ("save", String::new()),
            // A replica would wait five seconds for others to come.
            ("repl-diskless-sync-delay", "0".to_owned()),
        ];
        settings.extend(self.ports(port));
        if self.is_append_only {
            settings.push(("appendonly", "yes".to_owned()));
            settings.push(("appendfsync", "always".to_owned()));
        }
        if let Some(password) = &self.password {
            settings.push(("requirepass", password.clone()));
            settings.push(("masterauth", password.clone()));
        }
        if let Some(master) = self.replica_of {
            settings.push(("replicaof", format!("127.0.0.1 {master}")));
        }
        if self.is_cluster_node {
            settings.push(("cluster-enabled", "yes".to_owned()));
            settings.push(("cluster-node-timeout", "1500".to_owned()));
            // A replica stays its own master's.
            settings.push(("cluster-allow-replica-migration", "no".to_owned()));
        }
        settings
            .into_iter()
            .flat_map(|(key, value)| {
                // `replicaof` and the like take several words, a path or a password is one.
                let words: Vec<String> = match key {
                    "replicaof" => value.split(' ').map(str::to_owned).collect(),
                    _ => vec![value],
                };
                [format!("--{key}")].into_iter().chain(words)
            })
            .collect()
    }

    fn ports(&self, port: u16) -> Vec<(&'static str, String)> {
        let Some(files) = &self.certificates else { return vec![("port", port.to_string())] };
        vec![
            ("port", "0".to_owned()),
            ("tls-port", port.to_string()),
            ("tls-ca-cert-file", files.authority.display().to_string()),
            ("tls-cert-file", files.certificate.display().to_string()),
            ("tls-key-file", files.key.display().to_string()),
            ("tls-auth-clients", "no".to_owned()),
        ]
    }
}
