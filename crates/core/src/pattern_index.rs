//! Finds the patterns matching a topic. The time depends on the topic's segments, not on the number
//! of patterns: a trie over the first segments.

use std::collections::HashMap;

use crate::topic::{Pattern, Topic};

/// Values by pattern. A value may stand under several patterns, and several times under one.
#[derive(Debug)]
pub struct PatternIndex<V> {
    root: PatternNode<V>,
}

#[derive(Debug)]
struct PatternNode<V> {
    literal: HashMap<Box<str>, PatternNode<V>>,
    /// Behind `*`.
    any: Option<Box<PatternNode<V>>>,
    /// Values of patterns ending here.
    here: Vec<V>,
    /// Values of patterns ending here in `**`.
    rest: Vec<V>,
    /// Patterns deeper than the trie, tried one by one. A node for every segment of long patterns
    /// would let a few patterns take much memory.
    deep: Vec<(Pattern, V)>,
}

/// Depth of the trie: more segments than topics usually have.
const MAX_DEPTH: usize = 6;

impl<V> Default for PatternIndex<V> {
    fn default() -> Self {
        Self { root: PatternNode::default() }
    }
}

impl<V> Default for PatternNode<V> {
    fn default() -> Self {
        Self {
            literal: HashMap::new(),
            any: None,
            here: Vec::new(),
            rest: Vec::new(),
            deep: Vec::new(),
        }
    }
}

impl<V: Copy + Eq> PatternIndex<V> {
    /// Adds a value under a pattern.
    pub fn insert(&mut self, pattern: &Pattern, value: V) {
        let mut node = &mut self.root;
        for (depth, segment) in pattern.as_str().split(':').enumerate() {
            if depth == MAX_DEPTH {
                return node.deep.push((pattern.clone(), value));
            }
            node = match segment {
                "**" => return node.rest.push(value),
                "*" => node.any.get_or_insert_default(),
                literal => node.literal.entry(literal.into()).or_default(),
            };
        }
        node.here.push(value);
    }

    /// Removes the value from a pattern, if it is there. Of several equal values, removes one.
    pub fn remove(&mut self, pattern: &Pattern, value: V) {
        self.root.remove(0, pattern, &mut pattern.as_str().split(':'), value);
    }

    /// Calls `found` with the value of each matching pattern.
    pub fn for_each_match(&self, topic: &Topic, mut found: impl FnMut(V)) {
        self.root.visit(topic, topic.as_str(), &mut found);
    }

    pub fn is_empty(&self) -> bool {
        self.root.is_empty()
    }
}

impl<V: Copy + Eq> PatternNode<V> {
    /// `remaining` is the part of the topic below this node.
    fn visit(&self, topic: &Topic, remaining: &str, found: &mut impl FnMut(V)) {
        self.rest.iter().copied().for_each(&mut *found);
        for (pattern, value) in &self.deep {
            if pattern.matches(topic.as_str()) {
                found(*value);
            }
        }
        let (segment, rest) = match remaining.split_once(':') {
            Some((segment, rest)) => (segment, Some(rest)),
            None => (remaining, None),
        };
        for next in self.literal.get(segment).into_iter().chain(self.any.as_deref()) {
            match rest {
                Some(rest) => next.visit(topic, rest, found),
                None => next.here.iter().copied().for_each(&mut *found),
            }
        }
    }

    /// Removes a value, and the nodes left empty.
    fn remove<'a>(
        &mut self,
        depth: usize,
        pattern: &Pattern,
        segments: &mut impl Iterator<Item = &'a str>,
        value: V,
    ) {
        match segments.next() {
            None => remove_one(&mut self.here, &value),
            Some(_) if depth == MAX_DEPTH => remove_one(&mut self.deep, &(pattern.clone(), value)),
            Some("**") => remove_one(&mut self.rest, &value),
            Some("*") => {
                if let Some(any) = &mut self.any {
                    any.remove(depth + 1, pattern, segments, value);
                    if any.is_empty() {
                        self.any = None;
                    }
                }
            }
            Some(literal) => {
                if let Some(next) = self.literal.get_mut(literal) {
                    next.remove(depth + 1, pattern, segments, value);
                    if next.is_empty() {
                        self.literal.remove(literal);
                    }
                }
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.literal.is_empty()
            && self.any.is_none()
            && self.here.is_empty()
            && self.rest.is_empty()
            && self.deep.is_empty()
    }
}

fn remove_one<V: Eq>(values: &mut Vec<V>, value: &V) {
    if let Some(index) = values.iter().position(|other| other == value) {
        values.swap_remove(index);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn segments(choice: &'static [&'static str]) -> impl Strategy<Value = Vec<&'static str>> {
        prop::collection::vec(prop::sample::select(choice), 1..MAX_DEPTH + 3)
    }

    fn pattern() -> impl Strategy<Value = Pattern> {
        (segments(&["a", "b", "*"]), any::<bool>()).prop_map(|(mut segments, open)| {
            if open {
                segments.push("**");
            }
            Pattern::parse(&segments.join(":")).unwrap()
        })
    }

    proptest! {
        #[test]
        fn finds_just_the_patterns_that_match_one_by_one(
            patterns in prop::collection::vec((pattern(), any::<bool>()), 0..12),
            topic in segments(&["a", "b", "c"]),
        ) {
            let topic = Topic::parse(&topic.join(":")).unwrap();
            let mut index = PatternIndex::default();
            for (value, (pattern, _)) in patterns.iter().enumerate() {
                index.insert(pattern, value);
            }
            for (value, (pattern, keep)) in patterns.iter().enumerate() {
                if !keep {
                    index.remove(pattern, value);
                }
            }
            let mut found = Vec::new();
            index.for_each_match(&topic, |value| found.push(value));
            found.sort_unstable();
            let matches = |(pattern, keep): &(Pattern, bool)| *keep && pattern.matches(topic.as_str());
            let expected: Vec<usize> =
                (0..patterns.len()).filter(|value| matches(&patterns[*value])).collect();
            prop_assert_eq!(found, expected);
            if patterns.iter().all(|(_, keep)| !keep) {
                prop_assert!(index.is_empty());
            }
        }
    }
}
