//! The assignment of topics to streams: every topic gets an even share, by arithmetic alone.

/// The topics, numbered from 0, and the number of topics per stream.
#[derive(Debug, Clone)]
pub(super) struct TopicNames {
    pub prefix: String,
    pub count: u32,
    /// At least 1, at most `count`.
    pub per_stream: u32,
}

impl TopicNames {
    pub fn name(&self, topic: u32) -> String {
        format!("{}:{topic}", self.prefix)
    }

    /// The topics of a stream. They continue after the last topic of the previous stream.
    pub fn of_stream(&self, stream: usize) -> impl Iterator<Item = u32> {
        let (first, count) = (self.first(stream), self.count);
        (0..self.per_stream).map(move |position| (first + position) % count)
    }

    /// The index of `topic` among a stream's topics, given the stream's `first` topic.
    pub fn position(&self, first: u32, topic: u32) -> Option<usize> {
        // Runs for every event, so it avoids a division.
        let from_first = if topic >= first { topic } else { topic.wrapping_add(self.count) };
        let position = from_first.wrapping_sub(first);
        (topic < self.count && position < self.per_stream).then_some(position as usize)
    }

    /// The number of streams on each topic, given the number of all streams.
    pub fn receivers(&self, streams: usize) -> Vec<u64> {
        let mut receivers = vec![0; self.count as usize];
        for topic in (0..streams).flat_map(|stream| self.of_stream(stream)) {
            receivers[topic as usize] += 1;
        }
        receivers
    }

    pub fn first(&self, stream: usize) -> u32 {
        let first = stream as u64 * u64::from(self.per_stream) % u64::from(self.count);
        u32::try_from(first).expect("less than a u32")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_has_an_even_share_of_the_streams() {
        for (count, per_stream) in [(1, 1), (7, 3), (10, 10), (12, 5)] {
            let topics = TopicNames { prefix: "bench".into(), count, per_stream };
            let receivers = topics.receivers(100);
            assert_eq!(receivers.iter().sum::<u64>(), 100 * u64::from(per_stream));
            let (least, most) = (receivers.iter().min(), receivers.iter().max());
            assert!(most.unwrap() - least.unwrap() <= 1, "{receivers:?}");
        }
    }

    #[test]
    fn a_topic_is_found_among_those_of_a_stream() {
        let topics = TopicNames { prefix: "bench".into(), count: 7, per_stream: 3 };
        for stream in 0..20 {
            let mine: Vec<u32> = topics.of_stream(stream).collect();
            for topic in 0..9 {
                let at = mine.iter().position(|other| *other == topic);
                assert_eq!(topics.position(topics.first(stream), topic), at, "{stream} {topic}");
            }
        }
    }
}
