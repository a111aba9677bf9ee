//! The revocations in force on this instance. All instances keep the same ones.

mod reads;

use std::{
    collections::HashMap,
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use fanfare_core::access::{Credential, Grant, Revocation, Revoked};
use parking_lot::RwLock;

use self::reads::Reads;

/// All revocations, until their tokens have ended.
pub(crate) struct Revocations {
    kept: Duration,
    max_count: usize,
    /// The number of revocations: without any, nothing is locked.
    count: AtomicUsize,
    all: RwLock<All>,
    /// False until the kept revocations are read.
    is_loaded: AtomicBool,
    /// None if this process alone has all revocations.
    reads: OnceLock<Reads>,
}

#[derive(Default)]
struct All {
    by_token: HashMap<String, Revocation>,
    /// At most one with a time and one without, for each user.
    by_user: HashMap<String, Vec<Revocation>>,
    /// The number of revocations at the next sweep of old ones.
    sweep_at: usize,
}

/// No room for a further revocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

impl Revocations {
    pub fn new(kept: Duration, max_count: usize) -> Self {
        let (count, is_loaded) = (AtomicUsize::new(0), AtomicBool::new(true));
        let (all, reads) = (RwLock::default(), OnceLock::new());
        Self { kept, max_count, count, all, is_loaded, reads }
    }

    /// The time before which revocations may be forgotten, in milliseconds since 1970.
    pub fn oldest_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.kept.as_millis() as u64)
    }

    /// Whether the kept revocations are read. Before, no token can be admitted.
    pub fn is_loaded(&self) -> bool {
        self.is_loaded.load(Ordering::Acquire)
    }

    pub fn set_loaded(&self) {
        self.is_loaded.store(true, Ordering::Release);
    }

    /// The revocations are kept elsewhere too: a reader reads them from here on.
    pub fn keep_elsewhere(&self) -> &Reads {
        self.is_loaded.store(false, Ordering::Release);
        self.reads.get_or_init(Reads::default)
    }

    /// The reads of revocations kept elsewhere.
    pub fn reads(&self) -> Option<&Reads> {
        self.reads.get()
    }

    /// Whether this revocation, or one covering as much, is in force.
    pub fn includes(&self, revocation: &Revocation) -> bool {
        self.all.read().includes(revocation)
    }

    /// Whether exactly this revocation is in force.
    #[cfg(feature = "log")]
    pub fn holds(&self, revocation: &Revocation) -> bool {
        let all = self.all.read();
        match &revocation.revoked {
            Revoked::TokenId(id) => all.by_token.get(id) == Some(revocation),
            Revoked::User { user, .. } => {
                all.by_user.get(user).is_some_and(|of_user| of_user.contains(revocation))
            }
        }
    }

    /// Whether a revocation more has room.
    pub fn has_room(&self) -> bool {
        self.count.load(Ordering::Relaxed) < self.max_count
    }

    /// Refuses the revoked tokens from here on.
    ///
    /// # Errors
    /// No room.
    pub fn add(&self, revocation: Revocation) -> Result<(), Full> {
        let mut all = self.all.write();
        let count = all.count();
        if count >= all.sweep_at.max(1024) {
            let oldest = self.oldest_ms(revocation.at_ms);
            all.forget_before(oldest);
            all.sweep_at = 2 * all.count();
        }
        if all.count() >= self.max_count && !all.has(&revocation) {
            return Err(Full);
        }
        all.insert(revocation);
        self.count.store(all.count(), Ordering::Release);
        Ok(())
    }

    /// Whether the grant is of a revoked token.
    pub fn covers(&self, grant: &Grant) -> bool {
        if self.count.load(Ordering::Acquire) == 0 {
            return false;
        }
        let all = self.all.read();
        let of_token = match grant.credential() {
            Credential::Token { id: Some(id), .. } => all.by_token.get(&**id),
            _ => None,
        };
        let of_user = grant.user().and_then(|user| all.by_user.get(user.as_str()));
        of_token.into_iter().chain(of_user.into_iter().flatten()).any(|one| one.covers(grant))
    }
}

