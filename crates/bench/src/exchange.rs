//! Requests of the load tool with a finite response, one at a time on a connection.

use std::{io, net::SocketAddr, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};

use super::{
    http::{BadResponse, ParsedResponse},
    settings::PublishEndpoint,
};
use crate::BenchError;

/// From connecting to the answer's last byte.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest idle time of a reused connection. Servers close idle connections, often after 5 s. If
/// a request crosses with the close, it is unknown whether the server accepted it.
const MAX_IDLE: Duration = Duration::from_secs(2);

/// Longest response body. A response to a few hundred published events is far shorter.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no answer. The server may have accepted the request.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExchangeError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    BadResponse(#[from] BadResponse),
    #[error("the answer is too long")]
    TooLong,
    #[error("no answer within {ANSWER_TIMEOUT:?}")]
    Silent,
}

/// Resolves the host, and returns its first address accepting a connection.
pub(super) async fn resolve(place: &PublishEndpoint) -> Result<SocketAddr, BenchError> {
    let failed = |error: io::Error| {
        BenchError::Failed(format!("cannot connect to http://{}: {error}", place.authority))
    };
    let found = tokio::net::lookup_host((place.host.as_str(), place.port)).await.map_err(failed)?;
    let mut last = io::Error::other("the host name has no address");
    for address in found {
        let late = || io::Error::new(io::ErrorKind::TimedOut, "no answer");
        match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(_)) => return Ok(address),
            Ok(Err(error)) => last = error,
            Err(_) => last = late(),
        }
    }
    Err(failed(last))
}

/// A connection, opened on the first request and again after it was closed or idle.
pub(super) struct Exchange {
    address: SocketAddr,
    open: Option<(TcpStream, Instant)>,
}

impl Exchange {
    pub fn new(address: SocketAddr) -> Self {
        Self { address, open: None }
    }

    /// Sends a request. Returns the status and the body of the response.
    pub async fn ask(&mut self, request: &[u8]) -> Result<(u16, Vec<u8>), ExchangeError> {
        let asking = timeout(ANSWER_TIMEOUT, self.ask_in_time(request));
        asking.await.unwrap_or(Err(ExchangeError::Silent))
    }

    async fn ask_in_time(&mut self, request: &[u8]) -> Result<(u16, Vec<u8>), ExchangeError> {
        let usable = self.open.take().filter(|(_, since)| since.elapsed() < MAX_IDLE);
        let mut socket = match usable {
            Some((socket, _)) => socket,
            None => TcpStream::connect(self.address).await?,
        };
        socket.set_nodelay(true)?;
        socket.write_all(request).await?;
        let (mut answer, mut body, mut buffer) =
            (ParsedResponse::default(), Vec::new(), [0; 16 * 1024]);
        loop {
            let length = socket.read(&mut buffer).await?;
            let is_complete =
                answer.feed(&buffer[..length], &mut |part| body.extend_from_slice(part))?;
            let head = answer.head();
            if let Some(head) = head.filter(|head| is_complete || (length == 0 && !head.has_end()))
            {
                if head.is_kept_alive {
                    self.open = Some((socket, Instant::now()));
                }
                return Ok((head.status, body));
            }
            if length == 0 {
                let message = "the server closed the connection without an answer";
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message).into());
            }
            if body.len() > MAX_ANSWER_BYTES {
                return Err(ExchangeError::TooLong);
            }
        }
    }
}

/// A fanfare hub's own account, from its `/stats`.
#[derive(Deserialize)]
pub(super) struct HubStats {
    /// Events conflated since the start.
    pub conflated: u64,
    /// The policy of most topics; not told by older hubs.
    pub delivery: Option<DeliveryDefaults>,
}

/// The latency added by the hub's policy.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all(deserialize = "camelCase"))]
pub(super) struct DeliveryDefaults {
    pub flush: String,
    pub tick_ms: u64,
}

/// The hub's `/stats`. None for another hub.
pub(super) async fn stats(address: SocketAddr, place: &PublishEndpoint) -> Option<HubStats> {
    let request = format!("GET {} HTTP/1.1\r\nhost: {}\r\n\r\n", place.path, place.authority);
    let (status, body) = Exchange::new(address).ask(request.as_bytes()).await.ok()?;
    serde_json::from_slice(&body).ok().filter(|_| status == 200)
}
