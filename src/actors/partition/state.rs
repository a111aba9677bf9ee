//! What a partition decides: the sequence of its events, what is kept, who gets what.

use std::{collections::HashMap, sync::Arc, time::Instant};

use super::{
    listeners::Listeners,
    messages::{Delivery, FanOut, FannedOut, InterestChange, Place},
};
use crate::{
    actors::ManagerId,
    domain::{
        budget::HistoryBudget,
        cursor::{Cursor, Epoch},
        event::{Event, EventBody, SequencedEvent},
        partition_log::PartitionLog,
        policy::Policies,
        remembered::{Answer, Remembered, RememberedBudget, RememberedFanOuts},
        topic::Topic,
    },
    error::PublishError,
    hub::Published,
    wire::encode,
};

/// What a partition is built from, at its start and after a panic.
#[derive(Debug, Clone)]
pub(crate) struct PartitionSpec {
    pub partition: u16,
    pub epoch: Epoch,
    pub policies: Arc<Policies>,
    pub budget: Arc<HistoryBudget>,
    pub max_idle_topics: usize,
    pub idempotency_window: std::time::Duration,
    pub remembered: Arc<RememberedBudget>,
    /// Of followers whom fan-outs with an id have reached.
    pub remembered_fan_outs: Arc<RememberedBudget>,
}

impl PartitionSpec {
    /// An empty log that begins after a sequence.
    pub fn log(&self, epoch: Epoch, sequence: u64) -> PartitionLog {
        PartitionLog::new(
            epoch,
            self.partition,
            sequence,
            self.policies.clone(),
            self.budget.clone(),
            self.max_idle_topics,
        )
    }
}

/// A partition.
pub(crate) struct PartitionState {
    spec: PartitionSpec,
    log: PartitionLog,
    /// Whether the log is between two states: a panic then has spoilt it.
    log_is_changing: bool,
    remembered: Remembered,
    fan_outs: RememberedFanOuts,
    listeners: Listeners,
    outgoing: HashMap<ManagerId, Vec<Delivery>>,
}

/// A publish that was taken.
pub(crate) struct Taken {
    pub published: Published,
    /// The partition that must trim its history, if another one must.
    pub trim: Option<u16>,
    /// Whether the event is new, not a repeated publish.
    pub is_new: bool,
}

impl PartitionState {
    pub fn new(spec: PartitionSpec) -> Self {
        Self {
            log: spec.log(spec.epoch, 0),
            log_is_changing: false,
            remembered: Remembered::new(spec.idempotency_window, spec.remembered.clone()),
            fan_outs: RememberedFanOuts::new(
                spec.idempotency_window,
                spec.remembered_fan_outs.clone(),
            ),
            listeners: Listeners::default(),
            outgoing: HashMap::new(),
            spec,
        }
    }

    /// Builds the partition anew with what the log holds. Who listens is forgotten. A log
    /// that the panic has spoilt is begun anew behind its last sequence, so that every
    /// stream that has missed something is told.
    pub fn rebuild(self) -> Self {
        let log = match self.log_is_changing {
            false => self.log,
            true => {
                let sequence = self.log.sequence() + 1;
                drop(self.log);
                self.spec.log(self.spec.epoch, sequence)
            }
        };
        Self {
            log,
            log_is_changing: false,
            remembered: self.remembered,
            fan_outs: self.fan_outs,
            listeners: Listeners::default(),
            outgoing: HashMap::new(),
            spec: self.spec,
        }
    }

    /// Gives the event its sequence, keeps it and queues it for the managers that listen.
    pub fn publish(
        &mut self,
        topic: &Topic,
        event: &Event,
        place: Option<Place>,
        now: Instant,
    ) -> Result<Taken, PublishError> {
        if let Some(id) = &event.id {
            if let Some(answer) = self.remembered.get(topic, id, now) {
                let published = self.published(topic, answer);
                return Ok(Taken { published, trim: None, is_new: false });
            }
            if self.remembered.is_full() {
                return Err(PublishError::AtCapacity);
            }
        }
        let body = Arc::new(encode::body(event, 1));
        let (sequenced, trim) = self.append(topic, body, now);
        let receivers = self.route(&sequenced, place);
        let answer = Answer { sequence: sequenced.sequence, receivers };
        if let Some(id) = &event.id {
            self.remembered.insert(topic, id, answer, now);
        }
        Ok(Taken { published: self.published(topic, answer), trim, is_new: true })
    }

