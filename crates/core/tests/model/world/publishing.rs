//! Publishing: single events, and one event for many topics.

use std::{collections::BTreeMap, sync::Arc};

use fanfare_core::{event::Event, fan_out::FanOutPublish, publish::SharedEvent, topic::Topic};
use rand::RngExt;
use serde_json::json;

use super::{COLLAPSE, KEYS, MANAGERS, PARTITIONS, TOPICS, TYPES, World, any};
use crate::{
    graph::{NOTIFICATIONS, POSTS},
    reference::EventRecord,
};

/// A fan-out, repeated now and then like a retry after a lost answer.
pub(super) struct Repeated {
    fan_out: FanOutPublish,
    number: usize,
    collapse: Option<&'static str>,
    event_type: Option<&'static str>,
    reached: Vec<&'static str>,
}

/// An event with a number as data.
fn event(
    number: usize,
    event_type: Option<&'static str>,
    key: Option<&'static str>,
    collapse: Option<&'static str>,
) -> Event {
    let mut event = match collapse {
        Some(collapse) => Event::json(&json!({ "n": number })).unwrap().collapse(collapse),
        None => Event::text(number.to_string()),
    };
    event = event.id(format!("id {number}"));
    event.event_type = event_type.map(Into::into);
    event.key = key.map(Into::into);
    event
}

impl World {
    pub(super) fn publish(&mut self) {
        let topic = match self.has_feeds && self.rng.random_bool(0.5) {
            true => any(&mut self.rng, &POSTS),
            false => any(&mut self.rng, &TOPICS),
        };
        let (mut event_type, key) = (any(&mut self.rng, &TYPES), any(&mut self.rng, &KEYS));
        let mut collapse = any(&mut self.rng, &COLLAPSE);
        // The model Redis keeps the number in a removal's data; a partition in memory does not.
        let is_keyed = self.redis.is_some() && topic.starts_with("key") && key.is_some();
        let is_removal = is_keyed && self.rng.random_bool(0.3);
        if is_removal {
            (event_type, collapse) = (Some("deleted"), None);
        }
        let parsed = Topic::parse(topic).unwrap();
        let partition = parsed.partition(PARTITIONS);
        self.last_number += 1;
        let number = self.last_number;
        let mut event = event(number, event_type, key, collapse);
        event.delete = is_removal;
        let again = self.rng.random_bool(0.1);
        let sequence = match &mut self.redis {
            Some(redis) => {
                let instance = self.rng.random_range(0..MANAGERS);
                if !redis.partitions[usize::from(partition)].lines[instance].is_up {
                    // Refused: there is no link.
                    return;
                }
                let policy = redis.policies.of(topic).clone();
                let log = &mut redis.partitions[usize::from(partition)];
                log.check_sequence(instance);
                let sequence = log.publish(&parsed, &event, &policy, self.now);
                log.note(instance, log.epoch(), sequence);
                let acknowledged = log.acknowledge();
                redis.acknowledged[instance][usize::from(partition)].note(acknowledged);
                sequence
            }
            None => {
                let state = self.instances[0][usize::from(partition)].partition();
                let state = state.memory().unwrap();
                let shared = SharedEvent::from(event);
                let mut publish = || {
                    let taken = state.publish(&parsed, &shared, None, self.now);
                    taken.map_err(|error| error.to_string()).unwrap().published.sequence
                };
                let sequence = publish();
                assert!(!again || publish() == sequence);
                sequence
            }
        };
        self.note_published(EventRecord {
            key,
            is_removal,
            ..self.record(number, topic, sequence, event_type, collapse)
        });
    }

    /// Publishes one event for some users, or repeats the last fan-out.
    pub(super) fn fan_out(&mut self) {
        let last = self.fan_outs.last().filter(|_| self.rng.random_bool(0.4));
        if last.is_none() {
            self.last_number += 1;
            let number = self.last_number;
            let event_type = any(&mut self.rng, &TYPES);
            let collapse = any(&mut self.rng, &COLLAPSE);
            let event = event(number, event_type, None, collapse);
            let event = Arc::new(SharedEvent::new(event, 2));
            let id = Some(format!("fan-out {number}").into());
            let fan_out = FanOutPublish { id, event };
            let reached = Vec::new();
            self.fan_outs.push(Repeated { fan_out, number, collapse, event_type, reached });
        }
        let mut by_partition: BTreeMap<u16, Vec<Topic>> = BTreeMap::new();
        for topic in NOTIFICATIONS.into_iter().chain(["notifications:w"]) {
            let parsed = Topic::parse(topic).unwrap();
            if self.rng.random_bool(0.7) {
                by_partition.entry(parsed.partition(PARTITIONS)).or_default().push(parsed);
            }
        }
        for (partition, topics) in by_partition {
            self.fan_out_in(partition, &topics);
        }
    }

    fn fan_out_in(&mut self, partition: u16, topics: &[Topic]) {
        let last_in_partition = self.reference.last_in(partition);
        let Some(repeated) = self.fan_outs.last_mut() else { return };
        let told: Vec<(Topic, u64)> = match &mut self.redis {
            Some(redis) => {
                let instance = self.rng.random_range(0..MANAGERS);
                let log = &mut redis.partitions[usize::from(partition)];
                if !log.lines[instance].is_up {
                    return;
                }
                log.check_sequence(instance);
                let told = log.fan_out(&repeated.fan_out, topics, &redis.policies, self.now);
                if let Some((_, sequence)) = told.last() {
                    log.note(instance, log.epoch(), *sequence);
                    let acknowledged = log.acknowledge();
                    redis.acknowledged[instance][usize::from(partition)].note(acknowledged);
                }
                told
            }
            None => {
                let state = self.instances[0][usize::from(partition)].partition();
                let state = state.memory().unwrap();
                let fanned_out = state.fan_out(&repeated.fan_out, topics, None, self.now);
                let fanned_out = fanned_out.map_err(|error| error.to_string()).unwrap().0;
                let new = topics.iter().filter(|one| !repeated.reached.contains(&one.as_str()));
                let new: Vec<(Topic, u64)> = new.cloned().zip(last_in_partition + 1..).collect();
                assert_eq!(fanned_out.new, new.len());
                new
            }
        };
        let Repeated { number, event_type, collapse, .. } = *repeated;
        for (topic, sequence) in told {
            let all = NOTIFICATIONS.into_iter().chain(["notifications:w"]);
            let topic = all.into_iter().find(|one| *one == topic.as_str()).unwrap();
            self.fan_outs.last_mut().unwrap().reached.push(topic);
            self.totals.fanned_out += 1;
            self.note_published(self.record(number, topic, sequence, event_type, collapse));
        }
    }

    fn record(
        &self,
        number: usize,
        topic: &'static str,
        sequence: u64,
        event_type: Option<&'static str>,
        collapse: Option<&'static str>,
    ) -> EventRecord {
        EventRecord {
            number,
            topic,
            partition: Topic::parse(topic).unwrap().partition(PARTITIONS),
            era: self.redis.as_ref().map_or(0, |redis| redis.era),
            sequence,
            event_type,
            key: None,
            is_removal: false,
            collapse,
            at: self.now,
            is_lost: false,
            is_gone: false,
        }
    }

    fn note_published(&mut self, record: EventRecord) {
        self.reference.publish(record);
        self.promise();
    }
}
