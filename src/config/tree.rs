//! A layer as a tree: its leaves by full key, and the overlay of a leaf on another tree. The only
//! key known here is the list `topics`.

use std::fmt;

use serde_json::{Map, Value};

/// The only list with entries of keys; any other list is a value.
pub(super) const LIST: &str = "topics";

/// One step of a key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum KeySegment {
    Name(String),
    Index(usize),
}

/// A key from the root, shown as `topics[2].flush`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key(pub(super) Vec<KeySegment>);

impl Key {
    /// A key of names, without an index.
    pub(super) fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        Self(names.into_iter().map(|name| KeySegment::Name(name.into())).collect())
    }

    /// This key and one more step.
    pub(super) fn then(&self, segment: KeySegment) -> Self {
        let mut key = self.clone();
        key.0.push(segment);
        key
    }

    /// The first `count` steps.
    pub(super) fn start(&self, count: usize) -> Self {
        Self(self.0.iter().take(count).cloned().collect())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, segment) in self.0.iter().enumerate() {
            match segment {
                KeySegment::Name(name) if position == 0 => to.write_str(name)?,
                KeySegment::Name(name) => write!(to, ".{name}")?,
                KeySegment::Index(index) => write!(to, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// All leaves of a layer, in the order of their keys. An empty section is a leaf too: its name may
/// be unknown.
pub(super) fn leaves(tree: &Value) -> Vec<(Key, Value)> {
    let mut leaves = Vec::new();
    collect(tree, &Key(Vec::new()), &mut leaves);
    leaves.sort_by(|(one, _), (other, _)| one.cmp(other));
    leaves
}

fn collect(node: &Value, key: &Key, leaves: &mut Vec<(Key, Value)>) {
    match node {
        Value::Object(section) if !section.is_empty() || key.0.is_empty() => {
            for (name, child) in section {
                collect(child, &key.then(KeySegment::Name(name.clone())), leaves);
            }
        }
        Value::Array(entries) if !entries.is_empty() && *key == Key::of([LIST]) => {
            for (index, child) in entries.iter().enumerate() {
                collect(child, &key.then(KeySegment::Index(index)), leaves);
            }
        }
        leaf => leaves.push((key.clone(), leaf.clone())),
    }
}

/// Puts `value` under `key`, and makes missing sections on the way. An empty section over a section
/// changes nothing.
pub(super) fn lay(tree: &mut Value, key: &[KeySegment], value: Value) {
    let Some((first, rest)) = key.split_first() else {
        let changes_nothing = tree.is_object() && value.as_object().is_some_and(Map::is_empty);
        if !changes_nothing {
            *tree = value;
        }
        return;
    };
    match first {
        KeySegment::Name(name) => lay(child_of(tree, name), rest, value),
        KeySegment::Index(index) => lay(entry_of(tree, *index), rest, value),
    }
}

fn child_of<'a>(node: &'a mut Value, name: &str) -> &'a mut Value {
    if !node.is_object() {
        *node = Value::Object(Map::new());
    }
    &mut node[name]
}

fn entry_of(node: &mut Value, index: usize) -> &mut Value {
    if !node.is_array() {
        *node = Value::Array(Vec::new());
    }
    if let Value::Array(entries) = node
        && entries.len() <= index
    {
        entries.resize(index + 1, Value::Object(Map::new()));
    }
    &mut node[index]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn leaves_laid_over_nothing_make_the_same_tree() {
        let tree = json!({
            "a": { "b": { "c": 1 }, "empty": {} },
            "list": [1, 2],
            "topics": [{ "pattern": "x" }, { "rate": { "burst": 1 } }],
        });
        let mut rebuilt = json!({});
        for (key, value) in leaves(&tree) {
            lay(&mut rebuilt, &key.0, value);
        }
        assert_eq!(rebuilt, tree);
    }

    #[test]
    fn keys_are_shown_as_they_are_written_about() {
        let keys: Vec<String> = leaves(&json!({ "a": { "b.c": 1 }, "topics": [{}, { "d": 2 }] }))
            .iter()
            .map(|(key, _)| key.to_string())
            .collect();
        assert_eq!(keys, ["a.b.c", "topics[0]", "topics[1].d"]);
    }

    #[test]
    fn an_empty_section_leaves_a_section_as_it_is() {
        let mut tree = json!({ "a": { "b": 1 } });
        lay(&mut tree, &Key::of(["a"]).0, json!({}));
        assert_eq!(tree, json!({ "a": { "b": 1 } }));
    }
}