    /// Does the same for each of these topics, with one body for all of them. Returns the
    /// other partitions that must trim their history too.
    pub fn fan_out(
        &mut self,
        fan_out: &FanOut,
        topics: &[Topic],
        place: Option<&Place>,
        now: Instant,
    ) -> Result<(FannedOut, Vec<u16>), PublishError> {
        if fan_out.id.as_ref().is_some_and(|id| !self.fan_outs.has_room(id, topics, now)) {
            return Err(PublishError::AtCapacity);
        }
        let (mut fanned_out, mut trims) = (FannedOut::default(), Vec::new());
        for topic in topics {
            fanned_out.online += usize::from(self.listeners.has_topic(topic));
            let id = fan_out.id.as_ref();
            if id.is_some_and(|id| !self.fan_outs.insert(id, topic, now)) {
                continue;
            }
            fanned_out.new += 1;
            let (event, asked) = self.append(topic, fan_out.body.clone(), now);
            trims.extend(asked);
            self.route(&event, place.cloned());
        }
        Ok((fanned_out, trims))
    }

    fn append(
        &mut self,
        topic: &Topic,
        body: Arc<EventBody>,
        now: Instant,
    ) -> (Arc<SequencedEvent>, Option<u16>) {
        self.log_is_changing = true;
        let appended = self.log.append(topic, now, |sequence, history| SequencedEvent {
            topic: topic.clone(),
            partition: self.spec.partition,
            epoch: self.spec.epoch,
            sequence,
            published_at: now,
            policy: history.policy.clone(),
            body,
            collapsed: None,
        });
        self.log_is_changing = false;
        appended
    }

    /// Whether a fan-out of this name was a pull before; else it is now as said here.
    pub fn settle(&mut self, name: &Arc<str>, is_pull: bool, now: Instant) -> bool {
        self.fan_outs.settle(name, is_pull, now)
    }

    /// Applies the changes in order; an attach is answered by a delivery.
    pub fn change_interest(
        &mut self,
        manager: ManagerId,
        changes: Vec<InterestChange>,
        now: Instant,
    ) {
        for change in changes {
            match change {
                InterestChange::Attach { stream, interest, from } => {
                    let replay = self.log.replay(&interest, from, now);
                    self.listeners.attach(manager, &interest);
                    self.queue(manager, Delivery::Attached { stream, replay });
                }
                InterestChange::Detach { interest, .. } => {
                    self.listeners.detach(manager, &interest)
                }
                InterestChange::DetachAll => self.remove_manager(manager),
            }
        }
    }

    /// Takes what is queued for a manager.
    pub fn take_outgoing(&mut self, manager: ManagerId) -> Vec<Delivery> {
        self.outgoing.remove(&manager).unwrap_or_default()
    }

    /// Whether something is queued for a manager.
    pub fn has_outgoing(&self, manager: ManagerId) -> bool {
        self.outgoing.contains_key(&manager)
    }

    /// Forgets a manager and its streams.
    pub fn remove_manager(&mut self, manager: ManagerId) {
        self.listeners.remove_manager(manager);
        self.outgoing.remove(&manager);
    }

    /// Forgets the oldest events while the budget is exceeded and they are the oldest.
    pub fn trim(&mut self) {
        // A partition that is asked does not ask others: it would go round.
        let _ = self.log.trim();
    }

    /// Forgets what time has overtaken.
    pub fn expire(&mut self, now: Instant) {
        self.log.expire(now);
        self.remembered.expire(now);
        self.fan_outs.expire(now);
    }

    /// Streams that listen to a topic, and its last event's sequence (0 if there was none).
    pub fn topic_status(&self, topic: &Topic) -> (usize, u64) {
        let last = self.log.history(topic).map_or(0, |history| history.last());
        (self.listeners.subscriber_count(topic), last)
    }

    /// How many topics have or had events.
    pub fn topic_count(&self) -> usize {
        self.log.topic_count()
    }

    fn route(&mut self, event: &Arc<SequencedEvent>, place: Option<Place>) -> usize {
        let receivers = self.listeners.receivers(&event.topic, event.event_type());
        for manager in receivers.managers {
            let delivery = Delivery::Event { event: event.clone(), place: place.clone() };
            self.queue(manager, delivery);
        }
        receivers.stream_count
    }

    fn queue(&mut self, manager: ManagerId, delivery: Delivery) {
        self.outgoing.entry(manager).or_default().push(delivery);
    }

    fn published(&self, topic: &Topic, answer: Answer) -> Published {
        let partition = self.spec.partition;
        let cursor = Cursor::of_event(self.spec.epoch, partition, answer.sequence);
        Published {
            event_id: cursor.to_string(),
            topic: topic.as_str().to_owned(),
            partition,
            sequence: answer.sequence,
            receivers: answer.receivers,
        }
    }
}
