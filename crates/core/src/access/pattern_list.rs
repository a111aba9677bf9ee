//! A list of granted patterns, and the containment of one pattern in another.

use crate::{
    access::USER,
    pattern_set::any_contains,
    topic::{Pattern, TopicError},
    user::User,
};

/// Granted patterns: plain ones, and templates with `{user}`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PatternList {
    /// Sorted, each once.
    plain: Box<[Box<str>]>,
    templates: Box<[Box<str>]>,
}

impl PatternList {
    /// Checks patterns by the rules of subscriptions. A pattern may name topics of the hub, with
    /// `$` before the name.
    ///
    /// # Errors
    /// The first invalid pattern, and the broken rule.
    pub fn parse<T: AsRef<str>>(patterns: &[T]) -> Result<Self, (String, TopicError)> {
        let all = patterns.iter().map(AsRef::as_ref);
        for pattern in all.clone() {
            let named = pattern.strip_prefix('$').unwrap_or(pattern);
            Pattern::parse(named).map_err(|error| (pattern.to_owned(), error))?;
        }
        let (templates, plain): (Vec<&str>, Vec<&str>) = all.partition(|one| one.contains(USER));
        Ok(Self { plain: sorted(plain), templates: sorted(templates) })
    }

    /// The list without templates: with the user's name in them, or without them.
    #[must_use]
    pub fn resolved(&self, user: Option<&User>) -> Self {
        let plain = self.plain.iter().map(|pattern| pattern.to_string());
        Self { plain: sorted(plain.chain(self.own(user)).collect()), templates: Box::default() }
    }

    /// The templates with the user's name. A name makes no pattern for topics of the hub.
    pub fn own<'a>(&'a self, user: Option<&'a User>) -> impl Iterator<Item = String> + 'a {
        let user = user.map(User::as_str).into_iter();
        user.flat_map(|user| {
            let own = self.templates.iter().map(|template| template.replace(USER, user));
            own.zip(&self.templates)
                .filter(|(own, template)| own.starts_with('$') == template.starts_with('$'))
                .map(|(own, _)| own)
        })
    }

    /// Whether one plain pattern contains the whole requested topic or pattern.
    pub fn contains(&self, requested: &str) -> bool {
        any_contains(&self.plain, 0, requested)
    }

    pub fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.templates.is_empty()
    }

    /// Whether a pattern has `{user}`.
    pub fn has_templates(&self) -> bool {
        !self.templates.is_empty()
    }

    /// The patterns without `{user}`, sorted.
    pub fn plain(&self) -> impl Iterator<Item = &str> {
        self.plain.iter().map(|pattern| &**pattern)
    }

    /// All patterns, templates included.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.plain.iter().chain(&self.templates).map(|pattern| &**pattern)
    }
}

fn sorted<T: Into<Box<str>>>(patterns: Vec<T>) -> Box<[Box<str>]> {
    let mut sorted: Vec<Box<str>> = patterns.into_iter().map(Into::into).collect();
    sorted.sort_unstable();
    sorted.dedup();
    sorted.into()
}

/// Whether a granted pattern contains a requested one: every topic of the requested pattern is one
/// of the granted pattern. Wildcards do not contain names of the hub, beginning with `$`.
pub fn contains(granted: &str, requested: &str) -> bool {
    any_contains(&[granted], 0, requested)
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;

    /// Names over a small alphabet, so that patterns often match.
    fn name(wildcards: bool) -> impl Strategy<Value = String> {
        let segments: Vec<&str> = if wildcards { vec!["a", "b", "*"] } else { vec!["a", "b"] };
        (vec(select(segments), 1..5), any::<bool>()).prop_map(move |(mut segments, is_open)| {
            if wildcards && is_open {
                *segments.last_mut().expect("it has an element") = "**";
            }
            segments.join(":")
        })
    }

    /// Topics of a pattern, with segments of no other pattern.
    fn witnesses(pattern: &str) -> [String; 2] {
        ["z", "z:z"].map(|rest| {
            let segments = pattern.split(':').map(|segment| match segment {
                "*" => "z",
                "**" => rest,
                literal => literal,
            });
            segments.collect::<Vec<_>>().join(":")
        })
    }

    fn matches(pattern: &str, topic: &str) -> bool {
        Pattern::parse(pattern).expect("the test writes valid patterns").matches(topic)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn a_contained_pattern_matches_nothing_more(
            granted in name(true), requested in name(true), topic in name(false),
        ) {
            let contained = contains(&granted, &requested);
            if contained && matches(&requested, &topic) {
                prop_assert!(matches(&granted, &topic));
            }
            let mut all = witnesses(&requested).into_iter();
            prop_assert_eq!(contained, all.all(|topic| matches(&granted, &topic)));
            prop_assert_eq!(contains(&granted, &topic), matches(&granted, &topic));
        }

        #[test]
        fn a_list_grants_what_one_of_its_patterns_contains(
            granted in vec(name(true), 0..8), requested in name(true),
        ) {
            let list = PatternList::parse(&granted).expect("the test writes valid patterns");
            let expected = granted.iter().any(|one| contains(one, &requested));
            prop_assert_eq!(list.contains(&requested), expected);
        }
    }

    #[test]
    fn wildcards_do_not_grant_names_of_the_hub() {
        for (granted, requested, expected) in [
            ("**", "$stop:a", false),
            ("*:a", "$stop:a", false),
            ("$stop:**", "$stop:a", true),
            ("$stop:*", "$stop:a:b", false),
            ("a:**", "a:$b", true),
        ] {
            assert_eq!(contains(granted, requested), expected, "{granted} {requested}");
        }
    }

    #[test]
    fn a_template_grants_the_caller_s_names_only() {
        let list = PatternList::parse(&["notifications:{user}", "{user}:**", "a:*"]).unwrap();
        let (user, hub) = (User::parse("42").unwrap(), User::parse("x").unwrap());
        let own = list.resolved(Some(&user));
        assert!(own.contains("notifications:42") && own.contains("42:a:b") && own.contains("a:b"));
        assert!(!own.contains("notifications:43") && !own.contains("notifications:*"));
        let anonymous = list.resolved(None);
        assert!(anonymous.contains("a:b") && !anonymous.contains("notifications:{user}"));
        assert!(!list.contains("notifications:{user}"));
        assert!(list.resolved(Some(&hub)).contains("x:$a"));
    }
}
