//! The decisions of a partition with its log in memory: sequences, history, idempotency and
//! routing.

use std::{sync::Arc, time::Instant};

use crate::{
    cursor::{Cursor, Epoch},
    error::PublishError,
    event::{EventBody, SequencedEvent},
    fan_out::{FanOutPublish, FannedOut},
    idempotency::{FanOutWindow, FirstAnswer, IdempotencyWindow},
    ids::{ManagerId, PublisherId},
    partition::{Delivery, InterestChange, PartitionSpec, routing::Routing},
    partition_log::PartitionLog,
    publish::{Published, SharedEvent},
    topic::Topic,
};

/// A partition with its log in memory.
pub struct MemoryPartition<P> {
    spec: PartitionSpec,
    log: PartitionLog,
    /// True during an append: after a panic, the log may be inconsistent.
    log_is_changing: bool,
    remembered: IdempotencyWindow,
    fan_outs: FanOutWindow,
    pub(super) routing: Routing<P>,
}

/// An accepted publish.
pub struct Taken {
    pub published: Published,
    /// Another partition due to trim its history, if any.
    pub trim: Option<u16>,
    /// Whether the event is new, not a repeated publish.
    pub is_new: bool,
}

impl<P: Clone> MemoryPartition<P> {
    pub fn new(spec: PartitionSpec) -> Self {
        Self {
            log: spec.log(spec.epoch, 0, spec.started_ms),
            log_is_changing: false,
            remembered: IdempotencyWindow::new(spec.idempotency_window, spec.remembered.clone()),
            fan_outs: FanOutWindow::new(spec.idempotency_window, spec.remembered_fan_outs.clone()),
            routing: Routing::default(),
            spec,
        }
    }

    /// Builds the partition anew around its log, without listeners. After a panic during an append,
    /// an empty log replaces it and skips one sequence. Then every stream with missed events gets
    /// a gap.
    pub fn rebuild(self) -> Self {
        let log = match self.log_is_changing {
            false => self.log,
            true => {
                let (sequence, last_time) = (self.log.sequence() + 1, self.log.last_time());
                drop(self.log);
                // Events of the last millisecond may be lost.
                self.spec.log(self.spec.epoch, sequence, last_time + 1)
            }
        };
        Self {
            log,
            log_is_changing: false,
            remembered: self.remembered,
            fan_outs: self.fan_outs,
            routing: Routing::default(),
            spec: self.spec,
        }
    }

    /// Gives the event its sequence, stores it, and queues it for the managers of its listeners.
    /// A repeated id within the idempotency window gets the first answer, and no new event.
    pub fn publish(
        &mut self,
        topic: &Topic,
        event: &SharedEvent,
        permit: Option<&P>,
        now: Instant,
    ) -> Result<Taken, PublishError> {
        let id = event.event().id.as_ref();
        if let Some(id) = id {
            if let Some(answer) = self.remembered.get(topic, id, now) {
                let published = self.published(topic, answer);
                return Ok(Taken { published, trim: None, is_new: false });
            }
            self.remembered.check(event.event().publisher)?;
        }
        let (sequenced, trim) = self.append(topic, event.body(), now);
        let receivers = self.route(&sequenced, permit);
        let (sequence, unix_ms) = (sequenced.sequence, sequenced.unix_ms);
        let answer = FirstAnswer { sequence, unix_ms, receivers };
        if let Some(id) = id {
            self.remembered.insert(topic, id, event.event().publisher, answer, now);
        }
        Ok(Taken { published: self.published(topic, answer), trim, is_new: true })
    }

