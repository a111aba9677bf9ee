//! The JSON body of a published event.

use std::time::Duration;

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

/// An event without its data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct PublishedEvent {
    #[serde(skip)]
    pub topics: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collapse: Option<String>,
    /// Removes the key.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub delete: bool,
    /// Life of the key.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_text")]
    pub ttl: Option<Duration>,
    #[serde(skip)]
    pub id: Option<String>,
    /// Whether data other than JSON is refused.
    #[serde(skip)]
    pub is_json: bool,
}

impl PublishedEvent {
    /// The body of a publish. It is one line if `data` is one line. A removal has no data.
    ///
    /// # Errors
    /// The data must be JSON, and is not.
    pub fn body(&self, data: Option<&str>, id: Option<&str>) -> Result<Vec<u8>, String> {
        #[derive(Serialize)]
        struct PublishBody<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            topic: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            topics: Option<&'a [String]>,
            #[serde(flatten)]
            event: &'a PublishedEvent,
            #[serde(skip_serializing_if = "Option::is_none")]
            id: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            data: Option<Data<'a>>,
        }
        let (topic, topics) = match self.topics.as_slice() {
            [topic] => (Some(topic.as_str()), None),
            topics => (None, Some(topics)),
        };
        let data = data.map(|data| Data::new(data, self.is_json)).transpose()?;
        let body = PublishBody { topic, topics, event: self, id, data };
        Ok(serde_json::to_vec(&body).expect("strings and checked JSON serialize"))
    }
}

/// A duration like `30s`.
fn as_text<S: Serializer>(ttl: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    let ttl = ttl.unwrap_or_default();
    to.collect_str(&humantime::format_duration(ttl))
}

#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum Data<'a> {
    /// The unchanged text: a parsed value would change numbers.
    Json(&'a RawValue),
    Text(&'a str),
}

impl<'a> Data<'a> {
    /// Unless the data must be JSON, a JSON string is published as text with its quotes. Parsing it
    /// would drop the quotes silently.
    pub fn new(text: &'a str, must_be_json: bool) -> Result<Self, String> {
        match serde_json::from_str::<&RawValue>(text) {
            Ok(json) if must_be_json || !json.get().starts_with('"') => Ok(Self::Json(json)),
            Err(error) if must_be_json => Err(format!("invalid JSON: {error}")),
            _ => Ok(Self::Text(text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(topics: &[&str]) -> PublishedEvent {
        PublishedEvent {
            topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
            event: None,
            key: None,
            collapse: None,
            delete: false,
            ttl: None,
            id: None,
            is_json: false,
        }
    }

    fn text(body: Result<Vec<u8>, String>) -> String {
        String::from_utf8(body.unwrap()).unwrap()
    }

    #[test]
    fn json_goes_out_to_the_letter_and_all_else_as_text() {
        let body = |data: &str| {
            let body = text(event(&["t"]).body(Some(data), None));
            body.strip_prefix(r#"{"topic":"t","data":"#).unwrap().to_owned()
        };
        for json in ["1.50", "1e400", "-0", "null", "true", r#"{"b":1,"a":[2.0]}"#, "[]"] {
            assert_eq!(body(json), format!("{json}}}"));
        }
        for (text, quoted) in [
            ("", r#"""}"#),
            ("hello", r#""hello"}"#),
            (r#""quoted""#, r#""\"quoted\""}"#),
            ("1 2", r#""1 2"}"#),
            ("{a:1}", r#""{a:1}"}"#),
        ] {
            assert_eq!(body(text), quoted);
        }
    }

    #[test]
    fn data_that_must_be_json_is_never_text() {
        let event = PublishedEvent { is_json: true, ..event(&["t"]) };
        assert_eq!(text(event.body(Some(r#""a""#), None)), r#"{"topic":"t","data":"a"}"#);
        for data in ["", "hello", "{a:1}", "1 2"] {
            assert!(
                event.body(Some(data), None).unwrap_err().starts_with("invalid JSON: "),
                "{data}"
            );
        }
    }

    #[test]
    fn all_fields_are_sent_and_several_topics_as_a_list() {
        let event = PublishedEvent {
            event: Some("like".into()),
            key: Some("k".into()),
            collapse: Some("c".into()),
            ..event(&["a", "b"])
        };
        assert_eq!(
            text(event.body(Some("-5"), Some("i"))),
            r#"{"topics":["a","b"],"event":"like","key":"k","collapse":"c","id":"i","data":-5}"#
        );
    }

    #[test]
    fn a_removal_has_no_data_and_a_life_is_a_duration() {
        let removal = PublishedEvent { key: Some("k".into()), delete: true, ..event(&["t"]) };
        assert_eq!(text(removal.body(None, None)), r#"{"topic":"t","key":"k","delete":true}"#);
        let ttl = Some(Duration::from_millis(90_500));
        let event = PublishedEvent { key: Some("k".into()), ttl, ..event(&["t"]) };
        let expected = r#"{"topic":"t","key":"k","ttl":"1m 30s 500ms","data":1}"#;
        assert_eq!(text(event.body(Some("1"), None)), expected);
    }
}
