//! The time of a hub under test.

use std::time::Duration;

use crate::clock::MovableClock;

/// The time of the hubs started on this thread, moved by the test: ticks, heartbeats, lifetimes, ends
/// of keys, of history and of tokens come without waiting.
///
/// ```
/// # use fanfare::{Hub, testing};
/// # use std::time::Duration;
/// let clock = testing::Clock::new();      // before the hub
/// let hub = Hub::start(testing::config())?;
/// clock.advance(Duration::from_secs(3600));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// - A thread has one clock: its last one. The clock of a hub also counts on the workers of its
///   server.
/// - Between two moves, the time runs on.
/// - Everything published and read after a move sees the new time. A sleeping hub notices the move
///   within milliseconds: wait for the next event, or by [`eventually`](super::eventually).
/// - Timers of actix-web, of Redis, and of the application keep the true time.
#[derive(Debug)]
pub struct Clock(MovableClock);

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock {
    /// A clock at the true time. Dropping it gives the thread the true time.
    pub fn new() -> Self {
        let clock = MovableClock::default();
        clock.install();
        Self(clock)
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        self.0.advance(by);
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.0.uninstall();
    }
}
