//! Muted kinds of users, as plain data in memory.

use std::collections::{HashMap, HashSet};

use fanfare_core::user::User;

/// The preferences. A user without muted kinds has no entry.
#[derive(Default)]
pub(super) struct Mutes {
    /// The kinds of a user: sorted, without repetition, never empty.
    by_user: HashMap<User, Box<[Box<str>]>>,
    /// The users muting a kind; never empty. The reverse of `by_user`, for
    /// [`who`](Self::who).
    by_kind: HashMap<Box<str>, HashSet<User>>,
}

impl Mutes {
    /// Whether no user mutes a kind.
    pub fn is_empty(&self) -> bool {
        self.by_user.is_empty()
    }

    /// A user's muted kinds, sorted.
    pub fn of(&self, user: &User) -> Vec<String> {
        let kinds = self.by_user.get(user).map(AsRef::as_ref).unwrap_or_default();
        kinds.iter().map(|kind| kind.to_string()).collect()
    }

    /// Whether the user mutes exactly these kinds, sorted.
    pub fn are(&self, user: &User, kinds: &[String]) -> bool {
        let known = self.by_user.get(user).map(AsRef::as_ref).unwrap_or_default();
        known.iter().map(|kind| &**kind).eq(kinds.iter().map(String::as_str))
    }

    /// Replaces a user's muted kinds.
    pub fn set(&mut self, user: &User, mut kinds: Vec<String>) {
        kinds.sort_unstable();
        kinds.dedup();
        for kind in self.by_user.remove(user).unwrap_or_default() {
            if let Some(users) = self.by_kind.get_mut(&kind) {
                users.remove(user);
                if users.is_empty() {
                    self.by_kind.remove(&kind);
                }
            }
        }
        for kind in &kinds {
            self.by_kind.entry(kind.as_str().into()).or_default().insert(user.clone());
        }
        if !kinds.is_empty() {
            let kinds = kinds.into_iter().map(String::into_boxed_str).collect();
            self.by_user.insert(user.clone(), kinds);
        }
    }

    /// Whether each of these users mutes the kind, in their order.
    pub fn who(&self, kind: &str, users: &[User]) -> Vec<bool> {
        match self.by_kind.get(kind) {
            None => vec![false; users.len()],
            Some(muting) => users.iter().map(|user| muting.contains(user)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_mutes_nothing_any_more_is_forgotten() {
        let mut mutes = Mutes::default();
        let user = User::parse("a").unwrap();
        mutes.set(&user, vec!["view".into(), "like".into(), "view".into()]);
        assert_eq!(mutes.of(&user), ["like", "view"]);
        mutes.set(&user, vec!["view".into()]);
        assert_eq!(mutes.who("like", std::slice::from_ref(&user)), [false]);
        assert_eq!(mutes.who("view", std::slice::from_ref(&user)), [true]);
        mutes.set(&user, Vec::new());
        assert!(mutes.is_empty() && mutes.by_kind.is_empty());
    }
}
