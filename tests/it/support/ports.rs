//! Ports for servers restarted on the same port.
//!
//! A port chosen by the kernel is not suitable. It is in the range of outgoing connections, so
//! another connection could take it while its server is down.

use std::{
    net::TcpListener,
    sync::atomic::{AtomicU32, Ordering},
};

/// Redis ports begin here. A node's cluster bus uses its port plus 10,000. Both stay below the
/// kernel's own range, beginning at 32,768.
const FIRST: u32 = 10_000;
const COUNT: u32 = 10_000;

/// Distance from the port to the cluster bus' port.
const BUS: u16 = 10_000;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A free port, given out once in this process. The port 10,000 above it is free too.
pub fn free_port() -> u16 {
    // Other test processes on this machine start at other ports.
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
