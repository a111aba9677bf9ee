//! The drain of a hub with its server: begun by a signal or by the server's stop, without waiting
//! for it.

use std::{pin::pin, time::Duration};

use actix_rt::{
    signal::unix::{Signal, SignalKind, signal},
    time::sleep,
};
use futures_util::future::{Either, select};

use super::Hub;
use crate::threads::run_detached;

/// Longest time of a stopping server with open listeners. Load balancers see the failing readiness
/// check, and new streams get 503.
const LINGER: Duration = Duration::from_secs(1);

/// A server's time between the end of its last worker and its own.
const SERVER_END: Duration = Duration::from_millis(300);

impl Hub {
    /// Begins a drain of `server.drain` on a thread of its own, unless the hub drains already.
    pub(crate) fn drain_detached(&self) {
        if !self.parts().lifecycle.begin_drain() {
            return;
        }
        let window = self.parts().config.server.drain;
        tracing::info!(
            window_ms = window.as_millis() as u64,
            streams = self.connections(),
            "draining with the server"
        );
        let hub = self.clone();
        if let Err(error) = run_detached("fanfare-drain", async move || hub.drain(window).await) {
            tracing::error!(%error, "no thread for the drain: streams end without `shutdown`");
        }
    }

    /// Resolves when the server is to stop: after SIGTERM or SIGINT. The hub's drain has begun then
    /// and goes on beside the server's stop.
    pub(crate) async fn stop_signal(self) {
        let (Ok(mut terminate), Ok(mut interrupt)) =
            (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
        else {
            tracing::error!("signal handlers unavailable: only SIGKILL ends this process");
            return std::future::pending().await;
        };
        let is_interactive = is_interrupt(&mut terminate, &mut interrupt).await;
        self.drain_detached();
        // Nobody routes requests to a program ended by its terminal.
        // A second signal ends the wait.
        if !is_interactive {
            let wait = pin!(sleep(linger_of(self.parts().config.server.drain)));
            select(wait, pin!(is_interrupt(&mut terminate, &mut interrupt))).await;
        }
    }

    /// Seconds for a server's workers to end their connections: after [`LINGER`], the server then
    /// ends within the drain window and a second. A server counts in whole seconds.
    pub(crate) fn shutdown_seconds(&self) -> u64 {
        let window = self.parts().config.server.drain;
        let left = (window + Duration::from_secs(1)).saturating_sub(linger_of(window) + SERVER_END);
        left.as_secs().max(1)
    }
}

fn linger_of(window: Duration) -> Duration {
    LINGER.min(window / 2)
}

/// Waits for SIGTERM or SIGINT. Returns whether it is SIGINT.
async fn is_interrupt(terminate: &mut Signal, interrupt: &mut Signal) -> bool {
    let (terminated, interrupted) = (pin!(terminate.recv()), pin!(interrupt.recv()));
    matches!(select(terminated, interrupted).await, Either::Right(_))
}
