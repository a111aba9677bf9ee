//! Finds the patterns matching a topic: a trie over segments. A node holds a whole run of segments,
//! so a pattern takes at most two nodes, however long it is. The time depends on the topic's
//! segments and on the patterns agreeing with its beginning, not on the number of other patterns.

use std::{
    collections::BTreeSet,
    hash::{BuildHasher, RandomState},
};

use hashbrown::HashTable;
use slab::Slab;

use crate::topic::{Pattern, Topic};

type NodeId = u32;

/// Values by pattern. A value stands under each pattern at most once.
#[derive(Debug)]
pub struct PatternIndex {
    nodes: Slab<Node>,
    /// All nodes except the root, by their parent and first segment. One table for all: a table in
    /// each node would take most of the memory.
    children: HashTable<NodeId>,
    hasher: RandomState,
    #[cfg(test)]
    visited: std::sync::atomic::AtomicUsize,
}

/// A run of segments below a parent.
#[derive(Debug)]
struct Node {
    parent: NodeId,
    label: Label,
    child_count: u32,
    /// The exclusive or of the ids of all children. With one child, its id.
    children_xor: NodeId,
    /// Children beginning with `*` or `**`.
    wildcard_count: u8,
    values: Values,
}

/// The segments of a node: a part of a pattern's text. The text before it is the path to the node.
#[derive(Debug, Clone)]
struct Label {
    pattern: Pattern,
    start: u16,
    end: u16,
}

impl Label {
    fn as_str(&self) -> &str {
        &self.pattern.as_str()[usize::from(self.start)..usize::from(self.end)]
    }

    fn first_segment(&self) -> &str {
        split_first(self.as_str()).0
    }
}

/// The values of one pattern, mostly one.
#[derive(Debug, Default)]
enum Values {
    #[default]
    None,
    One(u32),
    #[expect(clippy::box_collection, reason = "most nodes have one value: one word, not three")]
    Many(Box<BTreeSet<u32>>),
}

impl Values {
    fn is_empty(&self) -> bool {
        matches!(self, Self::None)
    }

    fn for_each(&self, mut found: impl FnMut(u32)) {
        match self {
            Self::None => {}
            Self::One(value) => found(*value),
            Self::Many(values) => values.iter().copied().for_each(found),
        }
    }

    fn insert(&mut self, value: u32) {
        match self {
            Self::None => *self = Self::One(value),
            Self::One(other) => *self = Self::Many(Box::new([*other, value].into())),
            Self::Many(values) => {
                values.insert(value);
            }
        }
    }

    fn remove(&mut self, value: u32) {
        match self {
            Self::One(other) if *other == value => *self = Self::None,
            Self::None | Self::One(_) => {}
            Self::Many(values) => {
                values.remove(&value);
                if values.is_empty() {
                    *self = Self::None;
                }
            }
        }
    }
}

const ROOT: NodeId = 0;

impl Default for PatternIndex {
    fn default() -> Self {
        let mut nodes = Slab::new();
        // The root's label is never read.
        let pattern = Pattern::parse("*").expect("a wildcard is a pattern");
        nodes.insert(Node::leaf(ROOT, Label { pattern, start: 0, end: 0 }));
        Self {
            nodes,
            children: HashTable::new(),
            hasher: RandomState::new(),
            #[cfg(test)]
            visited: Default::default(),
        }
    }
}

impl Node {
    fn leaf(parent: NodeId, label: Label) -> Self {
        let values = Values::None;
        Self { parent, label, child_count: 0, children_xor: 0, wildcard_count: 0, values }
    }

    /// The parent, and whether the node begins with a wildcard.
    fn place(&self) -> (NodeId, bool) {
        (self.parent, matches!(self.label.first_segment(), "*" | "**"))
    }

    fn hash(&self, hasher: &RandomState) -> u64 {
        hasher.hash_one((self.parent, self.label.first_segment()))
    }
}

impl PatternIndex {
    /// Adds a value under a pattern.
    pub fn insert(&mut self, pattern: &Pattern, value: u32) {
        let text = pattern.as_str();
        let (mut node, mut start) = (ROOT, 0);
        while start < text.len() {
            let (segment, _) = split_first(&text[start..]);
            let Some(child) = self.child(node, segment) else {
                // A pattern has at most 256 bytes, so both offsets fit.
                let label =
                    Label { pattern: pattern.clone(), start: start as u16, end: text.len() as u16 };
                node = self.add(Node::leaf(node, label));
                break;
            };
            let common = common_segments(self.label(child), &text[start..]);
            if common < self.label(child).len() {
                self.split(child, common);
            }
            node = self.child(node, segment).expect("it was found or split off");
            start += common + 1;
        }
        self.nodes[node as usize].values.insert(value);
    }

