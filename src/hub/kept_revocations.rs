//! The revocations kept in Redis reach an instance started later, or cut off for a while: they are
//! read at intervals, and at once after a link to Redis was lost.

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

/// Pause after a failed read, while deliveries wait for it.
const RETRY: Duration = Duration::from_millis(100);

/// A revocation has the time of its instance: clocks may differ by this much.
const CLOCK_MARGIN_MS: u64 = 60_000;

/// Reads the kept revocations again and again, until the hub ends. No token is admitted before the
/// first read.
pub(super) fn follow(
    store: Arc<dyn RevocationStore>,
    instances: &Arc<Instances>,
    stop: &CancellationToken,
) -> io::Result<()> {
    instances.revocations.keep_elsewhere();
    let instances = Arc::downgrade(instances);
    start_alone("fanfare-revocations", stop, move || {
        tokio::task::spawn_local(read_all(store, instances));
    })
}

async fn read_all(store: Arc<dyn RevocationStore>, hub: Weak<Instances>) {
    let (mut from_ms, mut number) = (0, 0);
    loop {
        let began_ms = unix_ms();
        let kept = store.since(from_ms).await;
        let Some(instances) = hub.upgrade() else { return };
        let is_read = kept.is_ok();
        for revocation in kept.into_iter().flatten() {
            instances.revoke_kept(revocation).await;
        }
        let revocations = instances.revocations.clone();
        drop(instances);
        let Some(reads) = revocations.reads() else { return };
        if is_read {
            revocations.set_loaded();
            from_ms = began_ms.saturating_sub(CLOCK_MARGIN_MS);
            reads.end(number);
        } else if reads.is_asked_after(number) {
            sleep(RETRY).await;
            continue;
        }
        number = reads.due(INTERVAL).await;
    }
}
