//! Load tests run one after the other: in parallel they would measure each other. Browsers run two at
//! a time: more would only wait for the processor.

use tokio::sync::{Mutex, MutexGuard, Semaphore, SemaphorePermit};

static HEAVY: Mutex<()> = Mutex::const_new(());

static BROWSERS: Semaphore = Semaphore::const_new(2);

/// Hold this during a load test.
pub async fn heavy() -> MutexGuard<'static, ()> {
    HEAVY.lock().await
}

/// Hold this while a browser runs.
pub async fn browser_turn() -> SemaphorePermit<'static> {
    BROWSERS.acquire().await.expect("never closed")
}
