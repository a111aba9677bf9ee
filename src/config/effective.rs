//! The effective values of a loaded configuration, each with the layer it comes from. `load` merges
//! the layers. The values of secrets are hidden.

use fanfare_core::topic::Pattern;
use serde_json::{Map, Value};

use super::{Config, TopicHistory, TopicPolicy, tree};

/// Stands for a secret.
const HIDDEN: &str = "…";

/// Parts of the names of secrets.
const SECRET_WORDS: [&str; 3] = ["password", "token", "secret"];

/// One value of a loaded configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EffectiveValue {
    /// The key, like `stream.heartbeat` or `topics[2].flush`.
    pub key: String,
    /// The value in TOML. Secrets, and passwords in URLs, are `…`.
    pub value: String,
    /// A file, an environment variable, a flag, or `default`.
    pub place: String,
}

impl Config {
    /// The policy of a topic: every key is given, and `pattern` is the matching one. `**` if no
    /// `[[topics]]` entry matches.
    pub fn policy_of(&self, topic: &str) -> TopicPolicy {
        let matches = |entry: &&TopicPolicy| {
            Pattern::parse(&entry.pattern).is_ok_and(|pattern| pattern.matches(topic))
        };
        let entry = self.topics.iter().find(matches);
        let history = entry.map(|entry| entry.history).unwrap_or_default();
        TopicPolicy {
            pattern: entry.map_or("**", |entry| &entry.pattern).to_owned(),
            flush: entry.and_then(|entry| entry.flush).or(Some(self.delivery.flush)),
            tick: entry.and_then(|entry| entry.tick).or(Some(self.delivery.tick)),
            conflate: entry.and_then(|entry| entry.conflate).or(Some(self.delivery.conflate)),
            history: TopicHistory {
                events: history.events.or(Some(self.history.events)),
                ttl: history.ttl.or(Some(self.history.ttl)),
            },
            rate: entry.and_then(|entry| entry.rate).filter(|rate| rate.events_per_second > 0),
        }
    }
}

/// All leaves of a merged tree. `place_of` knows the keys set by a layer.
pub(super) fn values(
    tree: &Value,
    place_of: impl Fn(&str) -> Option<String>,
) -> Vec<EffectiveValue> {
    let leaves = tree::leaves(tree).into_iter();
    let leaves = leaves.map(|(key, value)| {
        let key = key.to_string();
        let value = to_toml(&redacted(&key, value));
        let place = place_of(&key).unwrap_or_else(|| "default".to_owned());
        EffectiveValue { key, value, place }
    });
    leaves.collect()
}

fn redacted(name: &str, value: Value) -> Value {
    let name = name.rsplit('.').next().unwrap_or(name).to_lowercase();
    let is_secret = name == "key" || SECRET_WORDS.iter().any(|word| name.contains(word));
    match value {
        Value::String(text) if text.is_empty() => Value::String(text),
        Value::String(_) if is_secret => HIDDEN.into(),
        Value::String(url) => without_password(&url).into(),
        Value::Array(entries) => {
            entries.into_iter().map(|entry| redacted(&name, entry)).collect::<Vec<_>>().into()
        }
        Value::Object(members) => Value::Object(
            members
                .into_iter()
                .map(|(name, value)| {
                    let value = redacted(&name, value);
                    (name, value)
                })
                .collect::<Map<_, _>>(),
        ),
        scalar => scalar,
    }
}

/// `redis://user:…@host` for a URL with a password.
fn without_password(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    let Some((login, host)) = rest.rsplit_once('@') else {
        return text.to_owned();
    };
    match login.split_once(':') {
        Some((user, _)) => format!("{scheme}://{user}:{HIDDEN}@{host}"),
        None => format!("{scheme}://{HIDDEN}@{host}"),
    }
}

fn to_toml(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let members =
                members.iter().map(|(name, value)| format!("{name} = {}", to_toml(value)));
            match members.collect::<Vec<_>>() {
                members if members.is_empty() => "{}".to_owned(),
                members => format!("{{ {} }}", members.join(", ")),
            }
        }
        Value::Array(entries) => {
            let entries: Vec<String> = entries.iter().map(to_toml).collect();
            format!("[{}]", entries.join(", "))
        }
        scalar => scalar.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::config::{Flush, Sources};

    #[test]
    fn each_value_names_its_layer() {
        let sources = Sources {
            environment: vec![("FANFARE__STREAM__HEARTBEAT".into(), "20s".into())],
            flags: vec![("server.listen", "127.0.0.1:1".into(), "--listen")],
            ..Sources::default()
        };
        let (_, values) = Config::load_with_places(&sources).unwrap();
        let find = |key: &str| {
            let value = values.iter().find(|value| value.key == key).unwrap();
            (value.value.as_str(), value.place.as_str())
        };
        assert_eq!(find("stream.heartbeat"), (r#""20s""#, "FANFARE__STREAM__HEARTBEAT"));
        assert_eq!(find("server.listen"), (r#""127.0.0.1:1""#, "--listen"));
        assert_eq!(find("server.workers"), ("0", "default"));
    }

    #[test]
    fn secrets_and_passwords_are_hidden_wherever_they_are() {
        let keys = json!([{ "algorithm": "HS256", "key": "hunter2", "file": "a.pem" }]);
        let tree = json!({
            "access": { "keys": keys, "webhook": { "secret": "hunter2" } },
            "redis": { "url": "redis+sentinel://me:hunter2@one:1,two:2/0" },
            "other": { "url": "redis://hunter2@host" },
        });
        let shown: Vec<String> = values(&tree, |_| None)
            .into_iter()
            .map(|value| format!("{} = {}", value.key, value.value))
            .collect();
        assert!(!shown.join("\n").contains("hunter2"), "{shown:#?}");
        assert!(shown[0].contains(r#"algorithm = "HS256""#), "{shown:#?}");
        assert!(shown.iter().any(|line| line.contains("me:…@one:1,two:2/0")), "{shown:#?}");
    }

    #[test]
    fn the_first_matching_entry_and_the_defaults_give_a_policy() {
        let mut config = Config::default();
        let entry = |pattern: &str, flush| TopicPolicy {
            pattern: pattern.into(),
            flush,
            ..config.policy_of("nothing")
        };
        config.topics = vec![
            TopicPolicy { tick: Some(Duration::from_secs(1)), ..entry("a:*", None) },
            entry("a:b", Some(Flush::Immediate)),
        ];
        let policy = config.policy_of("a:b");
        assert_eq!((policy.pattern.as_str(), policy.tick), ("a:*", Some(Duration::from_secs(1))));
        assert_eq!(policy.flush, Some(config.delivery.flush));
        assert_eq!(config.policy_of("c").pattern, "**");
    }
}
