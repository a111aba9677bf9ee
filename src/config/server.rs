//! `[server]`: the process around the hub. Only `fanfare serve` reads it; an embedding application
//! binds its own sockets.

use std::{net::SocketAddr, time::Duration};

use serde::Deserialize;

use super::units;

/// Sockets, threads and the end of the process.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a [server] section")]
#[non_exhaustive]
pub struct Server {
    /// Address and port to listen on; port 0 lets the kernel choose one.
    #[serde(deserialize_with = "units::address")]
    pub listen: SocketAddr,
    /// Worker threads, at most 1,024; 0 is one per core.
    #[serde(deserialize_with = "units::count")]
    pub workers: usize,
    /// The accept queue of each listening socket, in connections. The kernel bounds it at
    /// `net.core.somaxconn`.
    #[serde(deserialize_with = "units::count")]
    pub backlog: u32,
    /// Sockets sharing the address (`SO_REUSEPORT`), 1 to 1,024: the accept queue is `listeners ×
    /// backlog`.
    #[serde(deserialize_with = "units::count")]
    pub listeners: u32,
    /// The host names answered, without ports; `*` for any. Empty for the names of loopback and the
    /// address in `listen`. Requests for other hosts get 421, except on `/health/`.
    #[serde(deserialize_with = "units::list")]
    pub hosts: Vec<String>,
    /// How long a connection stays open after a request, 1 s to 1 h. Longer than the idle time of
    /// a load balancer in front.
    #[serde(deserialize_with = "units::duration")]
    pub keep_alive: Duration,
    /// The transport of streams.
    #[serde(deserialize_with = "units::word")]
    pub transport: Transport,
    /// Whether the small writes of a turn to raw streams are sent by one system call (io_uring),
    /// where the kernel allows it and the feature `io-uring` is on.
    #[serde(deserialize_with = "units::switch")]
    pub batched_sends: bool,
    /// Whether an address reachable by other machines is allowed without authentication.
    #[serde(deserialize_with = "units::switch")]
    pub open_to_network: bool,
    /// The drain window, at most 1 h: at shutdown, streams end and their clients reconnect at
    /// random times within it.
    #[serde(deserialize_with = "units::duration")]
    pub drain: Duration,
}

/// The transport of a stream's bytes. Clients get the same stream over both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// The bare socket, for a plain `GET` as the first request of a connection without TLS. All
    /// other requests go through the framework.
    Raw,
    /// The framework's response body, with its buffers, for every stream.
    Body,
}
