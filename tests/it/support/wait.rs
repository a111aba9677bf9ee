//! Waiting for a condition, which is what tests do instead of sleeping.

use std::time::{Duration, Instant};

/// Time between two looks at a condition.
const POLL: Duration = Duration::from_millis(10);

/// How long a test waits for what should take milliseconds, on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// Waits until the condition holds.
///
/// # Panics
/// It does not within the deadline.
pub async fn until(deadline: Duration, what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < deadline, "not within {deadline:?}: {what}");
        tokio::time::sleep(POLL).await;
    }
}
