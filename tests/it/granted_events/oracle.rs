//! Random patterns, and the oracle of grants: it compares patterns by all topics of a small universe.

use std::collections::BTreeSet;

/// Segments of published topics.
pub const SEGMENTS: [&str; 3] = ["a", "b", "c"];

/// Numbers from a seed.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: usize) -> usize {
        // Xorshift: any seed but 0.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }

    /// A topic or pattern of one to three segments.
    pub fn pattern(&mut self) -> String {
        let count = 1 + self.below(3);
        let segments = (0..count).map(|place| match self.below(7) {
            0 | 1 => "*",
            2 if place == count - 1 => "**",
            number => SEGMENTS[number % 3],
        });
        segments.collect::<Vec<_>>().join(":")
    }

    pub fn patterns(&mut self, most: usize) -> BTreeSet<String> {
        (0..=self.below(most)).map(|_| self.pattern()).collect()
    }
}

/// All names of up to `depth` segments.
pub fn universe(segments: &[&str], depth: usize) -> Vec<String> {
    let mut all: Vec<String> = segments.iter().map(|one| (*one).to_owned()).collect();
    let mut last = all.clone();
    for _ in 1..depth {
        let longer =
            last.iter().flat_map(|name| segments.iter().map(move |one| format!("{name}:{one}")));
        last = longer.collect();
        all.extend(last.iter().cloned());
    }
    all
}

pub fn matches(pattern: &str, topic: &str) -> bool {
    let topic: Vec<&str> = topic.split(':').collect();
    let pattern: Vec<&str> = pattern.split(':').collect();
    let is_open = pattern.last() == Some(&"**");
    let fixed = if is_open { &pattern[..pattern.len() - 1] } else { &pattern[..] };
    let has_length = if is_open { topic.len() > fixed.len() } else { topic.len() == fixed.len() };
    has_length && fixed.iter().zip(&topic).all(|(wanted, one)| *wanted == "*" || wanted == one)
}

/// Whether one granted pattern contains the whole pattern. Segments of no name stand for all others.
pub fn is_granted(grant: &BTreeSet<String>, wanted: &str) -> bool {
    let all = universe(&["a", "b", "c", "other"], 4);
    let wanted: Vec<&String> = all.iter().filter(|topic| matches(wanted, topic)).collect();
    grant.iter().any(|granted| wanted.iter().all(|topic| matches(granted, topic)))
}

pub fn chosen(subscription: &BTreeSet<String>) -> BTreeSet<String> {
    let all = universe(&SEGMENTS, 3).into_iter();
    all.filter(|topic| subscription.iter().any(|pattern| matches(pattern, topic))).collect()
}
