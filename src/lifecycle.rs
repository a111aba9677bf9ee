//! The life of a hub: running, draining, stopped.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::CancellationToken;

/// A hub's state, shared by all its parts. There is no way back to an earlier state.
#[derive(Debug, Default)]
pub(crate) struct Lifecycle {
    is_draining: AtomicBool,
    /// Cancelled at the start of a drain, for tasks waiting for it.
    pub drain: CancellationToken,
    /// Ends the hub's actors.
    pub stop: CancellationToken,
}

impl Lifecycle {
    pub fn new(stop: CancellationToken) -> Self {
        Self { is_draining: AtomicBool::new(false), drain: CancellationToken::new(), stop }
    }

    /// Begins a drain: new streams and publishes are refused. Returns whether this call began it.
    pub fn begin_drain(&self) -> bool {
        let is_first = !self.is_draining.swap(true, Ordering::Relaxed);
        self.drain.cancel();
        is_first
    }

    pub fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed) || self.stop.is_cancelled()
    }
}
