//! Topics with the type of their data: an application names each kind of topic once, and formats no
//! topic names.

use std::{fmt, marker::PhantomData};

use fanfare_core::{
    event::{Event, EventError},
    publish::Published,
};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::Serialize;

use crate::{error::PublishError, hub::Hub};

/// Characters without a place in a segment, or with a meaning there.
const RESERVED: &AsciiSet = &CONTROLS.add(b' ').add(b'%').add(b'*').add(b',').add(b':');

/// Stands for the empty segment. `%` itself is encoded, so no other text becomes this.
const EMPTY: &str = "%";

/// All topics of one kind, one for each name: `notifications:ada`, `notifications:bob`, …
///
/// ```
/// use fanfare::Topics;
///
/// #[derive(serde::Serialize)]
/// struct Note { text: String }
///
/// const NOTES: Topics<Note> = Topics::new("notifications").event_type("note");
///
/// assert_eq!(NOTES.of("ada").name(), "notifications:ada");
/// // A name from outside reaches no other topic.
/// assert_eq!(NOTES.of("a:*").name(), "notifications:a%3A%2A");
/// assert_eq!(NOTES.all(), "notifications:*");
/// ```
pub struct Topics<T: ?Sized> {
    kind: &'static str,
    event_type: Option<&'static str>,
    data: PhantomData<fn(&T)>,
}

impl<T: Serialize + ?Sized> Topics<T> {
    /// The topics below `kind`: one or more segments, like `notifications` or `shop:orders`.
    pub const fn new(kind: &'static str) -> Self {
        Self { kind, event_type: None, data: PhantomData }
    }

    /// The type of their events.
    #[must_use]
    pub const fn event_type(self, event_type: &'static str) -> Self {
        Self { event_type: Some(event_type), ..self }
    }

    /// The topic of one name. Every name gives a topic of its own: reserved characters and
    /// non-ASCII text are percent-encoded. A topic's name has at most 256 bytes.
    pub fn of(&self, name: impl AsRef<str>) -> Topic<T> {
        let name = match name.as_ref() {
            "" => EMPTY.to_owned(),
            name => utf8_percent_encode(name, RESERVED).to_string(),
        };
        Topic::typed(format!("{}:{name}", self.kind), self.event_type)
    }

    /// The pattern of all of them, for a subscription.
    pub fn all(&self) -> String {
        format!("{}:*", self.kind)
    }
}

/// A topic with the type of its data.
///
/// ```
/// # async fn example(hub: fanfare::Hub, tick: Vec<f64>) -> Result<(), fanfare::PublishError> {
/// use fanfare::{Subscription, Topic};
///
/// let prices = Topic::<Vec<f64>>::new("prices");
/// let subscription = Subscription::new().topic(&prices);
/// prices.publish(&hub, &tick).await?;
/// // With a key or an id:
/// hub.publish(&prices, prices.event(&tick)?.key("GOOG")).await?;
/// # Ok(())
/// # }
/// ```
pub struct Topic<T: ?Sized> {
    name: String,
    event_type: Option<&'static str>,
    data: PhantomData<fn(&T)>,
}

impl<T: Serialize + ?Sized> Topic<T> {
    /// The topic with this name, unchecked: a publish or a subscription refuses an invalid name.
    pub fn new(name: impl Into<String>) -> Self {
        Self::typed(name.into(), None)
    }

    fn typed(name: String, event_type: Option<&'static str>) -> Self {
        Self { name, event_type, data: PhantomData }
    }

    /// The type of its events.
    #[must_use]
    pub fn event_type(self, event_type: &'static str) -> Self {
        Self { event_type: Some(event_type), ..self }
    }

    /// The topic's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// An event with this data as JSON.
    ///
    /// # Errors
    /// The data has no JSON: a map with keys other than strings, or a failing `Serialize`.
    pub fn event(&self, data: &T) -> Result<Event, PublishError> {
        let json = serde_json::to_string(data).map_err(|error| EventError::Json(error.to_string()));
        let mut event = Event::new(fanfare_core::event::EventData::Json(json?));
        event.event_type = self.event_type.map(str::to_owned);
        Ok(event)
    }

    /// Publishes this data, as [`Hub::publish`].
    ///
    /// # Errors
    /// As [`Hub::publish`] and [`Self::event`].
    pub async fn publish(&self, hub: &Hub, data: &T) -> Result<Published, PublishError> {
        hub.publish(&self.name, self.event(data)?).await
    }
}

impl<T: ?Sized> AsRef<str> for Topic<T> {
    fn as_ref(&self) -> &str {
        &self.name
    }
}

impl<T: ?Sized> From<&Topic<T>> for String {
    fn from(topic: &Topic<T>) -> Self {
        topic.name.clone()
    }
}

impl<T: ?Sized> Clone for Topic<T> {
    fn clone(&self) -> Self {
        Self { name: self.name.clone(), event_type: self.event_type, data: PhantomData }
    }
}

impl<T: ?Sized> fmt::Debug for Topic<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Topic").field(&self.name).finish()
    }
}

impl<T: ?Sized> fmt::Display for Topic<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use fanfare_core::topic::Topic as Name;

    use super::*;

    #[test]
    fn every_name_gives_a_valid_topic_of_its_own() {
        const ALL: Topics<u32> = Topics::new("kind");
        let names = ["", "%", "a", "a:b", "*", "**", "a,b", " ", "\u{a0}", "\n", "ä", "$x", "%25"];
        let topics: std::collections::BTreeSet<String> =
            names.iter().map(|name| ALL.of(name).name().to_owned()).collect();
        assert_eq!(topics.len(), names.len());
        for topic in &topics {
            assert!(Name::parse(topic).is_ok(), "{topic}");
            assert_eq!(topic.matches(':').count(), 1, "{topic}");
        }
    }

    #[test]
    fn data_without_json_is_refused() {
        let map = std::collections::BTreeMap::from([((1, 2), 3)]);
        let refused = Topic::new("a").event(&map);
        assert!(matches!(refused, Err(PublishError::Event(EventError::Json(_)))), "{refused:?}");
    }
}
