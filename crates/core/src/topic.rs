//! Topic names and subscription patterns: validity, matching, and the partition of a topic.
//!
//! Listeners of a topic are in `partition`, its treatment in `policy`.

use std::{borrow::Borrow, fmt};

use arcstr::ArcStr;

/// Longest topic name or pattern, in bytes of UTF-8.
pub const MAX_TOPIC_BYTES: usize = 256;

/// Why a topic name or pattern is refused (`bad_topic`).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    #[error("a topic name must not be empty")]
    Empty,
    #[error("a topic name has at most {MAX_TOPIC_BYTES} bytes, this one has {0}")]
    TooLong(usize),
    #[error("a topic name must not have an empty segment between its colons")]
    EmptySegment,
    #[error("a topic name must not contain white space, commas or control characters")]
    ForbiddenCharacter,
    #[error("a topic name must be UTF-8")]
    NotUtf8,
    #[error("topic names beginning with `$` are reserved for the hub")]
    Reserved,
    #[error("`*` and `**` stand for whole segments in a subscription and cannot be published to")]
    Wildcard,
    #[error("`**` is only allowed as the last segment of a pattern")]
    MisplacedDoubleWildcard,
}

/// A valid topic name. Cheap to clone, and as small as a pointer: streams have long lists of
/// topics.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Topic(ArcStr);

