//! The bytes of remembered publish ids, with a fair share for each publisher.
//!
//! A publisher over HTTP may fill as many bytes as it leaves free. So one publisher alone gets half
//! of the budget, nine together nine tenths, and each newcomer finds room. The application gets all.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{error::PublishError, ids::PublisherId};

/// The memory of a publisher with remembered ids, beside the ids: its entry in the map.
const PUBLISHER_BYTES: usize = 2 * (size_of::<(PublisherId, usize)>() + 1);

/// A budget in bytes, shared by the partitions of a hub.
#[derive(Debug)]
pub struct IdBudget {
    max_bytes: usize,
    // Locked for one addition. Only publishes with an id lock it.
    shares: Mutex<Shares>,
}

#[derive(Debug, Default)]
struct Shares {
    used_bytes: usize,
    by_publisher: HashMap<PublisherId, usize>,
}

impl IdBudget {
    pub fn new(max_bytes: usize) -> Self {
        Self { max_bytes, shares: Mutex::default() }
    }

    /// Bytes in use.
    pub fn used_bytes(&self) -> usize {
        self.shares().used_bytes
    }

    /// Checks that the publisher may use more bytes.
    ///
    /// # Errors
    /// The publisher's share, or the whole budget, is used up.
    pub fn check(&self, publisher: PublisherId, bytes: usize) -> Result<(), PublishError> {
        let shares = self.shares();
        let own = shares.by_publisher.get(&publisher).copied();
        let bytes = bytes + if own.is_none() { PUBLISHER_BYTES } else { 0 };
        let Some(free) = self.max_bytes.checked_sub(shares.used_bytes + bytes) else {
            return Err(PublishError::AtCapacity);
        };
        let is_over = own.unwrap_or_default() + bytes > free;
        match publisher {
            PublisherId::Address(_) if is_over => Err(PublishError::TooManyIds),
            PublisherId::Address(_) | PublisherId::Application => Ok(()),
        }
    }

    /// Adds bytes of a publisher, also over the budget: the caller calls [`Self::check`] first.
    pub fn add(&self, publisher: PublisherId, bytes: usize) {
        let mut shares = self.shares();
        let own = shares.by_publisher.get(&publisher).copied();
        shares.used_bytes += bytes + if own.is_none() { PUBLISHER_BYTES } else { 0 };
        shares.by_publisher.insert(publisher, own.unwrap_or_default() + bytes);
    }

    /// Releases bytes of a publisher.
    pub fn release(&self, publisher: PublisherId, bytes: usize) {
        let mut shares = self.shares();
        let Some(own) = shares.by_publisher.get_mut(&publisher) else { return };
        *own -= bytes;
        let is_gone = *own == 0;
        shares.used_bytes -= bytes;
        if is_gone {
            shares.by_publisher.remove(&publisher);
            shares.used_bytes -= PUBLISHER_BYTES;
        }
    }

    fn shares(&self) -> MutexGuard<'_, Shares> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u8) -> PublisherId {
        PublisherId::of_address([10, 0, 0, number].into())
    }

    /// Adds ids of one publisher until the budget refuses; returns their number.
    fn fill(budget: &IdBudget, publisher: PublisherId) -> usize {
        const ID: usize = 100;
        let mut count = 0;
        while budget.check(publisher, ID).is_ok() {
            budget.add(publisher, ID);
            count += 1;
        }
        count
    }

    #[test]
    fn each_publisher_leaves_as_much_as_it_takes() {
        let budget = IdBudget::new(10_000 * 100);
        let counts: Vec<usize> = (0..4).map(|number| fill(&budget, address(number))).collect();
        for (place, count) in counts.iter().enumerate() {
            let expected = 10_000 >> (place + 1);
            assert!(count.abs_diff(expected) < 10, "{counts:?}");
        }
        assert_eq!(budget.check(address(0), 100), Err(PublishError::TooManyIds));
        assert_eq!(budget.check(address(9), 100), Ok(()), "a newcomer finds room");
        assert!(fill(&budget, PublisherId::Application) > 500, "the application gets all the rest");
        assert_eq!(budget.check(PublisherId::Application, 100), Err(PublishError::AtCapacity));
    }

    #[test]
    fn released_bytes_are_free_again() {
        let budget = IdBudget::new(10_000);
        for publisher in [address(1), PublisherId::Application] {
            let count = fill(&budget, publisher);
            (0..count).for_each(|_| budget.release(publisher, 100));
            assert_eq!(budget.used_bytes(), 0);
        }
    }
}
