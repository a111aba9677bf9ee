//! One copy of each topic's name for all streams of a worker.

use std::collections::HashSet;

use crate::topic::Topic;

/// Topics by name. A later sweep removes unused topics.
#[derive(Debug, Default)]
pub struct SharedTopics {
    topics: HashSet<Topic>,
    /// Topics dropped by streams since the last sweep.
    left_count: usize,
}

impl SharedTopics {
    /// Replaces `topic` by the shared copy of the same name. The first topic of a name becomes the
    /// shared copy.
    pub fn share(&mut self, topic: &mut Topic) {
        match self.topics.get(topic) {
            Some(known) => *topic = known.clone(),
            None => {
                self.topics.insert(topic.clone());
            }
        }
    }

    /// Counts topics dropped by a stream. Sweeps after more drops than there are topics: a sweep
    /// visits every topic, so its cost per drop stays constant.
    pub fn leave(&mut self, count: usize) {
        self.left_count += count;
        if self.left_count > self.topics.len() {
            self.left_count = 0;
            self.topics.retain(Topic::is_shared);
            self.topics.shrink_to(2 * self.topics.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_kept_once_and_as_long_as_a_stream_has_it() {
        let mut shared = SharedTopics::default();
        let mut open = |name: &str| {
            let mut topic = Topic::parse(name).unwrap();
            shared.share(&mut topic);
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
}
