//! The settings of one schedule: bounds and policies drawn at random, small enough to be
//! reached.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use fanfare_core::{
    connection::ConnectionSpec,
    policy::{Conflate, Flush, Policies, Policy, Rate, SlowConsumer},
    replays::ReplayLimit,
    subscription::StreamLimits,
    topic::Pattern,
    topic_manager::ManagerSpec,
};
use rand::{RngExt, rngs::StdRng};

use crate::any;

pub const PARTITIONS: u16 = 4;
const HISTORY_TTL: Duration = Duration::from_secs(2);

/// The limits and policies of a schedule, in place of a configuration.
#[derive(Debug)]
pub struct ModelSettings {
    pub max_topics: usize,
    pub history_events: usize,
    history_ttl: Duration,
    /// The byte budget of an instance's history, with the model Redis.
    pub cache_bytes: usize,
    /// With the model Redis: also very few, so that topics are forgotten.
    pub max_idle_topics: usize,
    max_replays: usize,
    pub connection: ConnectionSpec,
    max_batch_events: usize,
}

impl ModelSettings {
    pub fn new(rng: &mut StdRng) -> Self {
        Self {
            max_topics: any(rng, &[5, 100]),
            history_events: rng.random_range(2..12),
            history_ttl: any(rng, &[HISTORY_TTL, Duration::from_secs(1000)]),
            cache_bytes: any(rng, &[0, 700, 3000, usize::MAX / 2]),
            max_idle_topics: any(rng, &[1, 100]),
            max_replays: any(rng, &[1, 2, 100]),
            connection: ConnectionSpec {
                max_outbox_bytes: any(rng, &[4096, 1 << 20]),
                slow_consumer: any(rng, &[SlowConsumer::Disconnect, SlowConsumer::DropOldest]),
                rate: Rate { events_per_second: any(rng, &[0, 0, 40]), burst: 3 },
                write_timeout: Duration::from_secs(30),
            },
            max_batch_events: any(rng, &[3, 10_000]),
        }
    }

    pub fn limits(&self) -> StreamLimits {
        let max_topics = self.max_topics;
        StreamLimits { max_topics, max_patterns: max_topics, max_types: 64 }
    }

    pub fn manager(&self, now: Instant) -> ManagerSpec {
        ManagerSpec {
            start: now,
            ticks_from: now,
            tick_phase: 0,
            partition_count: PARTITIONS,
            heartbeat: Duration::from_secs(15),
            max_lifetime: Duration::ZERO,
            max_lifetime_jitter: Duration::ZERO,
            max_batch_events: self.max_batch_events,
            max_batch_bytes: 1024 * 1024,
            limits: self.limits(),
            max_changes_per_second: 0,
            renew_before: Duration::from_secs(30),
            ask_grace: Duration::from_secs(300),
            ask_timeout: Duration::from_secs(5),
            replays: Arc::new(ReplayLimit::new(self.max_replays)),
        }
    }

    pub fn policies(&self) -> Policies {
        let default = Policy {
            entry: None,
            flush: Flush::Leading,
            tick: Duration::from_millis(100),
            conflate: Conflate::None,
            history_events: self.history_events,
            history_ttl: self.history_ttl,
            rate: None,
        };
        let entries = [
            ("now:*", Flush::Immediate, Conflate::None, default.tick),
            ("tick:*", Flush::Tick, Conflate::None, default.tick),
            ("latest:*", Flush::Tick, Conflate::Latest, default.tick),
            ("key:*", Flush::Tick, Conflate::LatestByKey, default.tick),
            ("slow-tick:*", Flush::Tick, Conflate::None, Duration::from_millis(700)),
        ];
        let entries = entries.into_iter().enumerate().map(|(entry, of)| {
            let (pattern, flush, conflate, tick) = of;
            let policy = Policy { entry: Some(entry), flush, tick, conflate, ..default.clone() };
            (Pattern::parse(pattern).unwrap(), policy)
        });
        let entries = entries.collect();
        Policies::new(default, entries)
    }
}
