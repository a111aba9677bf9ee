//! The progress of a client, measured by the bytes its kernel has acknowledged. A slow client makes
//! progress, a stalled or vanished one does not. The kernel's own timeout (`TCP_USER_TIMEOUT`) is no
//! measure: it also ends clients reading slowly (RFC 5482 leaves a closed window open). Owns no
//! timer.

use std::{
    os::fd::AsFd,
    time::{Duration, Instant},
};

use nix::{getsockopt_impl, libc, sockopt_impl, sys::socket::getsockopt};
use socket2::SockRef;

use crate::clock::now;

/// The kernel's `struct tcp_info` up to `tcpi_notsent_bytes` (Linux 4.6).
const INFO_BYTES: usize = 148;

sockopt_impl!(
    /// The beginning of the kernel's `struct tcp_info`.
    TcpInfo,
    GetOnly,
    libc::IPPROTO_TCP,
    libc::TCP_INFO,
    [u8; INFO_BYTES]
);

/// The state of a socket's written bytes.
struct Acknowledgements {
    acknowledged_bytes: u64,
    /// Whether the client has acknowledged everything.
    is_complete: bool,
}

impl Acknowledgements {
    /// `None` for a broken socket.
    fn of(socket: &impl AsFd) -> Option<Self> {
        let info = getsockopt(socket, TcpInfo).ok()?;
        // Offsets of `tcpi_unacked`, `tcpi_bytes_acked` and `tcpi_notsent_bytes`.
        let unacknowledged_packets = u32::from_ne_bytes(*info[24..].first_chunk()?);
        let acknowledged_bytes = u64::from_ne_bytes(*info[120..].first_chunk()?);
        let not_sent_bytes = u32::from_ne_bytes(*info[144..].first_chunk()?);
        let is_complete = unacknowledged_packets == 0 && not_sent_bytes == 0;
        Some(Self { acknowledged_bytes, is_complete })
    }
}

/// The progress of one socket's client.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// The acknowledged bytes at `waits_since`.
    acknowledged_bytes: u64,
    /// The last known progress while written bytes wait for it. `None`: the client had acknowledged
    /// everything.
    waits_since: Option<Instant>,
}

impl Progress {
    /// Call it for every write: written bytes wait for their acknowledgement.
    #[inline]
    pub fn on_write(&mut self, now: Instant) {
        self.waits_since.get_or_insert(now);
    }

    /// Whether bytes have waited for `timeout`, so [`Self::has_stalled`] would ask the kernel.
    #[inline]
    pub fn is_due(&self, timeout: Duration, now: Instant) -> bool {
        let end = self.waits_since.and_then(|since| since.checked_add(timeout));
        end.is_some_and(|end| end <= now)
    }

    /// Whether the client has acknowledged nothing for `timeout`, although bytes wait. Call it
    /// before further writes: new bytes have waited for no time. It asks the kernel once per
    /// `timeout` at most. A stalled client's socket will be reset by its close.
    #[inline]
    pub fn has_stalled(&mut self, socket: &impl AsFd, timeout: Duration) -> bool {
        self.waits_since.is_some() && {
            let now = now();
            self.is_due(timeout, now) && !self.has_moved(socket, now)
        }
    }

    /// The next moment for a look at a client with a full socket.
    pub fn deadline(&mut self, timeout: Duration) -> Instant {
        *self.waits_since.get_or_insert_with(now) + timeout
    }

    /// Whether the client has acknowledged everything, or is gone.
    pub fn is_complete(socket: &impl AsFd) -> bool {
        Acknowledgements::of(socket).is_none_or(|state| state.is_complete)
    }

    fn has_moved(&mut self, socket: &impl AsFd, now: Instant) -> bool {
        let state = Acknowledgements::of(socket);
        let moved = state.filter(|state| {
            state.is_complete || state.acknowledged_bytes != self.acknowledged_bytes
        });
        let Some(state) = moved else {
            // Without a reset, the kernel would keep the unread bytes for minutes after the close.
            let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
            return false;
        };
        self.acknowledged_bytes = state.acknowledged_bytes;
        self.waits_since = (!state.is_complete).then_some(now);
        true
    }
}
