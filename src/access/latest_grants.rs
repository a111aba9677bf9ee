//! The grants of the latest tokens. Requests with the same token share their grant: a user with
//! several open pages, or one login for many streams.
//!
//! Bound: [`MAX_COUNT`] grants; the oldest go.

use std::{collections::VecDeque, sync::Arc};

use fanfare_core::access::Grant;
use parking_lot::Mutex;

/// More would make a longer search for each request.
const MAX_COUNT: usize = 16;

#[derive(Default)]
pub(super) struct LatestGrants {
    latest: Mutex<VecDeque<Arc<Grant>>>,
}

impl LatestGrants {
    /// The shared grant of a token.
    pub fn share(&self, grant: Grant) -> Arc<Grant> {
        let mut latest = self.latest.lock();
        if let Some(known) = latest.iter().find(|known| known.is_same(&grant)) {
            return known.clone();
        }
        let grant = Arc::new(grant);
        latest.push_front(grant.clone());
        latest.truncate(MAX_COUNT);
        grant
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use fanfare_core::access::Credential;

    use super::*;

    #[test]
    fn equal_grants_are_shared_and_the_oldest_go() {
        let (latest, now) = (LatestGrants::default(), Instant::now());
        let share = |number: u64| {
            let credential = Credential::Token { id: None, issued_at_s: Some(number) };
            latest.share(Grant::new(None, credential, []).until(60_000, now, 0))
        };
        let first = share(0);
        assert!(Arc::ptr_eq(&first, &share(0)));
        (1..=MAX_COUNT as u64).for_each(|number| assert!(!Arc::ptr_eq(&first, &share(number))));
        assert!(!Arc::ptr_eq(&first, &share(0)));
        assert_eq!(latest.latest.lock().len(), MAX_COUNT);
    }
}
