//! Entries between their acceptance and the journal's answer, and their end.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Applying, JournaledPartition, Outcome};
use crate::{
    error::PublishError,
    event::EventBody,
    fan_out::FannedOut,
    ids::PublisherId,
    journal::JournalError,
    partition::memory::{PublishTerms, Stamp},
    topic::Topic,
};

/// An accepted entry. Its record, if it has one, is in a batch.
pub(super) enum Accepted<P> {
    Event(AcceptedEvent<P>),
    /// A publish with the id of an entry before it.
    Repeated {
        topic: Topic,
        id: Box<str>,
    },
    FanOut(AcceptedFanOut<P>),
    Mode {
        name: Arc<str>,
        is_first: bool,
    },
    /// The removal of a key by the hub itself.
    Removal {
        stamp: Stamp,
        topic: Topic,
        key: Box<str>,
        body: Arc<EventBody>,
    },
}

pub(super) struct AcceptedEvent<P> {
    pub stamp: Stamp,
    pub topic: Topic,
    pub body: Arc<EventBody>,
    pub id: Option<Box<str>>,
    pub publisher: PublisherId,
    pub ttl: Option<Duration>,
    pub permit: Option<P>,
}

pub(super) struct AcceptedFanOut<P> {
    /// The place of the first of the new topics; the others follow.
    pub stamp: Stamp,
    pub id: Option<Arc<str>>,
    pub body: Arc<EventBody>,
    pub new: Vec<Topic>,
    /// Topics reached by the fan-out's id before, perhaps by an entry in flight.
    pub reached: Vec<Topic>,
    pub permit: Option<P>,
}

impl<P> Accepted<P> {
    /// The work of applying the entry, in events.
    pub fn cost(&self) -> usize {
        match self {
            Self::FanOut(fan_out) => fan_out.new.len().max(1),
            _ => 1,
        }
    }

    /// The topics of the entry with a body, with its key.
    pub fn keys(&self) -> impl Iterator<Item = (&Topic, &str)> {
        let (topics, body) = match self {
            Self::Event(event) => (std::slice::from_ref(&event.topic), Some(&event.body)),
            Self::FanOut(fan_out) => (&fan_out.new[..], Some(&fan_out.body)),
            Self::Removal { topic, body, .. } => (std::slice::from_ref(topic), Some(body)),
            Self::Repeated { .. } | Self::Mode { .. } => (&[][..], None),
        };
        let key = body.and_then(|body| body.key.as_deref());
        topics.iter().filter_map(move |topic| Some((topic, key?)))
    }

    /// The last sequence of the entry; 0 without one.
    fn last_sequence(&self) -> u64 {
        match self {
            Self::Event(event) => event.stamp.sequence,
            Self::FanOut(fan_out) => fan_out.stamp.sequence + fan_out.new.len() as u64 - 1,
            Self::Removal { stamp, .. } => stamp.sequence,
            Self::Repeated { .. } | Self::Mode { .. } => 0,
        }
    }

    /// The answer to a refused publish; none for the hub's own entries.
    fn refusal(&self, error: PublishError) -> Option<Outcome> {
        Some(match self {
            Self::Event(_) | Self::Repeated { .. } => Outcome::Published(Err(error)),
            Self::FanOut(_) => Outcome::FannedOut(Err(error)),
            Self::Mode { .. } => Outcome::Mode(Err(error)),
            Self::Removal { .. } => return None,
        })
    }
}

impl<P: Clone> JournaledPartition<P> {
    /// The entry is on disk: its effects become visible.
    pub(super) fn apply_entry(&mut self, entry: Accepted<P>, now: Instant) {
        let after_panic = entry.refusal(PublishError::Internal);
        self.applying = Some(Applying { sequence: entry.last_sequence(), after_panic });
        let outcome = match entry {
            Accepted::Event(event) => Some(Outcome::Published(Ok(self.apply_event(event, now)))),
            Accepted::Repeated { topic, id } => {
                let taken = self.memory.repeated(&topic, &id, now);
                Some(Outcome::Published(taken.ok_or_else(|| self.failure.into())))
            }
            Accepted::FanOut(fan_out) => Some(Outcome::FannedOut(self.apply_fan_out(fan_out, now))),
            Accepted::Mode { name, .. } => {
                let mode = self.memory.fan_outs.mode_of(&name);
                Some(Outcome::Mode(mode.ok_or_else(|| self.failure.into())))
            }
            Accepted::Removal { stamp, topic, body, .. } => {
                let trim = self.memory.store_silently(stamp, &topic, body, None, now);
                self.removals.trims.extend(trim);
                None
            }
        };
        self.applying = None;
        self.outcomes.extend(outcome);
        self.gather_lost();
    }

    fn apply_event(&mut self, event: AcceptedEvent<P>, now: Instant) -> super::Taken {
        let AcceptedEvent { stamp, topic, body, id, publisher, ttl, permit } = event;
        let terms = PublishTerms { id: id.as_deref(), publisher, ttl };
        let taken = self.memory.store(stamp, &topic, body, terms, permit.as_ref(), now);
        if let Some(id) = id {
            self.ids.remove(&(topic, id));
        }
        taken
    }

    fn apply_fan_out(
        &mut self,
        fan_out: AcceptedFanOut<P>,
        now: Instant,
    ) -> Result<(FannedOut, Vec<u16>), PublishError> {
        let AcceptedFanOut { stamp, id, body, new, reached, permit } = fan_out;
        let topics = new.iter().chain(&reached);
        let online = topics.filter(|topic| self.is_online(topic)).count();
        let mut trims = Vec::new();
        for (topic, sequence) in new.iter().zip(stamp.sequence..) {
            let stamp = Stamp { sequence, ..stamp };
            trims.extend(self.memory.store_silently(
                stamp,
                topic,
                body.clone(),
                permit.as_ref(),
                now,
            ));
        }
        let is_lost = |topic| id.as_ref().is_some_and(|id| !self.memory.fan_outs.has(id, topic));
        // The entry with a topic's event may have failed after this one was accepted.
        match reached.iter().any(is_lost) {
            true => Err(self.failure.into()),
            false => Ok((FannedOut { new: new.len(), online }, trims)),
        }
    }

    /// The entry is not on disk: it leaves nothing behind.
    pub(super) fn refuse_entry(&mut self, entry: Accepted<P>, error: JournalError, now: Instant) {
        self.failure = error;
        let refusal = entry.refusal(error.into());
        let outcome = match entry {
            Accepted::Event(AcceptedEvent { topic, id: Some(id), .. }) => {
                self.ids.remove(&(topic, id));
                refusal
            }
            // The entry before it may be on disk.
            Accepted::Repeated { topic, id } => match self.memory.repeated(&topic, &id, now) {
                Some(taken) => Some(Outcome::Published(Ok(taken))),
                None => refusal,
            },
            Accepted::FanOut(AcceptedFanOut { id: Some(id), new, .. }) => {
                self.memory.fan_outs.forget(&id, &new);
                refusal
            }
            Accepted::Mode { name, is_first: true } => {
                self.memory.fan_outs.forget_mode(&name);
                refusal
            }
            Accepted::Removal { stamp, topic, key, .. } => {
                self.removals.retry(topic, key, stamp, now);
                None
            }
            Accepted::Event(_) | Accepted::FanOut(_) | Accepted::Mode { .. } => refusal,
        };
        self.outcomes.extend(outcome);
    }
}
