//! The framework's HTTP service behind a listening socket.

use std::{fmt::Debug, net::SocketAddr, sync::Arc, time::Duration};

use actix_http::{
    Extensions, HttpServiceBuilder, KeepAlive, Protocol, Request, Response,
    h1::{ExpectHandler, UpgradeHandler},
};
use actix_server::GracefulShutdownSignal;
use actix_service::{Service, ServiceFactory};
use actix_web::body::BoxBody;
#[cfg(feature = "http2")]
use futures_util::FutureExt;
use tokio::net::TcpStream;

use super::{
    admission::Connections, head_sniffer::SnifferFactory, plain_publishes::Received,
    streams::Routes,
};
use crate::transport::WatchedSocket;

/// The settings of a listening socket's HTTP service.
#[derive(Clone)]
pub(super) struct HttpSettings {
    pub address: SocketAddr,
    pub keep_alive: KeepAlive,
    pub head_timeout: Duration,
    pub stopping: GracefulShutdownSignal,
    pub write_timeout: Duration,
}

impl HttpSettings {
    /// A service for connections of the type `T`.
    pub fn builder<T, S>(&self) -> HttpServiceBuilder<T, S, ExpectHandler, UpgradeHandler>
    where
        T: 'static,
        S: ServiceFactory<Request, Config = ()>,
        S::Error: Into<Response<BoxBody>> + 'static,
        S::InitError: Debug,
        <S::Service as Service<Request>>::Future: 'static,
    {
        let stopping = self.stopping.clone();
        HttpServiceBuilder::default()
            .graceful_shutdown_signal(move || {
                let stopping = stopping.clone();
                async move { stopping.notified().await }
            })
            .keep_alive(self.keep_alive)
            .client_request_timeout(self.head_timeout)
            // A half-closed client counts as gone. Otherwise a disconnected client would hold its
            // stream until the next failed write.
            .h1_allow_half_closed(false)
            .local_addr(self.address)
    }

    /// A sniffed connection without TLS: its socket, protocol and peer.
    pub fn connection(&self, received: Received) -> (WatchedSocket, Protocol, Option<SocketAddr>) {
        let Received { socket, read } = received;
        let peer = socket.peer_addr().ok();
        // Read bytes are not the preface of HTTP/2.
        let protocol = if read.is_empty() { protocol(&socket) } else { Protocol::Http1 };
        // Each write has all available bytes: delaying it (Nagle) adds latency only.
        let _ = socket.set_nodelay(true);
        (WatchedSocket::new(socket, read, self.write_timeout), protocol, peer)
    }

    /// The service of accepted connections.
    pub fn sniffer<F>(
        &self,
        ordinary: F,
        routes: Arc<Routes>,
        connections: Arc<Connections>,
    ) -> SnifferFactory<F> {
        let stopping = self.stopping.clone();
        let times = (self.head_timeout, self.keep_alive);
        SnifferFactory::new(ordinary, routes, connections, times, stopping)
    }
}

/// Tells a connection's streams when its client has stalled.
pub(super) fn watch_stalled(connection: &WatchedSocket, data: &mut Extensions) {
    data.insert(connection.stalled());
}

/// HTTP/2 by prior knowledge begins with a preface (RFC 9113 §3.4). At a stop of the server, the
/// first bytes may be missing: waiting for them would hold the stop up.
#[cfg(feature = "http2")]
fn protocol(socket: &TcpStream) -> Protocol {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0";
    let mut first = [0; PREFACE.len()];
    match socket.peek(&mut first).now_or_never() {
        Some(Ok(_)) if first == PREFACE => Protocol::Http2,
        _ => Protocol::Http1,
    }
}

#[cfg(not(feature = "http2"))]
fn protocol(_: &TcpStream) -> Protocol {
    Protocol::Http1
}
