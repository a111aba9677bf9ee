//! The names of keys, and their shards.

use fanfare_core::{follow::Direction, topic::partition_of, user::User};

/// Number of shards, a power of two. All keys of a shard are in one slot of a Redis Cluster. Key
/// names contain the shard, so the number is equal on all instances and never changes.
pub(super) const SHARD_COUNT: u16 = 1024;

/// The shard of a user's keys.
pub(super) fn shard(user: &User) -> u16 {
    partition_of(user.as_str(), SHARD_COUNT)
}

/// Builds key names, `<prefix>:{<shard>}:<kind>:<owner>`. The owner may have braces: Redis takes
/// the slot from the first pair.
#[derive(Debug)]
pub(super) struct Keys {
    prefix: String,
}

impl Keys {
    pub fn new(prefix: String) -> Self {
        Self { prefix }
    }

    fn key(&self, shard: u16, what: &str, whose: &str) -> String {
        format!("{}:{{{shard}}}:{what}:{whose}", self.prefix)
    }

    /// The three keys of a set, in the order of `set.lua`: first bucket, index, count.
    pub fn set(&self, user: &User, direction: Direction) -> [String; 3] {
        let names = match direction {
            Direction::Followers => ["followers", "followers-index", "followers-count"],
            Direction::Following => ["following", "following-index", "following-count"],
        };
        names.map(|what| self.key(shard(user), what, user.as_str()))
    }

    /// The key of a ticket.
    pub fn ticket(&self, shard: u16, name: &str) -> String {
        self.key(shard, "ticket", name)
    }

    /// The key of the names of an owner's tickets.
    pub fn tickets(&self, shard: u16, owner: &str) -> String {
        self.key(shard, "tickets", owner)
    }

    /// The key of the revocations.
    pub fn revocations(&self, shard: u16) -> String {
        self.key(shard, "revocations", "")
    }

    /// The key of the kinds muted by a user.
    pub fn mutes(&self, user: &User) -> String {
        self.key(shard(user), "mutes", user.as_str())
    }

    /// The key of a shard's users with this kind muted.
    pub fn muting(&self, shard: u16, kind: &str) -> String {
        self.key(shard, "muting", kind)
    }
}
