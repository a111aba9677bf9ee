//! The printed form of an event: its bare data, a line with time, topic and type, a template, or
//! JSON.

use std::{
    borrow::Cow,
    io::{self, Write},
};

use anstyle::{AnsiColor, Style};
use fanfare_core::cursor::Cursor;
use jiff::{Timestamp, tz::TimeZone};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::template::{Field, Part, Template};
use crate::{client::note, terminal::escaped};

/// The form of a printed event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TailForm {
    Data,
    /// Time, topic, type and data, for people. With colours or without.
    Line {
        has_colours: bool,
    },
    Template(Template),
    /// The item of a JSON batch.
    Json,
}

/// Prints events, unflushed.
pub(super) struct TailOutput<W> {
    pub out: W,
    pub form: TailForm,
    /// Whether control characters in events are escaped.
    pub is_terminal: bool,
    pub printed_count: u64,
}

/// The printed fields of an item of a JSON batch.
#[derive(Deserialize)]
struct BatchItem<'a> {
    #[serde(default)]
    id: String,
    topic: String,
    event: Option<String>,
    key: Option<String>,
    #[serde(borrow)]
    data: &'a RawValue,
}

impl BatchItem<'_> {
    fn text(&self, field: Field) -> Cow<'_, str> {
        match field {
            Field::Time => time_of(&self.id).into(),
            Field::Topic => self.topic.as_str().into(),
            Field::Type => self.event.as_deref().unwrap_or("message").into(),
            Field::Key => self.key.as_deref().unwrap_or_default().into(),
            Field::Id => self.id.as_str().into(),
            // A string as published, any other value as JSON.
            Field::Data => serde_json::from_str::<String>(self.data.get())
                .unwrap_or_else(|_| one_line(self.data))
                .into(),
        }
    }
}

impl<W: Write> TailOutput<W> {
    /// Whether the stream must come in JSON batches: only they name the topics.
    pub fn needs_batches(&self) -> bool {
        self.form != TailForm::Data
    }

    /// Prints the event, or the events of a batch until `max_count` are printed in all.
    pub fn event(&mut self, event_type: &str, data: &str, max_count: u64) -> io::Result<()> {
        if !self.needs_batches() {
            return self.line(data);
        }
        match serde_json::from_str::<Vec<&RawValue>>(data) {
            Ok(items) if event_type == "batch" => {
                let room = max_count.saturating_sub(self.printed_count);
                let room = usize::try_from(room).unwrap_or(usize::MAX);
                items.into_iter().take(room).try_for_each(|item| self.item(item))
            }
            _ => {
                note(format_args!("skipping a `{event_type}` event: it is not a JSON batch"));
                Ok(())
            }
        }
    }

    fn item(&mut self, item: &RawValue) -> io::Result<()> {
        let text = match (serde_json::from_str::<BatchItem<'_>>(item.get()), &self.form) {
            (Ok(item), TailForm::Line { has_colours }) => self.for_people(&item, *has_colours),
            (Ok(item), TailForm::Template(template)) => self.filled(template, &item),
            _ => self.safe(&one_line(item)).into_owned(),
        };
        self.write(&text)
    }

    fn for_people(&self, item: &BatchItem<'_>, has_colours: bool) -> String {
        let fields = [
            (Field::Time, Style::new().dimmed()),
            (Field::Topic, AnsiColor::Cyan.on_default()),
            (Field::Type, AnsiColor::Yellow.on_default()),
            (Field::Data, Style::new()),
        ];
        let shown = fields.map(|(field, style)| {
            let text = item.text(field);
            let text = self.safe(&text);
            if has_colours { format!("{style}{text}{style:#}") } else { text.into_owned() }
        });
        shown.join(" ")
    }

    fn filled(&self, template: &Template, item: &BatchItem<'_>) -> String {
        let parts = template.0.iter().map(|part| match part {
            Part::Text(text) => text.clone(),
            Part::Field(field) => self.safe(&item.text(*field)).into_owned(),
        });
        parts.collect()
    }

    fn line(&mut self, text: &str) -> io::Result<()> {
        let text = self.safe(text).into_owned();
        self.write(&text)
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        self.printed_count += 1;
        writeln!(self.out, "{text}")
    }

    fn safe<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.is_terminal { escaped(text) } else { text.into() }
    }
}

/// The local time of an event's publish, from its id; else the present time.
fn time_of(id: &str) -> String {
    let cursor = id.parse::<Cursor>().ok();
    let published = cursor.and_then(|cursor| i64::try_from(cursor.unix_ms?).ok());
    let published = published.and_then(|ms| Timestamp::from_millisecond(ms).ok());
    let published = published.unwrap_or_else(Timestamp::now);
    published.to_zoned(TimeZone::system()).strftime("%H:%M:%S%.3f").to_string()
}

/// The JSON on one line. Line ends occur in JSON only as white space, so spaces replace them.
pub(crate) fn one_line(json: &RawValue) -> String {
    json.get().replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(form: TailForm, is_terminal: bool, event_type: &str, data: &str) -> String {
        let mut output = TailOutput { out: Vec::new(), form, is_terminal, printed_count: 0 };
        output.event(event_type, data, 2).unwrap();
        String::from_utf8(output.out).unwrap()
    }

    #[test]
    fn data_is_printed_as_it_was_published() {
        assert_eq!(printed(TailForm::Data, false, "message", "a\nb\n"), "a\nb\n\n");
        assert_eq!(printed(TailForm::Data, false, "batch", "[1.50]"), "[1.50]\n");
    }

    #[test]
    fn a_batch_is_printed_an_object_a_line_with_its_numbers_as_they_were() {
        let batch = "[{\"id\":\"1\",\"data\":1.50},{\"data\":{\"a\":\n1e400}}]";
        let lines = "{\"id\":\"1\",\"data\":1.50}\n{\"data\":{\"a\": 1e400}}\n";
        assert_eq!(printed(TailForm::Json, false, "batch", batch), lines);
        assert_eq!(printed(TailForm::Json, false, "like", "{}"), "");
    }

    #[test]
    fn a_line_for_people_has_time_topic_and_type() {
        let batch = r#"[{"id":"1","topic":"a:b","event":"like","data":"\u001b[31mx"}]"#;
        let plain = printed(TailForm::Line { has_colours: false }, true, "batch", batch);
        assert_eq!(&plain[12..], " a:b like \\u{1b}[31mx\n", "{plain}");
        let coloured = printed(TailForm::Line { has_colours: true }, true, "batch", batch);
        assert!(coloured.contains("\u{1b}[36ma:b\u{1b}[0m"), "{coloured:?}");
        assert!(!coloured.contains("\u{1b}[31m"), "{coloured:?}");
    }

    #[test]
    fn a_template_takes_fields_of_the_item() {
        let batch = r#"[{"id":"1","topic":"a","data":{"n":1.50}},{"id":"2","topic":"b","key":"k","data":"x"},{"id":"3","topic":"c","data":1}]"#;
        let template = TailForm::Template("{id} {topic}/{key}: {data}".parse().unwrap());
        let lines = "1 a/: {\"n\":1.50}\n2 b/k: x\n";
        assert_eq!(printed(template, false, "batch", batch), lines, "two events at most");
    }

    #[test]
    fn escape_sequences_reach_a_pipe_but_no_terminal() {
        let data = "\u{1b}[31mred";
        assert_eq!(printed(TailForm::Data, false, "message", data), format!("{data}\n"));
        assert_eq!(printed(TailForm::Data, true, "message", data), "\\u{1b}[31mred\n");
    }
}
