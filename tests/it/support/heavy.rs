//! Load tests run one after the other: together they would measure each other.

use tokio::sync::{Mutex, MutexGuard};

static HEAVY: Mutex<()> = Mutex::const_new(());

/// To be held while a test loads the machine.
pub async fn heavy() -> MutexGuard<'static, ()> {
    HEAVY.lock().await
}
