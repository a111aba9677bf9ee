//! The connections of a server: a limit for the process, and the share of each address. Beyond the
//! limit, a few more connections are served for health checks and metrics only.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use actix_web::ResponseError;
use fanfare_core::error::ErrorCode;
use tokio::net::TcpStream;

use crate::{
    addresses::{OfConnection, Share},
    http::refusal::{Refusal, retry_after_seconds},
    hub::Hub,
};

/// Connections beyond the limit, for the paths in [`RESERVED_PATHS`].
const RESERVED: usize = 64;

/// The beginnings of requests served beyond the limit.
const RESERVED_PATHS: [&str; 3] = ["GET /health/", "GET /metrics", "GET /stats"];

/// The open connections of all workers.
#[derive(Debug)]
pub(super) struct Connections {
    max_count: usize,
    open_count: AtomicUsize,
}

/// One admitted connection. Dropping it returns its places.
#[derive(Debug)]
pub(super) struct Admitted {
    /// None after the hand-over to a raw stream.
    connections: Option<Arc<Connections>>,
    share: Option<Share<OfConnection>>,
}

/// The decision about a new connection.
pub(super) enum Admission {
    Open(Admitted),
    /// Only for [`RESERVED_PATHS`].
    Reserved(Admitted),
    Refused(ErrorCode),
}

impl Connections {
    pub fn new(max_count: usize) -> Arc<Self> {
        Arc::new(Self { max_count, open_count: AtomicUsize::new(0) })
    }

    pub fn admit(self: &Arc<Self>, hub: &Hub, socket: &TcpStream) -> Admission {
        let before = self.open_count.fetch_add(1, Ordering::Relaxed);
        let mut admitted = Admitted { connections: Some(self.clone()), share: None };
        if before >= self.max_count + RESERVED {
            return Admission::Refused(ErrorCode::AtCapacity);
        }
        if before >= self.max_count {
            return Admission::Reserved(admitted);
        }
        match hub.parts().addresses.connect(socket.peer_addr().ok()) {
            Ok(share) => {
                admitted.share = share;
                Admission::Open(admitted)
            }
            Err(_) => Admission::Refused(ErrorCode::TooManyConnections),
        }
    }
}

impl Connections {
    /// Returns the place of a connection.
    pub fn end_one(&self) {
        self.open_count.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Admitted {
    /// Leaves the connection's place to somebody else, who calls [`Connections::end_one`].
    pub fn hand_over(mut self) -> Option<Share<OfConnection>> {
        self.connections = None;
        self.share.take()
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.connections.iter().for_each(|connections| connections.end_one());
    }
}

/// Whether a request's first bytes are served beyond the limit.
pub(super) fn is_reserved(head: &[u8]) -> bool {
    RESERVED_PATHS.iter().any(|path| head.starts_with(path.as_bytes()))
}

/// The whole answer to a refused connection.
pub(super) fn refusal(code: ErrorCode) -> String {
    let refusal = Refusal::new(code, "too many connections; try again later");
    let body = serde_json::to_string(&refusal).expect("codes and texts serialize");
    let status = refusal.status_code();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         retry-after: {}\r\nconnection: close\r\n\r\n{body}",
        body.len(),
        retry_after_seconds(),
    )
}
