//! `[server]`: the process around the hub. Only `fanfare serve` reads it; an
//! application that embeds the hub binds its own sockets.

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
    /// Connections that the kernel holds per listener until they are accepted.
    #[serde(deserialize_with = "units::count")]
    pub backlog: u32,
    /// Sockets that share the address (`SO_REUSEPORT`), at least 1: the accept queue
    /// is `listeners × backlog`.
    #[serde(deserialize_with = "units::count")]
    pub listeners: u32,
    /// What carries streams.
    #[serde(deserialize_with = "units::word")]
    pub transport: Transport,
    /// Whether an address that other machines reach is allowed without authentication.
    #[serde(deserialize_with = "units::switch")]
    pub open_to_network: bool,
    /// The window over which streams are ended, and told to return, at shutdown.
    #[serde(deserialize_with = "units::duration")]
    pub drain: Duration,
}

/// What carries a stream's bytes. Streams are the same over both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// The bare socket, where a plain `GET` comes first on a plain-text connection; all
    /// other requests go the framework's way.
    Raw,
    /// The framework's body, with its buffers.
    Body,
}
