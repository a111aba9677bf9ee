//! Reads the layers over the defaults: a file, the environment, flags. Each layer becomes leaves
//! with their place. `load` and `validate` check keys and values.

use std::{fs, path::Path};

use serde_json::Value;

use super::{
    Problem,
    tree::{self, Key},
};

/// The prefix of every variable. The rest is the key, with [`SEPARATOR`] between its parts.
const PREFIX: &str = "FANFARE__";
const SEPARATOR: &str = "__";

/// The place of [`Sources::toml`].
const TEXT: &str = "the TOML text";

/// The layers of a configuration over the defaults. The environment overrides the file, flags
/// override both.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Sources<'a> {
    /// A TOML file.
    pub file: Option<&'a Path>,
    /// TOML text, over the file.
    pub toml: Option<&'a str>,
    /// Environment variables, name and value, like `FANFARE__STREAM__HEARTBEAT` and `20s`.
    /// Variables without the prefix `FANFARE__` are skipped.
    pub environment: Vec<(String, String)>,
    /// Command-line flags: a key like `server.listen`, the value, and a name like `--listen`.
    pub flags: Vec<(&'static str, String, &'static str)>,
}

/// The environment of this process, for [`Sources::environment`]. Unlike [`std::env::vars`] it does
/// not panic on invalid UTF-8: it skips such names, and replaces invalid bytes in values by U+FFFD.
pub fn process_environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
        })
        .collect()
}

/// One key set by a layer.
pub(super) struct Leaf {
    pub(super) place: String,
    pub(super) key: Key,
    pub(super) value: Value,
}

/// All leaves of `sources`, the lowest layer first, and the problem of an unreadable file.
pub(super) fn read(sources: &Sources<'_>) -> (Vec<Leaf>, Option<Problem>) {
    let file = sources.file.map_or(Ok(Vec::new()), read_file);
    let (mut leaves, problem) = match file {
        Ok(leaves) => (leaves, None),
        Err(problem) => (Vec::new(), Some(problem)),
    };
    let (text, problem) = match sources.toml.map_or(Ok(Vec::new()), |text| parse_layer(TEXT, text))
    {
        Ok(leaves) => (leaves, problem),
        Err(bad) => (Vec::new(), problem.or(Some(bad))),
    };
    leaves.extend(text);
    leaves.extend(environment(&sources.environment));
    leaves.extend(sources.flags.iter().map(|(key, value, flag)| Leaf {
        place: (*flag).into(),
        key: Key::of(key.split('.')),
        value: value.clone().into(),
    }));
    (leaves, problem)
}

fn read_file(path: &Path) -> Result<Vec<Leaf>, Problem> {
    let place = path.display().to_string();
    let problem = |message| Problem { place: place.clone(), key: String::new(), message };
    let text = fs::read_to_string(path)
        .map_err(|error| problem(format!("the file can't be read: {error}")))?;
    parse_layer(&place, &text)
}

fn parse_layer(place: &str, text: &str) -> Result<Vec<Leaf>, Problem> {
    let problem = |message| Problem { place: place.to_owned(), key: String::new(), message };
    let tree = parse(text).map_err(problem)?;
    let leaves = tree::leaves(&tree).into_iter();
    Ok(leaves.map(|(key, value)| Leaf { place: place.to_owned(), key, value }).collect())
}

/// The leaves of the environment, sorted by name: problems keep the same order every time.
fn environment(variables: &[(String, String)]) -> Vec<Leaf> {
    let mut leaves: Vec<Leaf> = variables
        .iter()
        .filter_map(|(name, value)| {
            let key = name.strip_prefix(PREFIX)?.to_lowercase();
            Some(Leaf {
                place: name.clone(),
                key: Key::of(key.split(SEPARATOR)),
                value: value.clone().into(),
            })
        })
        .collect();
    leaves.sort_by(|one, other| one.place.cmp(&other.place));
    leaves
}

/// Parses TOML. The error is one line of text with the line and column of the file.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    toml::from_str(text).map_err(|error| on_one_line(&error.to_string()))
}

/// A TOML error without its excerpt of the file: the excerpt may hold a secret.
fn on_one_line(error: &str) -> String {
    let is_excerpt = |line: &str| {
        let mark = |c: char| c.is_ascii_digit() || c == ' ';
        line.trim_start_matches(mark).starts_with('|')
    };
    let lines: Vec<&str> = error
        .lines()
        .map(|line| line.strip_prefix("TOML parse error at ").unwrap_or(line))
        .filter(|line| !line.is_empty() && !is_excerpt(line))
        .collect();
    lines.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syntax_errors_have_a_line_and_show_nothing_of_the_file() {
        let error = parse("[redis]\npassword = \"hunter2\n").unwrap_err();
        assert!(error.starts_with("line 2, column 20: "), "{error}");
        assert!(!error.contains("hunter2") && !error.contains('\n'), "{error}");
        let error = parse("a = 1\na = 2\n").unwrap_err();
        assert_eq!(error, "line 2, column 1: duplicate key");
    }

    #[test]
    fn variables_of_other_programs_are_passed_over() {
        let variables = ["PATH", "FANFARE", "FANFARE_LISTEN", "fanfare__hub__threads"]
            .map(|name| (name.to_owned(), "1".to_owned()));
        assert!(environment(&variables).is_empty());
    }
}
