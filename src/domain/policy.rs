//! Topic policies: when events leave, which of them, what is kept, how fast one stream
//! may get them. Resolved once per topic from the configuration; first match wins.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::topic::{Pattern, TopicError};
use crate::config::{Config, Conflate, Flush, Rate};

/// Phases that the ticks of workers may have.
pub const PHASES: u32 = 10;

/// How the events of a topic are treated.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Which `[[topics]]` entry this is, for limiters kept per policy; the default has none.
    pub entry: Option<usize>,
    pub flush: Flush,
    pub tick: Duration,
    pub conflate: Conflate,
    pub history_events: usize,
    pub history_ttl: Duration,
    /// Bound on what one stream gets of all topics under this entry.
    pub rate: Option<Rate>,
}

impl Policy {
    /// Whether a later event can supersede an earlier one.
    pub fn conflates(&self) -> bool {
        self.conflate != Conflate::None
    }

    /// The first tick after `now`: the same moments for all topics of a worker that share a
    /// tick. Workers that have different phases, in [`PHASES`] of a tick, do not send at once.
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
    /// Resolves the configuration's entries against its defaults.
    ///
    /// # Errors
    /// A pattern that is not valid.
    pub fn new(config: &Config) -> Result<Self, TopicError> {
        let default = Policy {
            entry: None,
            flush: config.delivery.flush,
            tick: config.delivery.tick,
            conflate: config.delivery.conflate,
            history_events: config.history.events,
            history_ttl: config.history.ttl,
            rate: None,
        };
        let entries = config.topics.iter().enumerate().map(|(index, topic)| {
            let policy = Policy {
                entry: Some(index),
                flush: topic.flush.unwrap_or(default.flush),
                tick: topic.tick.unwrap_or(default.tick),
                conflate: topic.conflate.unwrap_or(default.conflate),
                history_events: topic.history.events.unwrap_or(default.history_events),
                history_ttl: topic.history.ttl.unwrap_or(default.history_ttl),
                rate: topic.rate.filter(|rate| rate.events_per_second > 0),
            };
            Ok((Pattern::parse(&topic.pattern)?, Arc::new(policy)))
        });
        Ok(Self { entries: entries.collect::<Result<_, _>>()?, default: Arc::new(default) })
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
        let config = Config::default();
        let policies = Policies::new(&config).unwrap();
        let policy = policies.of("any");
        let (start, tick) = (Instant::now(), config.delivery.tick);
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
