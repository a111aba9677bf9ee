//! Lays the layers over the defaults and reports every problem, not only the first:
//!
//! 1. Each leaf is tried alone over the defaults, so each bad leaf gets its own line.
//! 2. All good leaves together make the configuration, and `validate` checks its ranges.
//!
//! `layers` reads the layers.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Config, ConfigProblems, EffectiveValue, Problem, effective,
    layers::{self, Leaf, Sources},
    problems::shown,
    tree::{self, Key, KeySegment, LIST},
    validate::Finding,
};

/// The text of the defaults file.
const DEFAULTS: &str = include_str!("../../config/fanfare.toml");

const PATTERN: &[&str] = &["pattern"];
/// The required keys of a topic's entry; those under `rate` only if it has a rate.
const REQUIRED: [&[&str]; 3] = [PATTERN, &["rate", "events_per_second"], &["rate", "burst"]];

impl Config {
    /// Loads the defaults, overrides them by `sources`, and checks the result with
    /// [`Config::validate`]. An unknown key is an error.
    ///
    /// # Errors
    /// All problems of all layers at once. If the file is unreadable, ranges are not checked: the
    /// file's values are unknown.
    pub fn load(sources: &Sources<'_>) -> Result<Self, ConfigProblems> {
        Self::load_with_places(sources).map(|(config, _)| config)
    }

    /// [`Config::load`], and every value with its place, to show to an operator.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_with_places(
        sources: &Sources<'_>,
    ) -> Result<(Self, Vec<EffectiveValue>), ConfigProblems> {
        let (leaves, without_file) = layers::read(sources);
        let mut merge = Merge::over(defaults());
        merge.lacks_file = without_file.is_some();
        merge.problems.extend(without_file);
        merge.complete_entries(&leaves);
        for (rank, leaf) in leaves.into_iter().enumerate() {
            merge.take(rank, leaf);
        }
        merge.finish()
    }
}

impl Default for Config {
    /// The values of `config/fanfare.toml`.
    fn default() -> Self {
        Self::deserialize(defaults()).expect("a unit test deserializes the defaults")
    }
}

fn defaults() -> Value {
    layers::parse(DEFAULTS).expect("a unit test parses the defaults")
}

/// The layers merged so far.
struct Merge {
    /// The defaults and one complete topic entry. Each leaf is tried on a copy.
    trial: Value,
    /// The defaults and all good leaves.
    tree: Value,
    /// The last setter of a key, and its layer.
    places: BTreeMap<String, (usize, String)>,
    /// Keys with a problem. Their value in `tree` is a stand-in, so findings about them are moot.
    bad: BTreeSet<String>,
    /// Whether the file is missing: its values are then unknown, and ranges are not checked.
    lacks_file: bool,
    problems: Vec<Problem>,
}

impl Merge {
    fn over(defaults: Value) -> Self {
        let mut trial = defaults.clone();
        for required in REQUIRED {
            let key = entry(0, required);
            tree::lay(&mut trial, &key.0, stand_in(required));
        }
        Self {
            trial,
            tree: defaults,
            places: BTreeMap::new(),
            bad: BTreeSet::new(),
            lacks_file: false,
            problems: Vec::new(),
        }
    }

    /// Puts stand-ins for the required keys into each topic entry, and reports missing keys.
    /// Without them, an incomplete entry would hide the problems of its other keys.
    fn complete_entries(&mut self, leaves: &[Leaf]) {
        let entries: BTreeMap<&KeySegment, &str> = leaves
            .iter()
            .filter(|leaf| leaf.key.0.starts_with(&Key::of([LIST]).0))
            .filter_map(|leaf| Some((leaf.key.0.get(1)?, leaf.place.as_str())))
            .collect();
        for (segment, place) in entries {
            let KeySegment::Index(index) = segment else {
                continue;
            };
            for required in REQUIRED {
                let key = entry(*index, required);
                let has_section = sets_in(leaves, &key.start(key.0.len() - 1));
                if has_section || required == PATTERN {
                    tree::lay(&mut self.tree, &key.0, stand_in(required));
                }
                let is_set = leaves.iter().any(|leaf| leaf.key.0.starts_with(&key.0));
                if has_section && !is_set {
                    self.reject(&key, place, "is missing".into());
                }
            }
        }
    }

