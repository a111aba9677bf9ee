//! The way of a log's events: to this instance's streams, and into the replica's history.

use std::{sync::Arc, time::Instant};

use super::{LinkState, Replica, sequenced};
use crate::{log::LogEvent, partition::Delivery, topic::Topic};

impl<P> Replica<P> {
    pub(super) fn on_event(&mut self, mut event: LogEvent, now: Instant) {
        event.epoch = self.present_epoch(event.epoch);
        if self.is_known && event.epoch < self.log.epoch() {
            return;
        }
        if self.is_up() && event.epoch == self.log.epoch() {
            return self.pass(event, now);
        }
        if self.is_up() {
            // A push of a newer epoch. The head read by catching up starts this epoch.
            self.catch_up();
        }
        self.hold(event);
    }

    pub(super) fn pass(&mut self, event: LogEvent, now: Instant) {
        if self.coverage.topic_since(&event.topic).is_none() {
            return self.hold_unconfirmed(event);
        }
        let known = self.known_through(&event.topic);
        if event.sequence <= known {
            // A repeated push, or an event already read.
            return;
        }
        if event.previous > known {
            // A push is missing. Newer events of this topic have to wait for it.
            self.catch_up();
            return self.hold(event);
        }
        if event.sequence > self.log.sequence() {
            self.apply(event, now);
        } else {
            // Newer events of other topics are already routed, so the order is broken.
            self.apply_late(vec![event], now);
        }
    }

    /// Keeps a push of a topic with an unconfirmed subscription. The topic's read in flight may
    /// bring older events, so the push must not enter the history before them.
    pub(super) fn hold_unconfirmed(&mut self, event: LogEvent) {
        let LinkState::Up { unconfirmed } = &mut self.link else { return };
        if self.coverage.covers(&event.topic) {
            unconfirmed.push(event);
        }
        if unconfirmed.is_over_full() {
            self.catch_up();
        }
    }

    /// The replica needs no push of the topic up to this sequence: the event is here, was evicted,
    /// or is older than the topic's coverage.
    pub(super) fn known_through(&self, topic: &Topic) -> u64 {
        let since = self.coverage.topic_since(topic).unwrap_or(0);
        match self.log.history(topic) {
            Some(history) => history.last().max(since),
            None => self.log.forgotten_through().max(since),
        }
    }

    pub(super) fn apply(&mut self, event: LogEvent, now: Instant) {
        if self.log.history(&event.topic).is_none() {
            let begin = self.begin_of(&event.topic);
            self.log.begin_topic(&event.topic, begin);
        }
        let partition = self.spec.partition.partition;
        let topic = event.topic.clone();
        let epoch = self.log.epoch();
        let (event, trim) = self.log.append_at(event.sequence, &topic, now, |_, history| {
            sequenced(event, partition, epoch, history.policy.clone())
        });
        self.trims.extend(trim);
        let receivers = self.routing.listeners.receivers(&topic, event.event_type());
        for manager in receivers.managers {
            self.queue(manager, Delivery::Event { event: event.clone(), permit: None });
        }
        self.count_pinned(event.size_bytes());
    }

    pub(super) fn merge(
        &mut self,
        topic: &Topic,
        events: Vec<LogEvent>,
        lost_through: u64,
        is_trimmed: bool,
    ) {
        let begin = self.begin_of(topic);
        if self.log.history(topic).is_none() {
            self.log.begin_topic(topic, begin);
        }
        let policy = self.spec.partition.policies.of(topic.as_str());
        let (partition, epoch) = (self.spec.partition.partition, self.log.epoch());
        let events = events.into_iter();
        let events =
            events.map(|event| Arc::new(sequenced(event, partition, epoch, policy.clone())));
        self.log.merge(topic, events.collect(), None, lost_through, is_trimmed);
    }
}