    /// Removes the value from a pattern, if it is there.
    pub fn remove(&mut self, pattern: &Pattern, value: u32) {
        let text = pattern.as_str();
        let (mut node, mut start) = (ROOT, 0);
        while start < text.len() {
            let (segment, _) = split_first(&text[start..]);
            let Some(child) = self.child(node, segment) else { return };
            if common_segments(self.label(child), &text[start..]) < self.label(child).len() {
                return;
            }
            start += self.label(child).len() + 1;
            node = child;
        }
        self.nodes[node as usize].values.remove(value);
        self.tidy(node);
    }

    /// Calls `found` with the values of each matching pattern.
    pub fn for_each_match(&self, topic: &Topic, mut found: impl FnMut(u32)) {
        self.visit(ROOT, topic.as_str(), &mut found);
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.nodes.len() == 1 && self.children.is_empty()
    }

    /// Visits the children of a node. `remaining` is the part of the topic below it.
    fn visit(&self, node: NodeId, remaining: &str, found: &mut impl FnMut(u32)) {
        #[cfg(test)]
        self.visited.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let (segment, _) = split_first(remaining);
        let wildcards = if self.nodes[node as usize].wildcard_count > 0 { 2 } else { 0 };
        for segment in [segment, "*", "**"].into_iter().take(1 + wildcards) {
            let Some(child) = self.child(node, segment) else { continue };
            match match_label(self.label(child), remaining) {
                LabelMatch::None => {}
                LabelMatch::Whole => self.nodes[child as usize].values.for_each(&mut *found),
                LabelMatch::Begin(rest) => self.visit(child, rest, found),
            }
        }
    }

    fn label(&self, node: NodeId) -> &str {
        self.nodes[node as usize].label.as_str()
    }

    fn child(&self, parent: NodeId, segment: &str) -> Option<NodeId> {
        let nodes = &self.nodes;
        let is_it = |id: &NodeId| {
            let node = &nodes[*id as usize];
            node.parent == parent && node.label.first_segment() == segment
        };
        self.children.find(self.hasher.hash_one((parent, segment)), is_it).copied()
    }

    /// Adds a node below its parent.
    fn add(&mut self, node: Node) -> NodeId {
        // More nodes than ids need more memory than machines have.
        let id = self.nodes.insert(node) as NodeId;
        self.link(id);
        id
    }

    /// Makes a node findable from its parent.
    fn link(&mut self, id: NodeId) {
        let (parent, is_wildcard) = self.nodes[id as usize].place();
        let parent = &mut self.nodes[parent as usize];
        parent.child_count += 1;
        parent.children_xor ^= id;
        parent.wildcard_count += u8::from(is_wildcard);
        let (nodes, hasher) = (&self.nodes, &self.hasher);
        let hash = |id: &NodeId| nodes[*id as usize].hash(hasher);
        self.children.insert_unique(hash(&id), id, hash);
    }

    fn unlink(&mut self, id: NodeId) {
        let hash = self.nodes[id as usize].hash(&self.hasher);
        if let Ok(entry) = self.children.find_entry(hash, |other| *other == id) {
            entry.remove();
        }
        let (parent, is_wildcard) = self.nodes[id as usize].place();
        let parent = &mut self.nodes[parent as usize];
        parent.child_count -= 1;
        parent.children_xor ^= id;
        parent.wildcard_count -= u8::from(is_wildcard);
    }

    /// Puts a node with the first `length` bytes of the label between a node and its parent.
    fn split(&mut self, id: NodeId, length: usize) {
        self.unlink(id);
        let node = &self.nodes[id as usize];
        let (parent, mut label) = (node.parent, node.label.clone());
        label.end = label.start + length as u16;
        let start = label.end + 1;
        let between = self.add(Node::leaf(parent, label));
        self.relink(id, between, start);
    }

    fn relink(&mut self, id: NodeId, parent: NodeId, label_start: u16) {
        let node = &mut self.nodes[id as usize];
        (node.parent, node.label.start) = (parent, label_start);
        self.link(id);
    }

    /// Removes a node without use, or joins it with its only child; then the same for its parent.
    fn tidy(&mut self, id: NodeId) {
        let node = &self.nodes[id as usize];
        if id == ROOT || !node.values.is_empty() || node.child_count > 1 {
            return;
        }
        let (parent, start) = (node.parent, node.label.start);
        let child = (node.child_count == 1).then_some(node.children_xor);
        if let Some(child) = child {
            self.unlink(child);
        }
        self.unlink(id);
        self.nodes.remove(id as usize);
        match child {
            // The path is a part of the child's own text, so its label only begins earlier.
            Some(child) => self.relink(child, parent, start),
            None => self.tidy(parent),
        }
        self.shrink();
    }

    /// Frees the table's memory after most nodes have gone.
    fn shrink(&mut self) {
        if self.children.capacity() > 4 * self.children.len() + 64 {
            let (nodes, hasher) = (&self.nodes, &self.hasher);
            let count = 2 * self.children.len();
            self.children.shrink_to(count, |id| nodes[*id as usize].hash(hasher));
        }
    }
}

