//! The bound on replays longer than a page, for all streams of a hub. Each keeps a page of events in
//! memory until its client has taken it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// The number of replays in flight and their bound.
#[derive(Debug)]
pub struct ReplayLimit {
    max_count: usize,
    count: AtomicUsize,
}

impl ReplayLimit {
    pub fn new(max_count: usize) -> Self {
        Self { max_count, count: AtomicUsize::new(0) }
    }

    /// A place for one more replay; none if the limit is reached.
    pub fn begin(self: &Arc<Self>) -> Option<ReplayPlace> {
        let more = |count| (count < self.max_count).then_some(count + 1);
        let begun = self.count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        begun.is_ok().then(|| ReplayPlace(self.clone()))
    }

    /// The replays in flight.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}

/// The place of a replay. Dropping it ends the replay.
#[derive(Debug)]
pub struct ReplayPlace(Arc<ReplayLimit>);

impl Drop for ReplayPlace {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_after_its_replay() {
        let limit = Arc::new(ReplayLimit::new(1));
        let place = limit.begin();
        assert!(place.is_some() && limit.begin().is_none());
        drop(place);
        assert_eq!(limit.count(), 0);
        assert!(limit.begin().is_some());
    }
}