    /// Publishes one body to each of these topics, except topics already reached by the fan-out's
    /// id. Returns the other partitions due to trim their history.
    pub fn fan_out(
        &mut self,
        fan_out: &FanOutPublish,
        topics: &[Topic],
        permit: Option<&P>,
        now: Instant,
    ) -> Result<(FannedOut, Vec<u16>), PublishError> {
        let publisher = fan_out.event.event().publisher;
        if let Some(id) = &fan_out.id {
            self.fan_outs.check(id, publisher, topics, now)?;
        }
        let (mut fanned_out, mut trims) = (FannedOut::default(), Vec::new());
        for topic in topics {
            fanned_out.online += usize::from(self.routing.listeners.has_topic(topic));
            let id = fan_out.id.as_ref();
            if id.is_some_and(|id| !self.fan_outs.insert(id, publisher, topic, now)) {
                continue;
            }
            fanned_out.new += 1;
            let (event, asked) = self.append(topic, fan_out.event.body(), now);
            trims.extend(asked);
            self.route(&event, permit);
        }
        Ok((fanned_out, trims))
    }

    fn append(
        &mut self,
        topic: &Topic,
        body: Arc<EventBody>,
        now: Instant,
    ) -> (Arc<SequencedEvent>, Option<u16>) {
        // The clock may be set back; the times of a partition never go back.
        let unix_ms = self.spec.clock.at(now).max(self.log.last_time());
        self.log_is_changing = true;
        let appended = self.log.append(topic, now, |sequence, history| SequencedEvent {
            topic: topic.clone(),
            partition: self.spec.partition,
            epoch: self.spec.epoch,
            sequence,
            published_at: now,
            unix_ms,
            policy: history.policy.clone(),
            body,
            collapsed: None,
        });
        self.log_is_changing = false;
        appended
    }

    /// Records the mode of the fan-out `name`; returns the mode recorded first (`true` for pull).
    ///
    /// # Errors
    /// The publisher's share of remembered fan-outs, or all of it, is used up.
    pub fn record_fan_out_mode(
        &mut self,
        name: &Arc<str>,
        publisher: PublisherId,
        is_pull: bool,
        now: Instant,
    ) -> Result<bool, PublishError> {
        self.fan_outs.settle(name, publisher, is_pull, now)
    }

    /// Applies the changes in order. A delivery answers each attach.
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
                    self.routing.listeners.attach(manager, &interest);
                    self.routing.queue(manager, Delivery::Attached { stream, replay });
                }
                InterestChange::Detach { interest, .. } => {
                    self.routing.listeners.detach(manager, &interest)
                }
                InterestChange::DetachAll => self.remove_manager(manager),
            }
        }
    }

    /// Forgets a manager and its streams.
    pub fn remove_manager(&mut self, manager: ManagerId) {
        self.routing.listeners.remove_manager(manager);
        self.routing.drop_outgoing(manager);
    }

    /// Evicts events while the budget is exceeded and this partition has the oldest.
    pub fn trim(&mut self) {
        // A partition does not pass the request on: requests would go in circles.
        let _ = self.log.trim();
    }

    /// Forgets expired events, ids and fan-outs.
    pub fn expire(&mut self, now: Instant) {
        self.log.expire(now);
        self.remembered.expire(now);
        self.fan_outs.expire(now);
    }

    /// The epoch and the last sequence.
    pub fn head(&self) -> (Epoch, u64) {
        (self.spec.epoch, self.log.sequence())
    }

    /// The sequence of a topic's last event; 0 if there is none.
    pub fn last_sequence(&self, topic: &Topic) -> u64 {
        self.log.history(topic).map_or(0, |history| history.last())
    }

    /// The number of topics in the log, including remembered topics without events.
    pub fn topic_count(&self) -> usize {
        self.log.topic_count()
    }

    fn route(&mut self, event: &Arc<SequencedEvent>, permit: Option<&P>) -> usize {
        let receivers = self.routing.listeners.receivers(&event.topic, event.event_type());
        for manager in receivers.managers {
            let delivery = Delivery::Event { event: event.clone(), permit: permit.cloned() };
            self.routing.queue(manager, delivery);
        }
        receivers.stream_count
    }

    fn published(&self, topic: &Topic, answer: FirstAnswer) -> Published {
        let partition = self.spec.partition;
        let cursor = Cursor::of_event(self.spec.epoch, answer.unix_ms, partition, answer.sequence);
        Published {
            event_id: cursor.to_string(),
            topic: topic.as_str().to_owned(),
            partition,
            sequence: answer.sequence,
            receivers: answer.receivers,
        }
    }
}
