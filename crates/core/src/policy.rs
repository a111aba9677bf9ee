//! Topic policies: flush, conflation, history and rate. Resolved once per topic from the
//! configuration; the first match wins.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde::Deserialize;

use crate::topic::Pattern;

/// Phases of the workers' ticks.
pub const PHASES: u32 = 10;

/// The moment of a topic's flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flush {
    /// At the next tick, together.
    Tick,
    /// Each at once.
    Immediate,
    /// At once after a quiet tick, else at the next tick.
    Leading,
}

impl Flush {
    /// The word in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tick => "tick",
            Self::Immediate => "immediate",
            Self::Leading => "leading",
        }
    }
}

/// The choice among the events of one tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Conflate {
    /// All of them.
    None,
    /// The last of the topic.
    Latest,
    /// The last of each key.
    LatestByKey,
}

impl Conflate {
    /// The word in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Latest => "latest",
            Self::LatestByKey => "latest-by-key",
        }
    }
}

/// A token bucket of `burst` events, refilled by `events_per_second`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Events a second in the long run; 0 turns the limit off.
    pub events_per_second: u32,
    /// Events allowed at once; at least 1 while the limit is on.
    pub burst: u32,
}

/// The treatment of a stream with a full outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SlowConsumer {
    /// The stream ends with `shutdown`; its client resumes from history without loss.
    Disconnect,
    /// The stream goes on with the newest events, after a `gap` for the dropped ones.
    DropOldest,
}

/// The treatment of a topic's events.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Index of the `[[topics]]` entry, for limiters kept per policy; none for the default.
    pub entry: Option<usize>,
    pub flush: Flush,
    pub tick: Duration,
    pub conflate: Conflate,
    pub history_events: usize,
    pub history_ttl: Duration,
    /// Rate limit of one stream over all topics of this entry.
    pub rate: Option<Rate>,
}

impl Policy {
    /// Whether a later event can supersede an earlier one.
    pub fn conflates(&self) -> bool {
        self.conflate != Conflate::None
    }

    /// The first tick after `now`. All topics of a worker with this `tick` share their ticks.
    /// Workers have different phases, in [`PHASES`] of a tick, so they do not send all at once.
    pub fn next_tick(&self, ticks_from: Instant, phase: u32, now: Instant) -> Instant {
        next_multiple(self.tick, ticks_from + self.tick / PHASES * phase, now)
    }
}

/// The first multiple of a duration after `now`, counted from `start`.
fn next_multiple(duration: Duration, start: Instant, now: Instant) -> Instant {
    let since = now.saturating_duration_since(start).as_nanos();
    let duration = duration.as_nanos().max(1);
    start + Duration::from_nanos(((since / duration + 1) * duration) as u64)
}

/// All policies of a hub.
#[derive(Debug)]
pub struct Policies {
    entries: Vec<(Pattern, Arc<Policy>)>,
    default: Arc<Policy>,
}

impl Policies {
    /// `entries` in the order of the configuration: the first matching pattern wins.
    pub fn new(default: Policy, entries: Vec<(Pattern, Policy)>) -> Self {
        let entries = entries.into_iter();
        let entries = entries.map(|(pattern, policy)| (pattern, Arc::new(policy))).collect();
        Self { entries, default: Arc::new(default) }
    }

    /// The parts of all policies with an effect on the log, as text. Instances with the same text
    /// write and read the same logs.
    pub fn history_terms(&self) -> String {
        let terms = |policy: &Policy| {
            let Policy { conflate, history_events, history_ttl, .. } = policy;
            let ttl = history_ttl.as_millis();
            format!("{} of {history_events} events, {ttl} ms", conflate.as_str())
        };
        let entries = self.entries.iter();
        let entries =
            entries.map(|(pattern, policy)| format!("{}: {}; ", pattern.as_str(), terms(policy)));
        entries.chain([format!("others: {}", terms(&self.default))]).collect()
    }

    /// The policy of a topic.
    pub fn of(&self, topic: &str) -> &Arc<Policy> {
        let entry = self.entries.iter().find(|(pattern, _)| pattern.matches(topic));
        entry.map_or(&self.default, |(_, policy)| policy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_tick_is_a_tick_away_at_most_whatever_the_phase() {
        let policy = crate::testing::policy(Conflate::None);
        let (start, tick) = (Instant::now(), policy.tick);
        for phase in 0..PHASES {
            let first = start + tick / PHASES * phase;
            for micros in (0..1_000_000).step_by(333) {
                let now = first + Duration::from_micros(micros);
                let next = policy.next_tick(start, phase, now);
                assert!(next > now && next <= now + tick);
                assert_eq!((next - first).as_nanos() % tick.as_nanos(), 0);
            }
        }
    }
}
