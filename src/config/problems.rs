//! The problems of a configuration, one line each, and the display of values in them. `load` and
//! `validate` find the problems.

use std::fmt;

use serde_json::Value;

/// All problems of a configuration, in the order of the layers. Its text has one line for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblems(pub Vec<Problem>);

/// One problem of a configuration. Its text is `place: key: message` without the empty parts. The
/// values of passwords, tokens and secrets are hidden.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The place of the value: a file, an environment variable, a flag, `defaults`; empty if
    /// unknown, as for a [`Config`](super::Config) built in code.
    pub place: String,
    /// The key, like `stream.heartbeat` or `topics[2].flush`; empty if the whole file is at fault.
    pub key: String,
    /// The expected and the found value.
    pub message: String,
}

impl fmt::Display for ConfigProblems {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(Problem::to_string).collect();
        to.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for ConfigProblems {}

impl fmt::Display for Problem {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in [&self.place, &self.key] {
            if !part.is_empty() {
                write!(to, "{part}: ")?;
            }
        }
        to.write_str(&self.message)
    }
}

/// Characters of a value shown in a problem: a longer line is unreadable.
const MAX_SHOWN_CHARS: usize = 60;

/// The text of a value in a problem. Errors end up in logs, so the values of secrets are hidden.
pub(super) fn shown(key: &str, value: &Value) -> String {
    let key = key.to_lowercase();
    if ["password", "token", "secret"].iter().any(|word| key.contains(word)) {
        return "a hidden value".into();
    }
    match value {
        Value::Object(_) => "a section".into(),
        Value::Array(_) => "a list".into(),
        Value::String(text) if text.chars().count() > MAX_SHOWN_CHARS => {
            let start: String = text.chars().take(MAX_SHOWN_CHARS).collect();
            format!("{start:?}…")
        }
        Value::String(text) => format!("{text:?}"),
        scalar => scalar.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_are_never_shown() {
        for key in ["redis.password", "auth.publish_token", "auth.jwt.Secret_File"] {
            assert_eq!(shown(key, &json!("hunter2")), "a hidden value");
        }
    }

    #[test]
    fn a_value_is_shown_on_one_line_of_bounded_length() {
        assert_eq!(shown("a", &json!("two\nlines")), r#""two\nlines""#);
        assert_eq!(shown("a", &json!(5)), "5");
        assert_eq!(shown("a", &json!({ "b": 1 })), "a section");
        assert!(shown("a", &json!("é".repeat(1000))).chars().count() < 70);
    }

    #[test]
    fn a_problem_leaves_out_what_it_does_not_know() {
        let mut problem =
            Problem { place: "a.toml".into(), key: "hub.threads".into(), message: "wrong".into() };
        assert_eq!(problem.to_string(), "a.toml: hub.threads: wrong");
        problem.place.clear();
        assert_eq!(problem.to_string(), "hub.threads: wrong");
    }
}
