//! The names of keys, and which of them lie together.

use fanfare_core::{follow::Direction, topic::partition_of, user::User};

/// Parts that users are spread over: what is of one part is in one slot of a cluster. A
/// power of two, and the same on every instance for ever.
pub(super) const SHARD_COUNT: u16 = 1024;

/// The part that a user belongs to.
pub(super) fn shard(user: &User) -> u16 {
    partition_of(user.as_str(), SHARD_COUNT)
}

/// Makes names of keys. All are `<prefix>:{<shard>}:<what>:<whose>`, and names in them may
/// have braces: a slot is that of the first pair.
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

    /// The kinds that a user has muted.
    pub fn mutes(&self, user: &User) -> String {
        self.key(shard(user), "mutes", user.as_str())
    }

    /// The users of a shard that have muted a kind.
    pub fn muting(&self, shard: u16, kind: &str) -> String {
        self.key(shard, "muting", kind)
    }
}
