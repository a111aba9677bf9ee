//! Ports for servers that are stopped and started again on the same one.
//!
//! A port that the kernel chose would not do: it is of the range that outgoing connections
//! get theirs from, so while its server is away another connection may take it.

use std::{
    net::TcpListener,
    sync::atomic::{AtomicU32, Ordering},
};

/// Ports of Redis begin here. Its cluster bus is at a port that is 10,000 higher, and both
/// stay below the kernel's own range, which begins at 32,768.
const FIRST: u32 = 10_000;
const COUNT: u32 = 10_000;

/// From the port to that of the cluster bus.
const BUS: u16 = 10_000;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A port that nobody else of this process gets, free now, as is the one 10,000 above it.
pub fn free_port() -> u16 {
    // Other test processes of this machine begin elsewhere.
    let first = std::process::id().wrapping_mul(7919);
    loop {
        let number = first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(FIRST + number % COUNT).expect("below 20,000");
        if [port, port + BUS].into_iter().all(is_free) {
            return port;
        }
    }
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}
