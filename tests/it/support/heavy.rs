//! Load tests run one after the other: in parallel they would measure each other.

use tokio::sync::{Mutex, MutexGuard};

static HEAVY: Mutex<()> = Mutex::const_new(());

/// Hold this during a load test.
pub async fn heavy() -> MutexGuard<'static, ()> {
    HEAVY.lock().await
}
