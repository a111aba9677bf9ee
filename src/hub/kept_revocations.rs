//! The revocations kept in Redis reach an instance started later, or cut off for a while.

use std::{
    io,
    sync::{Arc, Weak},
    time::Duration,
};

use fanfare_core::access::RevocationStore;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{clock::unix_ms, instances::Instances, threads::start_alone};

/// Time between two reads of Redis.
const INTERVAL: Duration = Duration::from_secs(1);

/// A revocation has the time of its instance: clocks may differ by this much.
const CLOCK_MARGIN_MS: u64 = 60_000;

/// Reads the kept revocations again and again, until the hub ends. No token is admitted before the
/// first read.
pub(super) fn follow(
    store: Arc<dyn RevocationStore>,
    instances: &Arc<Instances>,
    stop: &CancellationToken,
) -> io::Result<()> {
    instances.revocations.set_loaded(false);
    let instances = Arc::downgrade(instances);
    start_alone("fanfare-revocations", stop, move || {
        tokio::task::spawn_local(read_all(store, instances));
    })
}

async fn read_all(store: Arc<dyn RevocationStore>, hub: Weak<Instances>) {
    let mut from_ms = 0;
    loop {
        let began_ms = unix_ms();
        let kept = store.since(from_ms).await;
        let Some(instances) = hub.upgrade() else { return };
        if let Ok(kept) = kept {
            for revocation in kept {
                instances.revoke_kept(revocation).await;
            }
            instances.revocations.set_loaded(true);
            from_ms = began_ms.saturating_sub(CLOCK_MARGIN_MS);
        }
        drop(instances);
        sleep(INTERVAL).await;
    }
}
