//! One copy of each topic's name, and of each list of types, for all streams of a worker.

use std::collections::HashSet;

use crate::{interest::TypeFilter, topic::Topic};

/// Topics by name, and lists of types. A later sweep removes unused ones.
#[derive(Debug, Default)]
pub struct SharedNames {
    topics: HashSet<Topic>,
    types: HashSet<TypeFilter>,
    /// Topics and lists dropped by streams since the last sweep.
    left_count: usize,
}

impl SharedNames {
    /// Replaces `topic` by the shared copy of the same name. The first topic of a name becomes the
    /// shared copy.
    pub fn share_topic(&mut self, topic: &mut Topic) {
        match self.topics.get(topic) {
            Some(known) => *topic = known.clone(),
            None => {
                self.topics.insert(topic.clone());
            }
        }
    }

    /// Replaces `types` by the shared copy of the same list.
    pub fn share_types(&mut self, types: &mut TypeFilter) {
        if types.is_all() {
            return;
        }
        match self.types.get(types) {
            Some(known) => *types = known.clone(),
            None => {
                self.types.insert(types.clone());
            }
        }
    }

    /// Counts the names dropped by a stream: its topics, and its list of types if it had one.
    /// Sweeps after more drops than there are names: a sweep visits every name, so its cost per
    /// drop stays constant.
    pub fn leave(&mut self, count: usize) {
        self.left_count += count;
        if self.left_count > self.topics.len() + self.types.len() {
            self.left_count = 0;
            self.topics.retain(Topic::is_shared);
            self.topics.shrink_to(2 * self.topics.len());
            self.types.retain(TypeFilter::is_shared);
            self.types.shrink_to(2 * self.types.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_kept_once_and_as_long_as_a_stream_has_it() {
        let mut shared = SharedNames::default();
        let mut open = |name: &str| {
            let mut topic = Topic::parse(name).unwrap();
            shared.share_topic(&mut topic);
            topic
        };
        let (first, second, other) = (open("a"), open("a"), open("b"));
        assert!(std::ptr::eq(first.as_str(), second.as_str()));
        drop((first, other));
        shared.leave(2);
        assert_eq!(shared.topics.len(), 2, "too few are left to look at all");
        shared.leave(1);
        assert!(shared.topics.iter().eq([&second]));
        drop(second);
        shared.leave(2);
        assert_eq!(shared.topics.capacity(), 0);
    }

    #[test]
    fn streams_with_the_same_types_in_any_order_share_one_list() {
        let mut shared = SharedNames::default();
        let mut open = |types: &[&str]| {
            let mut filter = TypeFilter::of(types.iter().map(ToString::to_string).collect());
            shared.share_types(&mut filter);
            filter
        };
        let (first, second) = (open(&["like", "post"]), open(&["post", "like", "like"]));
        drop(open(&[]));
        assert_eq!(shared.types.len(), 1);
        assert!(first.is_shared());
        drop((first, second));
        shared.leave(2);
        assert!(shared.types.is_empty());
    }
}
