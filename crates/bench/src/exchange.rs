//! Requests of the load tool that have an answer with an end, one at a time over a connection.

use std::{io, net::SocketAddr, time::Duration};

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

/// After which an idle connection is not used again: servers close them, often after 5 s, and
/// whether a request that crosses with that was taken cannot be known.
const MAX_IDLE: Duration = Duration::from_secs(2);

/// Longest answer: that of some hundred published events.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no answer. Whether the request was taken is not known.
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

/// Addresses to try, and the one that answers.
pub(super) async fn resolve(place: &PublishEndpoint) -> Result<SocketAddr, BenchError> {
    let failed = |error: io::Error| {
        BenchError::Failed(format!("cannot connect to http://{}: {error}", place.authority))
    };
    let found = tokio::net::lookup_host((place.host.as_str(), place.port)).await.map_err(failed)?;
    let mut last = io::Error::other("the name has no address");
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

/// A connection that is opened when it is needed, and again when it was closed.
pub(super) struct Exchange {
    address: SocketAddr,
    open: Option<(TcpStream, Instant)>,
}

impl Exchange {
    pub fn new(address: SocketAddr) -> Self {
        Self { address, open: None }
    }

    /// Sends a request and gives the answer's status and body.
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

/// The conflated events that a hub counts at its `/stats`. None of what is no fanfare hub.
pub(super) async fn conflated(address: SocketAddr, place: &PublishEndpoint) -> Option<u64> {
    let request = format!("GET {} HTTP/1.1\r\nhost: {}\r\n\r\n", place.path, place.authority);
    let (status, body) = Exchange::new(address).ask(request.as_bytes()).await.ok()?;
    let stats: serde_json::Value = serde_json::from_slice(&body).ok().filter(|_| status == 200)?;
    stats.get("conflated")?.as_u64()
}
