//! `[server]`: the process around the hub. Only `fanfare serve` reads it; an embedding application
//! binds its own sockets.

use std::{net::SocketAddr, time::Duration};

use serde::Deserialize;

use super::units;

/// Sockets, threads and the end of the process.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a [server] section")]
pub struct Server {
    /// Address and port to listen on; port 0 lets the kernel choose one.
    #[serde(deserialize_with = "units::address")]
    pub listen: SocketAddr,
    /// Worker threads; 0 is one per core.
    #[serde(deserialize_with = "units::count")]
    pub workers: usize,
    /// Connections held by the kernel per listener before they are accepted.
    #[serde(deserialize_with = "units::count")]
    pub backlog: u32,
    /// Sockets sharing the address (`SO_REUSEPORT`), at least 1: the accept queue is `listeners ×
    /// backlog`.
    #[serde(deserialize_with = "units::count")]
    pub listeners: u32,
    /// The transport of streams.
    #[serde(deserialize_with = "units::word")]
    pub transport: Transport,
    /// Whether an address reachable by other machines is allowed without authentication.
    #[serde(deserialize_with = "units::switch")]
    pub open_to_network: bool,
    /// The drain window: at shutdown, streams end and their clients return spread over it.
    #[serde(deserialize_with = "units::duration")]
    pub drain: Duration,
}

/// The transport of a stream's bytes. Streams are the same over both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// The bare socket, if a plain `GET` comes first on a plain-text connection. All other requests
    /// go through the framework.
    Raw,
    /// The framework's body, with its buffers.
    Body,
}
