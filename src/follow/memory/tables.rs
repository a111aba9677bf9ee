//! Followers and mutes together, as plain data: changed one by one, and restored by the same changes.

use fanfare_core::{follow::Follow, user::User};

use super::{graph::EdgeStore, kept::TableChange, mutes::Mutes};

/// A record's head and the lengths of its names.
const HEAD_BYTES: u64 = 32;

/// The followers and the muted kinds of all users.
pub(crate) struct Tables {
    pub(super) graph: EdgeStore,
    pub(super) mutes: Mutes,
    needed_bytes: u64,
}

impl Default for Tables {
    fn default() -> Self {
        let graph = EdgeStore::new(rand::random());
        Self { graph, mutes: Mutes::default(), needed_bytes: 0 }
    }
}

impl Tables {
    /// Makes a change. `true` if it changed something.
    pub fn apply(&mut self, change: &TableChange) -> bool {
        match change {
            TableChange::Follow(edge) => {
                let is_new = self.graph.follow(edge);
                self.needed_bytes += edge_bytes(edge) * u64::from(is_new);
                is_new
            }
            TableChange::Unfollow(edge) => {
                let was_there = self.graph.unfollow(edge);
                self.needed_bytes -= edge_bytes(edge) * u64::from(was_there);
                was_there
            }
            TableChange::Mute { user, kinds } => {
                self.needed_bytes -= mute_bytes(user, &self.mutes.of(user));
                self.mutes.set(user, kinds.clone());
                self.needed_bytes += mute_bytes(user, &self.mutes.of(user));
                true
            }
        }
    }

    /// Whether a change would change nothing.
    pub(super) fn is_made(&self, change: &TableChange) -> bool {
        match change {
            TableChange::Follow(edge) => self.graph.has(edge),
            TableChange::Unfollow(edge) => !self.graph.has(edge),
            TableChange::Mute { user, kinds } => self.mutes.are(user, kinds),
        }
    }

    /// Whether a change of the past is needed to restore these tables: it added something still
    /// there.
    pub(super) fn needs(&self, change: &TableChange) -> bool {
        match change {
            TableChange::Follow(edge) => self.graph.has(edge),
            TableChange::Unfollow(_) => false,
            TableChange::Mute { user, kinds } => !kinds.is_empty() && self.mutes.are(user, kinds),
        }
    }

    /// About the bytes of all needed changes in the log.
    pub fn needed_bytes(&self) -> u64 {
        self.needed_bytes
    }
}

fn edge_bytes(edge: &Follow) -> u64 {
    HEAD_BYTES + (edge.follower.as_str().len() + edge.author.as_str().len()) as u64
}

fn mute_bytes(user: &User, kinds: &[String]) -> u64 {
    if kinds.is_empty() {
        return 0;
    }
    let names: usize = kinds.iter().map(|kind| kind.len() + 2).sum();
    HEAD_BYTES + (user.as_str().len() + names) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needed_changes_alone_restore_the_tables() {
        let edge = |follower: &str| Follow::parse(follower, "author").unwrap();
        let user = User::parse("a").unwrap();
        let mute = |kinds: &[&str]| TableChange::Mute {
            user: user.clone(),
            kinds: kinds.iter().map(|kind| (*kind).to_owned()).collect(),
        };
        let changes = [
            TableChange::Follow(edge("a")),
            TableChange::Follow(edge("b")),
            mute(&["like"]),
            TableChange::Unfollow(edge("a")),
            mute(&["like", "view"]),
            TableChange::Follow(edge("c")),
        ];
        let mut tables = Tables::default();
        assert_eq!(changes.each_ref().map(|change| tables.apply(change)), [true; 6]);
        assert!(!tables.apply(&TableChange::Follow(edge("b"))));
        let needed: Vec<bool> = changes.iter().map(|change| tables.needs(change)).collect();
        assert_eq!(needed, [false, true, false, false, true, true]);
        let mut restored = Tables::default();
        changes.iter().zip(needed).filter(|(_, needed)| *needed).for_each(|(change, _)| {
            restored.apply(change);
        });
        assert!(changes[..2].iter().all(|change| restored.needs(change) == tables.needs(change)));
        assert_eq!(restored.mutes.of(&user), ["like", "view"]);
        assert_eq!(restored.needed_bytes(), tables.needed_bytes());
        for follower in ["b", "c"] {
            tables.apply(&TableChange::Unfollow(edge(follower)));
        }
        tables.apply(&mute(&[]));
        assert_eq!(tables.needed_bytes(), 0);
    }
}
