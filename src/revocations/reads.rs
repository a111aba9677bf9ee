//! Reads of the revocations kept for all instances. An instance cut off for a while may have missed
//! some: it waits for a new read before it delivers anything more.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::timeout,
};

/// The number of reads asked for, and of those done. One read serves everybody who asked before it
/// began.
#[derive(Default)]
pub(crate) struct Reads {
    asked: AtomicU64,
    done: watch::Sender<u64>,
    wake: Notify,
}

impl Reads {
    /// Waits for a read beginning after this call.
    pub async fn next(&self) {
        let number = self.asked.fetch_add(1, Ordering::AcqRel) + 1;
        self.wake.notify_one();
        // The sender lives as long as `self`.
        let _ = self.done.subscribe().wait_for(|done| *done >= number).await;
    }

    /// For the reader: waits until a read is asked for, at most this long. Returns its number.
    pub async fn due(&self, interval: Duration) -> u64 {
        let _ = timeout(interval, self.wake.notified()).await;
        self.asked.load(Ordering::Acquire)
    }

    /// For the reader: the read of this number is in force.
    pub fn end(&self, number: u64) {
        self.done.send_replace(number);
    }

    /// Whether somebody waits for a read after this one.
    pub fn is_asked_after(&self, number: u64) -> bool {
        self.asked.load(Ordering::Acquire) > number
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_read_serves_everybody_who_asked_before_it_began() {
        let reads = Reads::default();
        let (mut first, mut second) = (Box::pin(reads.next()), Box::pin(reads.next()));
        assert!(first.as_mut().now_or_never().is_none());
        assert!(second.as_mut().now_or_never().is_none());
        let number = reads.due(Duration::from_secs(3600)).await;
        let mut late = Box::pin(reads.next());
        assert!(late.as_mut().now_or_never().is_none());
        reads.end(number);
        assert!(first.now_or_never().is_some() && second.now_or_never().is_some());
        assert!(late.as_mut().now_or_never().is_none() && reads.is_asked_after(number));
        reads.end(reads.due(Duration::from_secs(3600)).await);
        late.await;
    }
}