impl All {
    fn count(&self) -> usize {
        self.by_token.len() + self.by_user.values().map(Vec::len).sum::<usize>()
    }

    fn has(&self, revocation: &Revocation) -> bool {
        match &revocation.revoked {
            Revoked::TokenId(id) => self.by_token.contains_key(id),
            Revoked::User { user, .. } => self.by_user.contains_key(user),
        }
    }

    fn includes(&self, revocation: &Revocation) -> bool {
        match &revocation.revoked {
            Revoked::TokenId(id) => self.by_token.contains_key(id),
            Revoked::User { user, .. } => {
                let of_user = self.by_user.get(user);
                of_user.into_iter().flatten().any(|one| {
                    let (known, asked) = (reach(one), reach(revocation));
                    known.0 == asked.0 && known >= asked
                })
            }
        }
    }

    /// Adds a revocation, unless an earlier one covers more.
    fn insert(&mut self, revocation: Revocation) {
        match &revocation.revoked {
            Revoked::TokenId(id) => {
                self.by_token.insert(id.clone(), revocation);
            }
            Revoked::User { user, issued_before_s } => {
                let of_user = self.by_user.entry(user.clone()).or_default();
                let kind = issued_before_s.is_some();
                match of_user.iter_mut().find(|one| reach(one).0 == kind) {
                    Some(known) if reach(known) >= reach(&revocation) => {}
                    Some(known) => *known = revocation,
                    None => of_user.push(revocation),
                }
            }
        }
    }

    fn forget_before(&mut self, oldest_ms: u64) {
        self.by_token.retain(|_, one| one.at_ms >= oldest_ms);
        self.by_user.retain(|_, of_user| {
            of_user.retain(|one| one.at_ms >= oldest_ms);
            !of_user.is_empty()
        });
    }
}

/// Whether the revocation of a user has a time of its own, and the time it reaches.
fn reach(one: &Revocation) -> (bool, u64) {
    match &one.revoked {
        Revoked::User { issued_before_s: Some(before_s), .. } => (true, *before_s),
        _ => (false, one.at_ms),
    }
}

#[cfg(test)]
mod tests {
    use fanfare_core::access::parse_user;

    use super::*;

    fn grant(user: &str, id: &str, issued_at_s: u64) -> Grant {
        let credential = Credential::Token { id: Some(id.into()), issued_at_s: Some(issued_at_s) };
        Grant::new(Some(parse_user(user).unwrap()), credential, [])
    }

    fn of_user(user: &str, issued_before_s: Option<u64>, at_ms: u64) -> Revocation {
        Revocation { revoked: Revoked::User { user: user.into(), issued_before_s }, at_ms }
    }

    #[test]
    fn the_widest_revocations_stay() {
        let all = Revocations::new(Duration::from_secs(3600), 10);
        assert!(!all.covers(&grant("42", "a", 1)));
        for revocation in [
            of_user("42", None, 5000),
            of_user("42", None, 4000),
            of_user("42", Some(20), 5000),
            Revocation { revoked: Revoked::TokenId("b".into()), at_ms: 5000 },
        ] {
            all.add(revocation).unwrap();
        }
        assert_eq!(all.all.read().count(), 3);
        assert!(all.covers(&grant("42", "a", 5)) && all.covers(&grant("42", "a", 19)));
        assert!(!all.covers(&grant("42", "a", 20)) && !all.covers(&grant("43", "a", 1)));
        assert!(all.covers(&grant("43", "b", 99)));
    }

    #[test]
    fn their_number_is_bounded_and_old_ones_are_forgotten() {
        let all = Revocations::new(Duration::from_secs(1), 2000);
        for number in 0..2000 {
            all.add(of_user(&number.to_string(), None, 0)).unwrap();
        }
        assert_eq!(all.add(of_user("x", None, 0)), Err(Full));
        all.add(of_user("1", None, 1)).unwrap();
        all.all.write().sweep_at = 0;
        all.add(of_user("x", None, 10_000)).unwrap();
        assert_eq!(all.all.read().count(), 1);
    }
}
