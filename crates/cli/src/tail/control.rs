//! The hub's control events, in a sentence each for standard error.

use serde::Deserialize;

/// Most topics of a stream named on standard error; further ones are counted.
const MAX_NAMED_TOPICS: usize = 5;

/// The fields of the hub's control events. Each event has some of them.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Control {
    client_id: String,
    topics: Vec<String>,
    resumed: bool,
    reason: String,
    pub reconnect_ms: Option<u64>,
}

impl Control {
    /// None for a published event.
    pub fn parse(event_type: &str, data: &str) -> Option<Self> {
        matches!(event_type, "connected" | "gap" | "shutdown" | "renew" | "live" | "end")
            .then(|| serde_json::from_str(data).unwrap_or_default())
    }

    pub fn describe(&self, event_type: &str) -> String {
        match event_type {
            "connected" => {
                let (id, topics) = (&self.client_id, name_some(&self.topics));
                let how = if self.resumed { "resumed" } else { "live" };
                format!("connected as {id} to {topics}; {how}")
            }
            "gap" => self.gap(),
            "renew" => "renew: the token of this stream ends soon".to_owned(),
            "live" => "live: all stored events are printed".to_owned(),
            "end" => "end: the topics have ended".to_owned(),
            _ => {
                let reconnect_ms = self.reconnect_ms.unwrap_or_default();
                format!("shutdown: {}; reconnect in {reconnect_ms} ms", self.reason)
            }
        }
    }

    /// One sentence with the loss, its cause, and the way on.
    fn gap(&self) -> String {
        let lost = match name_some(&self.topics) {
            topics if topics.is_empty() => "some events are missing".to_owned(),
            topics => format!("some events of {topics} are missing"),
        };
        let cause = match self.reason.as_str() {
            "history" => "they are older than the events still stored by the hub",
            "epoch" => "the hub lost its history since the last id, for example by a restart",
            "slow" => "this command read too slowly, so the hub dropped the oldest ones",
            "rate" => "there were more of them than the rate limit of a stream allows",
            _ => "the hub cannot send them again",
        };
        format!(
            "gap ({}): {lost}, because {cause}; the stream goes on with the next event",
            self.reason
        )
    }
}

fn name_some(topics: &[String]) -> String {
    match topics.get(..MAX_NAMED_TOPICS) {
        Some(first) if topics.len() > MAX_NAMED_TOPICS => {
            format!("{} and {} more", first.join(", "), topics.len() - MAX_NAMED_TOPICS)
        }
        _ => topics.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn describe(event_type: &str, data: &str) -> Option<String> {
        Control::parse(event_type, data).map(|control| control.describe(event_type))
    }

    #[test]
    fn control_events_are_a_short_line_each() {
        let connected = r#"{"clientId":"c7","timestamp":1,"topics":["a","b"],"resumed":true}"#;
        assert_eq!(describe("connected", connected).unwrap(), "connected as c7 to a, b; resumed");
        assert_eq!(
            describe("shutdown", r#"{"reason":"drain","reconnectMs":120}"#).unwrap(),
            "shutdown: drain; reconnect in 120 ms"
        );
        assert_eq!(describe("like", "{}"), None);
    }

    #[test]
    fn a_gap_is_explained_in_one_sentence() {
        assert_eq!(
            describe("gap", r#"{"reason":"history","partitions":[3],"topics":["a"]}"#).unwrap(),
            "gap (history): some events of a are missing, because they are older than the events \
             still stored by the hub; the stream goes on with the next event"
        );
        for reason in ["epoch", "slow", "rate", "another"] {
            let text = describe("gap", &format!(r#"{{"reason":"{reason}"}}"#)).unwrap();
            assert!(
                text.starts_with(&format!("gap ({reason}): some events are missing, because "))
            );
        }
    }

    #[test]
    fn of_many_topics_only_the_first_are_named() {
        let topics: Vec<String> = (0..7).map(|number| format!("t{number}")).collect();
        assert_eq!(name_some(&topics), "t0, t1, t2, t3, t4 and 2 more");
        assert_eq!(name_some(&topics[..5]), "t0, t1, t2, t3, t4");
    }
}
