//! The rights from one source: what may be subscribed to, published to, and managed.

use serde::{Deserialize, Serialize};

use crate::{access::PatternList, topic::TopicError};

/// Patterns of one source.
pub const MAX_PATTERNS: usize = 1000;

/// Bytes of the patterns of one source.
pub const MAX_PATTERN_BYTES: usize = 64 * 1024;

/// Three lists of granted patterns.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RightsText", into = "RightsText")]
pub struct Rights {
    pub subscribe: PatternList,
    pub publish: PatternList,
    pub manage: PatternList,
}

/// Rights as text, in tokens, configurations and answers of applications. A missing list is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RightsText {
    #[serde(default)]
    pub subscribe: Vec<String>,
    #[serde(default)]
    pub publish: Vec<String>,
    #[serde(default)]
    pub manage: Vec<String>,
}

/// Why rights are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RightsError {
    #[error("{error}, in the granted pattern {pattern:?}")]
    Pattern { pattern: String, error: TopicError },
    #[error("a grant has at most {MAX_PATTERNS} patterns")]
    TooMany,
    #[error("the patterns of a grant have at most {MAX_PATTERN_BYTES} bytes")]
    TooLarge,
}

impl TryFrom<RightsText> for Rights {
    type Error = RightsError;

    fn try_from(text: RightsText) -> Result<Self, RightsError> {
        let RightsText { subscribe, publish, manage } = text;
        let all = || subscribe.iter().chain(&publish).chain(&manage);
        if all().count() > MAX_PATTERNS {
            return Err(RightsError::TooMany);
        }
        if all().map(String::len).sum::<usize>() > MAX_PATTERN_BYTES {
            return Err(RightsError::TooLarge);
        }
        let list = |patterns: &[String]| {
            let list = PatternList::parse(patterns);
            list.map_err(|(pattern, error)| RightsError::Pattern { pattern, error })
        };
        Ok(Self { subscribe: list(&subscribe)?, publish: list(&publish)?, manage: list(&manage)? })
    }
}

impl From<Rights> for RightsText {
    fn from(rights: Rights) -> Self {
        let list = |list: &PatternList| list.iter().map(str::to_owned).collect();
        Self {
            subscribe: list(&rights.subscribe),
            publish: list(&rights.publish),
            manage: list(&rights.manage),
        }
    }
}

impl Rights {
    /// All lists in one order.
    pub fn lists(&self) -> [&PatternList; 3] {
        [&self.subscribe, &self.publish, &self.manage]
    }

    pub fn is_empty(&self) -> bool {
        self.lists().iter().all(|list| list.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rights(json: &str) -> Result<Rights, serde_json::Error> {
        serde_json::from_str(json)
    }

    #[test]
    fn rights_are_read_from_json_and_written_again() {
        let text = r#"{"subscribe":["a:*","n:{user}"],"publish":[],"manage":["**"]}"#;
        let read = rights(text).unwrap();
        assert!(read.subscribe.contains("a:b") && read.manage.contains("a:**"));
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
        assert!(rights("{}").unwrap().is_empty());
        for invalid in [r#"{"subscribe":["a b"]}"#, r#"{"publish":["a:**:b"]}"#, r#"{"manage":""}"#]
        {
            assert!(rights(invalid).is_err(), "{invalid}");
        }
    }

    #[test]
    fn the_patterns_of_a_source_are_bounded() {
        let many = RightsText { publish: vec!["a".to_owned(); 1001], ..RightsText::default() };
        assert_eq!(Rights::try_from(many), Err(RightsError::TooMany));
        let large = RightsText { manage: vec!["a".repeat(256); 257], ..RightsText::default() };
        assert_eq!(Rights::try_from(large), Err(RightsError::TooLarge));
    }
}
