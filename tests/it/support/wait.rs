//! Waiting for a condition. Tests use it instead of sleeping.

use std::time::{Duration, Instant};

/// Time between two checks of a condition.
const POLL: Duration = Duration::from_millis(10);

/// Deadline for an operation of milliseconds, on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// Waits until the condition is true.
///
/// # Panics
/// The condition is still false at the deadline.
pub async fn until(deadline: Duration, what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < deadline, "not within {deadline:?}: {what}");
        tokio::time::sleep(POLL).await;
    }
}
