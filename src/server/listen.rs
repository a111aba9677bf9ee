//! Listening sockets with room for a storm.

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use socket2::{Domain, Protocol, Socket, Type};

/// Binds several sockets to one address: the accept queue is then a multiple of the kernel's bound
/// for one.
///
/// # Errors
/// The address is in use, also by another process sharing it in the same way.
pub(crate) fn bind(address: SocketAddr, count: u32, backlog: u32) -> io::Result<Vec<TcpListener>> {
    // Sockets sharing an address would not notice another process sharing it too. So a probe
    // without sharing binds first, and keeps the port chosen by the kernel.
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
