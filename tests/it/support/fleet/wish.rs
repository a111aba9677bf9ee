//! Topics, and the wishes of streams: single topics, lists, patterns.
//!
//! The topics of a pattern are written out here. Computing them could repeat a mistake of the hub.

const GROUPS: [&str; 4] = ["red", "green", "blue", "gold"];

/// Topics of a group.
const NUMBERS: usize = 6;

pub(super) const TOPIC_COUNT: usize = GROUPS.len() * NUMBERS;

/// A topic's name by its index.
pub(super) fn topic(index: usize) -> String {
    format!("fleet:{}:{}", GROUPS[index / NUMBERS], index % NUMBERS)
}

/// The subscription of one stream.
#[derive(Debug)]
pub(super) struct Wish {
    /// The query of `/events/stream`, without its `?`.
    pub query: String,
    /// By topic index.
    is_wanted: [bool; TOPIC_COUNT],
}

impl Wish {
    /// Of every ten streams, four subscribe to one topic, two to three topics, the others to
    /// patterns. One stream in thirty subscribes to everything.
    pub fn of_stream(index: usize) -> Self {
        let turn = index / 10;
        let (group, number, single) = (turn % GROUPS.len(), turn % NUMBERS, index % TOPIC_COUNT);
        let of_group = group * NUMBERS..(group + 1) * NUMBERS;
        let of_number = (0..GROUPS.len()).map(|group| group * NUMBERS + number);
        match index % 10 {
            0..=3 => Self::list(&[single]),
            4 | 5 => Self::list(&[single, (single + 5) % TOPIC_COUNT, (single + 10) % TOPIC_COUNT]),
            6 => Self::new(format!("topic=fleet:{}:*", GROUPS[group]), of_group),
            7 => Self::new(format!("topic=fleet:*:{number}"), of_number),
            // The pattern covers some of the topics listed beside it.
            8 => Self::new(
                format!("topics=fleet:{}:**,{},{}", GROUPS[group], topic(single), topic(group)),
                of_group.chain([single, group]),
            ),
            _ if turn.is_multiple_of(3) => Self::new("topic=fleet:**".to_owned(), 0..TOPIC_COUNT),
            _ => Self::list(&[single, (single + 12) % TOPIC_COUNT]),
        }
    }

    fn list(topics: &[usize]) -> Self {
        let names: Vec<String> = topics.iter().map(|index| topic(*index)).collect();
        Self::new(format!("topics={}", names.join(",")), topics.iter().copied())
    }

    fn new(query: String, topics: impl IntoIterator<Item = usize>) -> Self {
        let mut is_wanted = [false; TOPIC_COUNT];
        topics.into_iter().for_each(|index| is_wanted[index] = true);
        Self { query, is_wanted }
    }

    pub fn wants(&self, topic: usize) -> bool {
        self.is_wanted[topic]
    }
}
