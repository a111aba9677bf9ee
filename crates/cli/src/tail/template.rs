//! `--template`: the line of an event, like `{time} {topic} {data}`.

use std::str::FromStr;

/// A part of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    Text(String),
    Field(Field),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Time,
    Topic,
    Type,
    Key,
    Id,
    Data,
}

const FIELDS: [(&str, Field); 6] = [
    ("time", Field::Time),
    ("topic", Field::Topic),
    ("type", Field::Type),
    ("key", Field::Key),
    ("id", Field::Id),
    ("data", Field::Data),
];

/// A checked template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template(pub Vec<Part>);

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            parts.push(Part::Text(unescaped(before)));
            let (name, after) = after.split_once('}').ok_or("a { without its }")?;
            let field = FIELDS.iter().find(|(known, _)| *known == name);
            let (_, field) = field.ok_or_else(|| {
                let known = FIELDS.map(|(known, _)| format!("{{{known}}}")).join(", ");
                format!("unknown field {{{name}}}, expected one of {known}")
            })?;
            parts.push(Part::Field(*field));
            rest = after;
        }
        parts.push(Part::Text(unescaped(rest)));
        Ok(Self(parts))
    }
}

/// Shells pass `\t` and `\n` as two characters.
fn unescaped(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_names_known_fields() {
        let text = |text: &str| Part::Text(text.to_owned());
        assert_eq!(
            "{topic}\\t{data}!".parse(),
            Ok(Template(vec![
                text(""),
                Part::Field(Field::Topic),
                text("\t"),
                Part::Field(Field::Data),
                text("!"),
            ]))
        );
        let error = "{tpic}".parse::<Template>().unwrap_err();
        assert!(error.contains("unknown field {tpic}, expected one of {time}"), "{error}");
        assert!("{data".parse::<Template>().is_err());
    }
}