    fn take(&mut self, rank: usize, leaf: Leaf) {
        match self.attempt(&leaf) {
            Ok(()) => {
                self.places.insert(leaf.key.to_string(), (rank, leaf.place));
                tree::lay(&mut self.tree, &leaf.key.0, leaf.value);
            }
            Err((key, message)) => {
                self.bad.insert(leaf.key.to_string());
                self.reject(&key, &leaf.place, message);
            }
        }
    }

    /// Tries a leaf over the defaults, section by section: an unknown section gets one line, and
    /// not one for each of its keys.
    fn attempt(&self, leaf: &Leaf) -> Result<(), (Key, String)> {
        for count in 1..=leaf.key.0.len() {
            let key = leaf.key.start(count);
            let rest = leaf.key.0.get(count);
            let value = if rest.is_some() { json!({}) } else { leaf.value.clone() };
            if key == Key::of([LIST]) {
                match rest {
                    Some(KeySegment::Index(_)) => continue,
                    None if value.is_array() => return Ok(()),
                    _ => return Err((key, "expected [[topics]] entries, in a file".into())),
                }
            }
            let mut trial = self.trial.clone();
            tree::lay(&mut trial, &in_first_entry(&key).0, value.clone());
            if let Err(error) = Config::deserialize(trial) {
                let message = explain(&error.to_string(), &shown(&key.to_string(), &value));
                return Err((key, message));
            }
        }
        Ok(())
    }

    fn reject(&mut self, key: &Key, place: &str, message: String) {
        let problem = Problem { place: place.into(), key: key.to_string(), message };
        self.bad.insert(problem.key.clone());
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    fn finish(mut self) -> Result<(Config, Vec<EffectiveValue>), ConfigProblems> {
        let config = Config::deserialize(self.tree.clone());
        match &config {
            Ok(config) => {
                let found = config.findings().into_iter();
                let found = found.filter(|finding| !self.is_moot(finding));
                let found: Vec<Problem> = found.map(|finding| self.locate(finding)).collect();
                self.problems.extend(found);
            }
            Err(error) => self.problems.push(Problem {
                place: String::new(),
                key: String::new(),
                message: error.to_string(),
            }),
        }
        match config {
            Ok(config) if self.problems.is_empty() => {
                let place_of = |key: &str| self.places.get(key).map(|(_, place)| place.clone());
                Ok((config, effective::values(&self.tree, place_of)))
            }
            _ => Err(ConfigProblems(self.problems)),
        }
    }

    /// Whether a finding depends on stand-ins or on an unreadable file.
    fn is_moot(&self, finding: &Finding) -> bool {
        self.lacks_file || finding.keys.iter().any(|key| self.bad.contains(key))
    }

    /// Names the place of a finding. If several keys disagree, this is the key set last.
    fn locate(&self, finding: Finding) -> Problem {
        let placed = |key: &String| Some((self.places.get(key)?, key.clone()));
        match finding.keys.iter().filter_map(placed).max() {
            Some(((_, place), key)) => {
                Problem { place: place.clone(), key, message: finding.message }
            }
            None => Problem { place: "defaults".into(), ..finding.into() },
        }
    }
}

fn entry(index: usize, names: &[&str]) -> Key {
    let mut key = Key::of([LIST]).then(KeySegment::Index(index));
    key.0.extend(Key::of(names.iter().copied()).0);
    key
}

/// A valid value in place of a missing or bad required one.
fn stand_in(required: &[&str]) -> Value {
    if required == PATTERN { json!("stand-in") } else { json!(1) }
}

/// Whether a layer writes `section` as a section, also an empty one.
fn sets_in(leaves: &[Leaf], section: &Key) -> bool {
    let inside = |leaf: &Leaf| leaf.key.0.starts_with(&section.0);
    leaves.iter().any(|leaf| inside(leaf) && (leaf.key != *section || leaf.value.is_object()))
}

/// The same key in the topic entry of `Merge::trial`.
fn in_first_entry(key: &Key) -> Key {
    let mut key = key.clone();
    if let Some(KeySegment::Index(index)) = key.0.get_mut(1) {
        *index = 0;
    }
    key
}

/// Serde's message in plain words: first the expected, then the found value.
fn explain(error: &str, found: &str) -> String {
    match error.rsplit_once("expected ") {
        Some((start, expected)) if start.starts_with("unknown field") => {
            format!("unknown key, expected {expected}")
        }
        Some((_, expected)) => format!("expected {expected}, got {found}"),
        None => format!("{error}, got {found}"),
    }
}
