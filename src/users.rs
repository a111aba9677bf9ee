//! The shares of users: open streams and publishes a second of each user with a grant. Anonymous
//! callers and callers without access control have none; their addresses have shares.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use fanfare_core::user::User;
use governor::Quota;
use parking_lot::Mutex;

use crate::{
    addresses::ShareInUse,
    clock::{HubClock, Limit},
};

/// Users before the first sweep of unused ones.
const MIN_SWEEP: usize = 1024;

/// All users with an open stream, and some of the last ones.
pub(crate) struct Users {
    max_streams: usize,
    publishes_per_second: Option<NonZeroU32>,
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    by_user: HashMap<User, Arc<Account>>,
    /// The number of users at the next sweep: its cost for each new user stays constant.
    sweep_at: usize,
}

#[derive(Debug)]
struct Account {
    streams: AtomicUsize,
    publishes: Option<Limit>,
}

/// One open stream of a user. Dropping it returns the share.
#[derive(Debug)]
pub(crate) struct UserShare(Arc<Account>);

impl Users {
    /// 0 is no limit.
    pub fn new(max_streams: usize, publishes_per_second: u32) -> Self {
        let publishes_per_second = NonZeroU32::new(publishes_per_second);
        Self { max_streams, publishes_per_second, entries: Mutex::default() }
    }

    /// Takes a stream's share.
    pub fn open_stream(&self, user: Option<&User>) -> Result<Option<UserShare>, ShareInUse> {
        let Some(user) = user.filter(|_| self.max_streams > 0) else { return Ok(None) };
        let account = self.account(user);
        let before = account.streams.fetch_add(1, Ordering::Relaxed);
        let share = UserShare(account);
        // Dropping the share returns it.
        if before >= self.max_streams { Err(ShareInUse) } else { Ok(Some(share)) }
    }

    /// Counts the events of a publish. More events than a second's share count as this share:
    /// otherwise a long array would never be accepted.
    pub fn publish(&self, user: Option<&User>, events: usize) -> Result<(), ShareInUse> {
        let (Some(user), Some(most)) = (user, self.publishes_per_second) else { return Ok(()) };
        let events = u32::try_from(events).unwrap_or(u32::MAX).min(most.get());
        let Some(events) = NonZeroU32::new(events) else { return Ok(()) };
        let account = self.account(user);
        let Some(publishes) = &account.publishes else { return Ok(()) };
        match publishes.check_n(events) {
            Ok(Ok(())) => Ok(()),
            _ => Err(ShareInUse),
        }
    }

    fn account(&self, user: &User) -> Arc<Account> {
        let mut entries = self.entries.lock();
        if let Some(account) = entries.by_user.get(user) {
            return account.clone();
        }
        if entries.by_user.len() >= entries.sweep_at.max(MIN_SWEEP) {
            entries.by_user.retain(|_, account| Arc::strong_count(account) > 1);
            entries.sweep_at = 2 * entries.by_user.len();
        }
        let publishes = self.publishes_per_second.map(Quota::per_second);
        let publishes = publishes.map(|quota| Limit::direct_with_clock(quota, HubClock));
        let account = Arc::new(Account { streams: AtomicUsize::new(0), publishes });
        entries.by_user.insert(user.clone(), account.clone());
        account
    }
}

impl Drop for UserShare {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> User {
        User::parse(name).unwrap()
    }

    #[test]
    fn each_user_has_its_own_share_and_gets_it_back() {
        let users = Users::new(2, 0);
        let (ann, bob) = (user("ann"), user("bob"));
        let first = users.open_stream(Some(&ann)).unwrap();
        let _second = users.open_stream(Some(&ann)).unwrap();
        assert!(users.open_stream(Some(&ann)).is_err());
        assert!(users.open_stream(Some(&bob)).is_ok());
        drop(first);
        assert!(users.open_stream(Some(&ann)).is_ok());
        assert!((0..9).all(|_| users.open_stream(None).is_ok()));
    }

    #[test]
    fn publishes_have_a_rate() {
        let users = Users::new(0, 2);
        let (ann, bob) = (user("ann"), user("bob"));
        assert_eq!([users.publish(Some(&ann), 1), users.publish(Some(&ann), 1)], [Ok(()), Ok(())]);
        assert_eq!(users.publish(Some(&ann), 1), Err(ShareInUse));
        assert_eq!([users.publish(Some(&bob), 9), users.publish(None, 9)], [Ok(()), Ok(())]);
        assert_eq!(users.publish(Some(&bob), 1), Err(ShareInUse));
    }

    #[test]
    fn unused_users_are_forgotten() {
        let users = Users::new(2, 0);
        let _held = users.open_stream(Some(&user("held"))).unwrap();
        for number in 0..10 * MIN_SWEEP {
            let _share = users.open_stream(Some(&user(&number.to_string())));
        }
        let entries = users.entries.lock();
        assert!(entries.by_user.len() <= MIN_SWEEP);
        assert!(entries.by_user.contains_key(&user("held")));
    }
}
