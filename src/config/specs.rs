//! The configuration in the form of the hub's parts: specs and policies.

use std::{sync::Arc, time::Instant};

use fanfare_core::{
    connection::ConnectionSpec,
    policy::{Policies, Policy},
    replays::ReplayLimit,
    topic::{Pattern, TopicError},
    topic_manager::ManagerSpec,
};

use super::Config;

impl Config {
    pub(crate) fn connection_spec(&self) -> ConnectionSpec {
        ConnectionSpec {
            rate: self.stream.rate,
            max_outbox_bytes: self.outbox.max_bytes,
            slow_consumer: self.outbox.slow_consumer,
            write_timeout: self.stream.write_timeout,
        }
    }

    /// The spec of a topic manager started at `start`, in the first phase of the ticks.
    pub(crate) fn manager_spec(&self, start: Instant) -> ManagerSpec {
        ManagerSpec {
            start,
            ticks_from: start,
            tick_phase: 0,
            partition_count: self.hub.partitions,
            heartbeat: self.stream.heartbeat,
            max_lifetime: self.stream.max_lifetime,
            max_lifetime_jitter: self.stream.max_lifetime_jitter,
            max_batch_events: self.stream.max_batch_events,
            max_batch_bytes: self.stream.max_batch_bytes,
            limits: self.hub.stream_limits(),
            max_changes_per_second: self.stream.topic_changes_per_second,
            renew_before: self.access.renew_before,
            ask_grace: self.access.webhook.grace,
            ask_timeout: self.access.webhook.timeout,
            replays: Arc::new(ReplayLimit::new(self.hub.max_replays)),
        }
    }

    /// Resolves the `[[topics]]` entries against the defaults of `[delivery]` and `[history]`.
    pub(crate) fn policies(&self) -> Result<Policies, TopicError> {
        let default = Policy {
            entry: None,
            flush: self.delivery.flush,
            tick: self.delivery.tick,
            conflate: self.delivery.conflate,
            history_events: self.history.events,
            history_ttl: self.history.ttl,
            rate: None,
        };
        let entries = self.topics.iter().enumerate().map(|(index, topic)| {
            let policy = Policy {
                entry: Some(index),
                flush: topic.flush.unwrap_or(default.flush),
                tick: topic.tick.unwrap_or(default.tick),
                conflate: topic.conflate.unwrap_or(default.conflate),
                history_events: topic.history.events.unwrap_or(default.history_events),
                history_ttl: topic.history.ttl.unwrap_or(default.history_ttl),
                rate: topic.rate.filter(|rate| rate.events_per_second > 0),
            };
            Ok((Pattern::parse(&topic.pattern)?, policy))
        });
        let entries = entries.collect::<Result<_, _>>()?;
        Ok(Policies::new(default, entries))
    }
}
