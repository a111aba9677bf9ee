//! Topic policies: when events leave, which of them, what is kept, how fast one stream
//! may get them. Resolved once per topic from the configuration; first match wins.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::topic::{Pattern, TopicError};
use crate::config::{Config, Conflate, Flush, Rate};

/// How many times in a tick events go on to the topic managers.
pub const STEPS: u32 = 10;

/// Longest time between events' going on to the topic managers, in milliseconds: they keep
/// their publishers' places until then, and a hub that ends waits for those.
const MAX_STEP_MS: u128 = 10;

/// Shortest time between events' going on to the topic managers: timers are no finer than a
/// millisecond.
const MIN_STEP: Duration = Duration::from_millis(2);

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
    /// tick. Workers that have different phases, in [`STEPS`] of a tick, do not send at once.
    pub fn next_tick(&self, ticks_from: Instant, phase: u32, now: Instant) -> Instant {
        next_multiple(self.tick, ticks_from + self.tick / STEPS * phase, now)
    }

    /// When an event that is published now goes on to the topic managers; none is at once.
    /// Those that wait for a tick go together, one of its [`STEPS`] apart or less, and so that
    /// the last arrive half of that before the tick.
    pub fn hand_over_at(&self, ticks_from: Instant, now: Instant) -> Option<Instant> {
        let steps =
            STEPS * self.tick.as_millis().div_ceil(STEPS.into()).div_ceil(MAX_STEP_MS) as u32;
        let step = self.tick / steps.max(STEPS);
        if self.flush != Flush::Tick || step < MIN_STEP {
            return None;
        }
        Some(next_multiple(step, ticks_from, now + step / 2) - step / 2)
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
    fn events_go_on_in_time_for_the_next_tick_but_those_just_before_it() {
        let config = Config::default();
        let policies = Policies::new(&config).unwrap();
        let policy = policies.of("any");
        let (start, tick) = (Instant::now(), config.delivery.tick);
        for micros in (0..1_000_000).step_by(333) {
            let now = start + Duration::from_micros(micros);
            let hand_over = policy.hand_over_at(start, now).unwrap();
            assert!(hand_over > now && hand_over <= now + tick / 10);
            for phase in 0..STEPS {
                let sent = policy.next_tick(start, phase, hand_over);
                assert!(sent >= hand_over + tick / 20, "there is time to go on");
                // But for the first, which not every worker has at once.
                assert!(sent <= now + tick + tick / 20 || sent <= start + 2 * tick);
            }
        }
    }

    #[test]
    fn no_event_waits_for_long_before_it_goes_on() {
        let mut config = Config::default();
        for millis in [20, 99, 100, 101, 333, 1000, 3_600_000] {
            config.delivery.tick = Duration::from_millis(millis);
            let policies = Policies::new(&config).unwrap();
            let now = Instant::now();
            let hand_over = policies.of("any").hand_over_at(now, now).unwrap();
            assert!(hand_over > now && hand_over <= now + Duration::from_millis(10));
        }
    }

    #[test]
    fn what_waits_for_no_tick_goes_on_at_once() {
        let mut config = Config::default();
        for (flush, tick) in [(Flush::Immediate, 100), (Flush::Leading, 100), (Flush::Tick, 5)] {
            config.delivery.flush = flush;
            config.delivery.tick = Duration::from_millis(tick);
            let policies = Policies::new(&config).unwrap();
            let now = Instant::now();
            assert_eq!(policies.of("any").hand_over_at(now, now), None);
        }
    }
}
