//! A stream read by commands: its events with their topics, and the rate of each topic. `tail` has a
//! reader of its own, with reconnects.

use std::{collections::HashMap, time::Duration};

use fanfare_core::sse::decode::{Decoded, Decoder};
use serde::Deserialize;
use serde_json::{json, value::RawValue};

use crate::client::{HubClient, HubError, HubRequest, HubResponse};

/// Four missing heartbeats.
const MAX_SILENCE: Duration = Duration::from_secs(60);

/// Topics counted at once. Events of further topics are not counted.
const MAX_TOPICS: usize = 100_000;

/// An event of a watched stream.
#[derive(Debug, Deserialize)]
pub(crate) struct WatchedEvent {
    pub topic: String,
    pub data: Box<RawValue>,
}

/// An open stream of JSON batches.
pub(crate) struct Watch {
    answer: HubResponse,
    decoder: Decoder,
}

impl Watch {
    /// Opens a stream, and waits for `connected`: every later event is part of it.
    pub async fn open(client: &HubClient, topics: &[String]) -> Result<Self, HubError> {
        let body = json!({ "topics": topics, "batch": "json" }).to_string().into_bytes();
        let request = HubRequest::post("/events/stream", "application/json", body);
        let answer = client.send(request).await?;
        let mut watch = Self { answer, decoder: Decoder::default() };
        loop {
            let chunk = watch.answer.next_chunk(MAX_SILENCE).await?;
            watch.push(chunk)?;
            while let Some(decoded) = watch.decoder.pop() {
                if matches!(&decoded, Decoded::Event { event_type, .. } if event_type == "connected")
                {
                    return Ok(watch);
                }
            }
        }
    }

    /// The next events. Cancel safe: events not returned yet stay.
    pub async fn next(&mut self) -> Result<Vec<WatchedEvent>, HubError> {
        loop {
            while let Some(decoded) = self.decoder.pop() {
                let Decoded::Event { event_type, data, .. } = decoded else { continue };
                match event_type.as_str() {
                    "batch" => return serde_json::from_str(&data).map_err(HubError::broken),
                    "shutdown" => return Err(HubError::broken("the hub ended the stream")),
                    _ => {}
                }
            }
            let chunk = self.answer.next_chunk(MAX_SILENCE).await?;
            self.push(chunk)?;
        }
    }

    fn push(&mut self, chunk: Option<bytes::Bytes>) -> Result<(), HubError> {
        let chunk = chunk.ok_or_else(|| HubError::broken("the stream ended"))?;
        self.decoder.push(&chunk).map_err(HubError::broken)
    }
}

/// Events per topic.
#[derive(Debug, Default)]
pub(crate) struct TopicCounts(HashMap<String, u64>);

impl TopicCounts {
    pub fn add(&mut self, events: Vec<WatchedEvent>) {
        for event in events {
            if self.0.len() < MAX_TOPICS || self.0.contains_key(&event.topic) {
                *self.0.entry(event.topic).or_default() += 1;
            }
        }
    }

    /// Adds the counts of another time.
    pub fn add_counts(&mut self, other: &Self) {
        for (topic, count) in &other.0 {
            if self.0.len() < MAX_TOPICS || self.0.contains_key(topic) {
                *self.0.entry(topic.clone()).or_default() += count;
            }
        }
    }

    /// The busiest topics with their events per second, if counted for this time.
    pub fn busiest(self, duration: Duration, max_count: usize) -> Vec<(String, f64)> {
        let seconds = duration.as_secs_f64().max(0.001);
        let mut counts: Vec<(String, u64)> = self.0.into_iter().collect();
        counts.sort_by(|(one, a), (other, b)| b.cmp(a).then_with(|| one.cmp(other)));
        counts.truncate(max_count);
        counts.into_iter().map(|(topic, count)| (topic, count as f64 / seconds)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_are_first_and_equal_ones_in_the_order_of_their_names() {
        let event = |topic: &str| WatchedEvent {
            topic: topic.to_owned(),
            data: RawValue::from_string("1".to_owned()).unwrap(),
        };
        let mut counts = TopicCounts::default();
        counts.add(["b", "a", "c", "c", "d"].map(event).into_iter().collect());
        let names: Vec<String> = counts
            .busiest(Duration::from_secs(2), 3)
            .into_iter()
            .map(|(topic, rate)| format!("{topic} {rate}"))
            .collect();
        assert_eq!(names, ["c 1", "a 0.5", "b 0.5"]);
    }
}
