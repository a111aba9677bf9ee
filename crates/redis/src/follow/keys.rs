//! Names of keys, and their placement in slots.

use fanfare_core::{follow::Direction, topic::partition_of, user::User};

/// Shards of users: one shard is in one slot of a cluster. A power of two, equal on all instances
/// forever.
pub(super) const SHARD_COUNT: u16 = 1024;

/// The shard of a user.
pub(super) fn shard(user: &User) -> u16 {
    partition_of(user.as_str(), SHARD_COUNT)
}

/// Builds key names, `<prefix>:{<shard>}:<kind>:<owner>`. Names in them may have braces: the slot
/// comes from the first pair.
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

    /// The three keys of a set, as `set.lua` takes them.
    pub fn set(&self, user: &User, direction: Direction) -> [String; 3] {
        let names = match direction {
            Direction::Followers => ["followers", "followers-index", "followers-count"],
            Direction::Following => ["following", "following-index", "following-count"],
        };
        names.map(|what| self.key(shard(user), what, user.as_str()))
    }

    /// The kinds muted by a user.
    pub fn mutes(&self, user: &User) -> String {
        self.key(shard(user), "mutes", user.as_str())
    }

    /// The users of a shard with a kind muted.
    pub fn muting(&self, shard: u16, kind: &str) -> String {
        self.key(shard, "muting", kind)
    }
}