/// A label against the part of a topic below the parent.
enum LabelMatch<'a> {
    None,
    /// The topic ends with the label.
    Whole,
    /// The label covers the beginning; the rest.
    Begin(&'a str),
}

fn match_label<'a>(label: &str, topic: &'a str) -> LabelMatch<'a> {
    let mut rest = Some(topic);
    for wanted in label.split(':') {
        let Some(remaining) = rest else { return LabelMatch::None };
        let (segment, next) = split_first(remaining);
        match wanted {
            "**" => return LabelMatch::Whole,
            "*" => {}
            wanted if wanted == segment => {}
            _ => return LabelMatch::None,
        }
        rest = next;
    }
    rest.map_or(LabelMatch::Whole, LabelMatch::Begin)
}

fn split_first(text: &str) -> (&str, Option<&str>) {
    match text.split_once(':') {
        Some((segment, rest)) => (segment, Some(rest)),
        None => (text, None),
    }
}

/// The bytes of the segments at the beginning of both.
fn common_segments(one: &str, other: &str) -> usize {
    let mut length = 0;
    for (segment, same) in one.split(':').zip(other.split(':')) {
        if segment != same {
            break;
        }
        length += segment.len() + usize::from(length > 0);
    }
    length
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn segments(choice: &'static [&'static str]) -> impl Strategy<Value = Vec<&'static str>> {
        prop::collection::vec(prop::sample::select(choice), 1..9)
    }

    fn pattern() -> impl Strategy<Value = Pattern> {
        (segments(&["a", "b", "bb", "*"]), any::<bool>()).prop_map(|(mut segments, open)| {
            if open {
                segments.push("**");
            }
            Pattern::parse(&segments.join(":")).unwrap()
        })
    }

    fn topic(name: &str) -> Topic {
        Topic::parse(name).unwrap()
    }

    fn index_of(patterns: impl Iterator<Item = String>) -> PatternIndex {
        let mut index = PatternIndex::default();
        for (value, pattern) in (0..).zip(patterns) {
            index.insert(&Pattern::parse(&pattern).unwrap(), value);
        }
        index
    }

    /// The values found, and the nodes visited.
    fn find(index: &PatternIndex, name: &str) -> (Vec<u32>, usize) {
        index.visited.store(0, std::sync::atomic::Ordering::Relaxed);
        let mut found = Vec::new();
        index.for_each_match(&topic(name), |value| found.push(value));
        found.sort_unstable();
        (found, index.visited.load(std::sync::atomic::Ordering::Relaxed))
    }

    proptest! {
        #[test]
        fn finds_just_the_patterns_that_match_one_by_one(
            patterns in prop::collection::vec((pattern(), any::<bool>()), 0..20),
            name in segments(&["a", "b", "bb", "c"]),
        ) {
            let name = name.join(":");
            let mut index = PatternIndex::default();
            for (value, (pattern, _)) in (0..).zip(&patterns) {
                index.insert(pattern, value);
            }
            for (value, (pattern, is_kept)) in (0..).zip(&patterns) {
                if !is_kept {
                    index.remove(pattern, value);
                }
            }
            let matching = (0..).zip(&patterns);
            let matching =
                matching.filter(|(_, (pattern, is_kept))| *is_kept && pattern.matches(&name));
            let expected: Vec<u32> = matching.map(|(value, _)| value).collect();
            prop_assert_eq!(find(&index, &name).0, expected);
            // A node for each kept pattern, and one for each place where two of them part.
            let kept = patterns.iter().filter(|(_, is_kept)| *is_kept).count();
            prop_assert!(index.nodes.len() <= 1 + 2 * kept);
            if kept == 0 {
                prop_assert!(index.is_empty());
            }
        }
    }

    #[test]
    fn patterns_that_do_not_match_cost_an_event_nothing() {
        for depth in [1, 4, 20] {
            let prefix = "a:".repeat(depth);
            let name = format!("{prefix}x:y");
            let visited = |count: usize| {
                let others = (0..count).map(|number| format!("{prefix}n{number}:*"));
                let index = index_of([format!("{prefix}x:*")].into_iter().chain(others));
                let (found, visited) = find(&index, &name);
                assert_eq!(found, [0]);
                visited
            };
            assert!(visited(10_000) <= visited(10) && visited(10_000) < 5);
        }
    }

    #[test]
    fn a_long_pattern_takes_as_much_memory_as_a_short_one() {
        let long = index_of((0..1000).map(|number| format!("n{number}:{}*", "a:".repeat(100))));
        assert!(long.nodes.len() <= 1001);
    }

    #[test]
    fn a_value_of_a_crowded_pattern_is_removed_without_a_scan() {
        let pattern = Pattern::parse("a:*").unwrap();
        let mut index = PatternIndex::default();
        (0..10_000).for_each(|value| index.insert(&pattern, value));
        assert_eq!(find(&index, "a:b").0.len(), 10_000);
        (0..10_000).for_each(|value| index.remove(&pattern, value));
        assert!(index.is_empty());
    }
}
