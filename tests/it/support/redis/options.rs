//! Start options of a Redis server.

use std::path::Path;

use super::Certificates;

/// The log file, below a server's directory.
pub const LOG_FILE: &str = "log";

/// Differences from a Redis without persistence and access control.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Whether every write is on disk before its answer.
    pub is_append_only: bool,
    /// The password of the default user.
    pub password: Option<String>,
    /// Listens with TLS only.
    pub certificates: Option<Certificates>,
    /// Port of its master.
    pub replica_of: Option<u16>,
    pub is_cluster_node: bool,
}

impl Options {
    /// Keeps all acknowledged writes, also after a crash of the process.
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
            // For `DEBUG RELOAD`.
            ("enable-debug-command", "local".to_owned()),
            // By default a master waits five seconds for further replicas.
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
            // Each replica stays with its master.
            settings.push(("cluster-allow-replica-migration", "no".to_owned()));
        }
        settings
            .into_iter()
            .flat_map(|(key, value)| {
                // `replicaof` takes several words; a path or a password is a single one.
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
