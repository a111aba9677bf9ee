//! Follower fan-out: one event for many topics, and the partitions of a chunk of followers.

use std::{collections::BTreeMap, sync::Arc};

use crate::{publish::SharedEvent, topic::Topic, user::User};

/// One event for many topics.
#[derive(Debug)]
pub struct FanOutPublish {
    /// Identifies the fan-out: a repeated one skips the topics reached before.
    pub id: Option<Arc<str>>,
    pub event: Arc<SharedEvent>,
}

/// The result of one event for many topics of a partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FannedOut {
    /// Topics reached for the first time.
    pub new: usize,
    /// Topics named by an open stream.
    pub online: usize,
}

/// A chunk of followers, by the partitions of their topics.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// The topics of the followers to notify, ascending by partition.
    pub topics: BTreeMap<u16, Vec<Topic>>,
    pub muted_count: usize,
}

impl Chunk {
    /// All followers of the chunk, muted ones included.
    pub fn follower_count(&self) -> usize {
        self.muted_count + self.topics.values().map(Vec::len).sum::<usize>()
    }

    /// Groups followers by partition. `is_muted` has one entry per follower, in their order; it is
    /// empty if nobody has muted the kind.
    pub fn new(followers: &[User], is_muted: &[bool], partition_count: u16) -> Self {
        let mut chunk = Self::default();
        for (place, follower) in followers.iter().enumerate() {
            if is_muted.get(place).copied().unwrap_or_default() {
                chunk.muted_count += 1;
                continue;
            }
            let topic = follower.notifications();
            let partition = topic.partition(partition_count);
            chunk.topics.entry(partition).or_default().push(topic);
        }
        chunk
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_holds_each_follower_once_where_its_topic_belongs() {
        let users: Vec<User> = ["ada", "bob", "cy"].map(|name| User::parse(name).unwrap()).into();
        let chunk = Chunk::new(&users, &[false, true, false], 16);
        assert_eq!(chunk.muted_count, 1);
        for (partition, topics) in &chunk.topics {
            assert!(topics.iter().all(|topic| topic.partition(16) == *partition));
        }
        let mut names: Vec<&str> = chunk.topics.values().flatten().map(Topic::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["notifications:ada", "notifications:cy"]);
    }
}
