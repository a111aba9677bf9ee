//! Listening sockets with accept queues for a storm of reconnects.

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use socket2::{Domain, Protocol, Socket, Type};

/// Binds `count` sockets to one address, at least one. The kernel bounds the accept queue of each
/// socket, so together they hold a multiple.
///
/// # Errors
/// The address is in use, also by another process with `SO_REUSEPORT`.
pub(crate) fn bind(address: SocketAddr, count: u32, backlog: u32) -> io::Result<Vec<TcpListener>> {
    // With `SO_REUSEPORT`, binding succeeds also beside another process sharing the address, and
    // each process would get a part of the clients. So a probe without it binds first. For port 0
    // the probe also gets one port for all sockets.
    let probe = socket(address)?;
    probe.bind(&address.into())?;
    let address = probe.local_addr()?.as_socket().unwrap_or(address);
    drop(probe);
    (0..count.max(1)).map(|_| listener(address, backlog)).collect()
}

fn listener(address: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    let socket = socket(address)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}
