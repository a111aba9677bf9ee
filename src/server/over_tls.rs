//! Accepting connections over TLS: the handshake, and the choice of the protocol (ALPN).

use std::{io, net::SocketAddr, time::Duration};

use actix_http::{Protocol, error::DispatchError};
use actix_service::{ServiceFactory, ServiceFactoryExt};
use actix_tls::accept::{
    TlsError,
    rustls_0_23::{Acceptor, TlsStream},
};
use rustls::ServerConfig;
use tokio::net::TcpStream;

use super::http2_socket::Http2Socket;

/// A connection for the framework: its socket, protocol and peer.
type Accepted = (Http2Socket<TlsStream<TcpStream>>, Protocol, Option<SocketAddr>);

const HTTP2: &[u8] = b"h2";

/// A service of connections over TLS, by the service of their requests.
pub(super) fn over_tls<S>(
    mut settings: ServerConfig,
    handshake_timeout: Duration,
    http: S,
) -> impl ServiceFactory<
    TcpStream,
    Config = (),
    Response = (),
    Error = TlsError<io::Error, DispatchError>,
    InitError = (),
>
where
    S: ServiceFactory<Accepted, Config = (), Response = (), Error = DispatchError, InitError = ()>,
{
    settings.alpn_protocols = vec![HTTP2.to_vec(), b"http/1.1".to_vec()];
    let mut acceptor = Acceptor::new(settings);
    acceptor.set_handshake_timeout(handshake_timeout);
    acceptor
        .map_err(TlsError::into_service_error)
        .and_then(async |socket| Ok(accepted(socket)))
        .and_then(http.map_err(TlsError::Service))
}

fn accepted(socket: TlsStream<TcpStream>) -> Accepted {
    let (plain, tls) = socket.get_ref();
    let is_http2 = tls.alpn_protocol() == Some(HTTP2);
    let peer = plain.peer_addr().ok();
    // Each write has all available bytes: delaying it (Nagle) adds latency only.
    let _ = plain.set_nodelay(true);
    let protocol = if is_http2 { Protocol::Http2 } else { Protocol::Http1 };
    (Http2Socket::new(socket, is_http2), protocol, peer)
}