impl Topic {
    /// Checks a name: 1 to 256 bytes, segments separated by `:`, no empty segment, no white space,
    /// comma or control character, no leading `$`, no wildcard segment.
    ///
    /// # Errors
    /// The first broken rule.
    pub fn parse(name: &str) -> Result<Self, TopicError> {
        check_name(name)?;
        if has_wildcard(name) {
            return Err(TopicError::Wildcard);
        }
        Ok(Self(name.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether another holder shares this allocation. An equal name elsewhere does not count.
    pub fn is_shared(&self) -> bool {
        ArcStr::strong_count(&self.0).is_some_and(|count| count > 1)
    }

    /// The topic's partition among `partition_count` (a power of two). Stable across versions,
    /// machines and programming languages: the FNV-1a hash of 32 bits over the name's bytes, its
    /// halves folded by exclusive or, then its low bits.
    pub fn partition(&self, partition_count: u16) -> u16 {
        partition_of(&self.0, partition_count)
    }
}

/// A name has the hash of its text.
impl Borrow<str> for Topic {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The part of a name among `count` parts (a power of two), computed as in [`Topic::partition`].
pub fn partition_of(name: &str, count: u16) -> u16 {
    debug_assert!(count.is_power_of_two());
    let hash = fnv1a(name.as_bytes());
    // Fold the halves: the lowest bits of FNV-1a alone are weak (the lowest is only a parity).
    let folded = (hash ^ (hash >> 16)) as u16;
    folded & (count - 1)
}

/// FNV-1a, 32 bits: <http://www.isthe.com/chongo/tech/comp/fnv/>. Every language expresses it in
/// three lines, so other programs can compute a topic's partition too.
pub(crate) fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// A subscription's pattern: `*` is one whole segment, a last `**` is one or more. A pattern
/// without wildcards matches only the topic of the same name. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pattern(ArcStr);

impl Pattern {
    /// Checks a pattern by the rules of [`Topic::parse`], wildcards allowed.
    ///
    /// # Errors
    /// The first broken rule.
    pub fn parse(pattern: &str) -> Result<Self, TopicError> {
        check_name(pattern)?;
        let mut segments = pattern.rsplit(':').skip(1);
        if has_wildcard(pattern) && segments.any(|segment| segment == "**") {
            return Err(TopicError::MisplacedDoubleWildcard);
        }
        Ok(Self(pattern.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The topic of this name; none for a pattern with wildcards.
    pub fn to_topic(&self) -> Option<Topic> {
        (!self.has_wildcard()).then(|| Topic(self.0.clone()))
    }

    /// Whether any segment is a wildcard.
    pub fn has_wildcard(&self) -> bool {
        has_wildcard(&self.0)
    }

    /// Whether the pattern matches the topic.
    pub fn matches(&self, topic: &str) -> bool {
        let mut segments = topic.split(':');
        for wanted in self.0.split(':') {
            match (wanted, segments.next()) {
                (_, None) => return false,
                ("**", Some(_)) => return true,
                ("*", Some(_)) => {}
                (wanted, Some(segment)) if wanted == segment => {}
                _ => return false,
            }
        }
        segments.next().is_none()
    }
}

impl AsRef<str> for Pattern {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl From<Topic> for Pattern {
    fn from(topic: Topic) -> Self {
        Self(topic.0)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

fn check_name(name: &str) -> Result<(), TopicError> {
    if name.is_empty() {
        return Err(TopicError::Empty);
    }
    if name.len() > MAX_TOPIC_BYTES {
        return Err(TopicError::TooLong(name.len()));
    }
    if name.starts_with('$') {
        return Err(TopicError::Reserved);
    }
    if name.chars().any(|c| c == ',' || c.is_whitespace() || c.is_control()) {
        return Err(TopicError::ForbiddenCharacter);
    }
    let has_empty_segment = name.as_bytes().windows(2).any(|two| two == b"::");
    if has_empty_segment || name.starts_with(':') || name.ends_with(':') {
        return Err(TopicError::EmptySegment);
    }
    Ok(())
}

/// Whether any segment is `*` or `**`. Most names have no asterisk at all.
fn has_wildcard(name: &str) -> bool {
    name.contains('*') && name.split(':').any(|segment| matches!(segment, "*" | "**"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn partition(name: &str) -> u16 {
        Topic::parse(name).unwrap().partition(16)
    }

    #[test]
    fn hash_is_the_published_fnv1a() {
        // From the reference's test suite.
        assert_eq!(fnv1a(b""), 0x811c_9dc5);
        assert_eq!(fnv1a(b"a"), 0xe40c_292c);
        assert_eq!(fnv1a(b"foobar"), 0xbf9c_f968);
    }

    #[test]
    fn partitions_never_change_between_versions() {
        for (name, expected) in [
            ("ticker:GOOG", 7),
            ("ticker:MSFT", 6),
            ("notifications:1", 10),
            ("notifications:2", 7),
            ("demo:chat", 9),
            ("börse:zürich", 0),
        ] {
            assert_eq!(partition(name), expected, "{name}");
        }
    }

    #[test]
    fn partitions_are_used_evenly() {
        let mut counts = [0; 16];
        for user in 0..16_000 {
            counts[usize::from(partition(&format!("notifications:{user}")))] += 1;
        }
        assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
    }

    #[test]
    fn names_that_break_a_rule_are_refused() {
        for (name, error) in [
            ("", TopicError::Empty),
            ("a::b", TopicError::EmptySegment),
            (":a", TopicError::EmptySegment),
            ("a:", TopicError::EmptySegment),
            ("a b", TopicError::ForbiddenCharacter),
            ("a,b", TopicError::ForbiddenCharacter),
            ("a\nb", TopicError::ForbiddenCharacter),
            ("a\u{2028}b", TopicError::ForbiddenCharacter),
            ("a\0", TopicError::ForbiddenCharacter),
            ("$hub", TopicError::Reserved),
            ("a:*", TopicError::Wildcard),
            ("a:**", TopicError::Wildcard),
        ] {
            assert_eq!(Topic::parse(name), Err(error), "{name:?}");
        }
        assert_eq!(Topic::parse(&"x".repeat(257)), Err(TopicError::TooLong(257)));
        assert!(Topic::parse(&"x".repeat(256)).is_ok());
        assert!(Topic::parse("a*b").is_ok());
        assert_eq!(Pattern::parse("a:**:b"), Err(TopicError::MisplacedDoubleWildcard));
    }

    #[test]
    fn wildcards_stand_for_whole_segments() {
        for (pattern, topic, expected) in [
            ("a:*", "a:b", true),
            ("a:*", "a", false),
            ("a:*", "a:b:c", false),
            ("a:*:c", "a:b:c", true),
            ("a:**", "a:b:c", true),
            ("a:**", "a", false),
            ("**", "a", true),
            ("*", "a:b", false),
            ("a*", "ab", false),
            ("a:b", "a:b", true),
        ] {
            let parsed = Pattern::parse(pattern).unwrap();
            assert_eq!(parsed.matches(topic), expected, "{pattern} {topic}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_accepted_or_refused_without_a_panic(text in ".*") {
            let _ = Topic::parse(&text);
            let _ = Pattern::parse(&text);
        }
    }
}
