//! Text of others on a terminal: a published escape sequence must not reach it.

use std::borrow::Cow;

/// The text with its control characters visible, except line ends and tabs. Formatting characters
/// of bidirectional text count too: they can reorder a line.
pub(crate) fn escaped(text: &str) -> Cow<'_, str> {
    let is_bidirectional = |c| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let is_unsafe = |c: char| (c.is_control() && !matches!(c, '\n' | '\t')) || is_bidirectional(c);
    if !text.contains(is_unsafe) {
        return text.into();
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_unsafe(c) { escaped.extend(c.escape_unicode()) } else { escaped.push(c) }
    }
    escaped.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_become_visible() {
        assert_eq!(escaped("a\tb\nü\u{2028}"), "a\tb\nü\u{2028}");
        assert_eq!(escaped("\u{1b}]0;x\u{7}"), "\\u{1b}]0;x\\u{7}");
        assert_eq!(escaped("a\rb\u{9b}2J\u{7f}"), "a\\u{d}b\\u{9b}2J\\u{7f}");
        assert_eq!(escaped("\u{202e}abc"), "\\u{202e}abc");
    }
}
