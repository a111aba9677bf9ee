//! The decisions of a partition with its log in memory: sequences, history, idempotency and
//! routing.

mod changes;

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    cursor::{Cursor, Epoch},
    error::PublishError,
    event::{Event, EventBody, SequencedEvent},
    fan_out::{FanOutPublish, FannedOut},
    history::HistoryRing,
    idempotency::{FanOutWindow, FirstAnswer, IdempotencyWindow},
    ids::{ManagerId, PublisherId, StreamId},
    partition::{
        Delivery, InterestChange, PartitionSpec, key_ends::KeyEnds, listeners::Receivers,
        routing::Routing,
    },
    partition_log::PartitionLog,
    publish::{Published, SharedEvent},
    sse::encode,
    topic::Topic,
};

/// Keys removed in one turn: about a millisecond.
const MAX_ENDS_A_TURN: usize = 256;

/// A partition with its log in memory.
pub struct MemoryPartition<P> {
    pub(super) spec: PartitionSpec,
    pub(super) log: PartitionLog,
    /// True during an append: after a panic, the log may be inconsistent.
    log_is_changing: bool,
    pub(super) remembered: IdempotencyWindow,
    pub(super) fan_outs: FanOutWindow,
    /// The answer to a publish with its event in history, and not answered yet.
    stored: Option<FirstAnswer>,
    pub(super) routing: Routing<P>,
    /// Streams between two pages of their replay: not attached yet.
    replaying: HashSet<(ManagerId, StreamId)>,
    /// The keys with a time to live.
    pub(super) key_ends: KeyEnds,
    /// Other partitions due to trim their history, asked at the end of the turn.
    trims: Vec<u16>,
    /// Changes to apply in later turns.
    changes: VecDeque<(ManagerId, InterestChange)>,
}

/// The place of an event: its sequence, its time, and the moment of its publish.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stamp {
    pub sequence: u64,
    pub unix_ms: u64,
    pub published_at: Instant,
}

/// The parts of an event used by the partition only.
#[derive(Debug, Clone, Copy)]
pub(super) struct PublishTerms<'a> {
    pub id: Option<&'a str>,
    pub publisher: PublisherId,
    pub ttl: Option<Duration>,
}

impl<'a> PublishTerms<'a> {
    pub fn of(event: &'a Event) -> Self {
        Self { id: event.id.as_deref(), publisher: event.publisher, ttl: event.ttl }
    }
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
            log: spec.own_log(0, spec.started_ms),
            log_is_changing: false,
            remembered: IdempotencyWindow::new(spec.idempotency_window, spec.remembered.clone()),
            fan_outs: FanOutWindow::new(spec.idempotency_window, spec.remembered_fan_outs.clone()),
            routing: Routing::default(),
            replaying: HashSet::new(),
            key_ends: KeyEnds::default(),
            trims: Vec::new(),
            changes: VecDeque::new(),
            stored: None,
            spec,
        }
    }

    /// Builds the partition anew around its log, without listeners. After a panic during an append,
    /// an empty log replaces it and skips one sequence. Then every stream with missed events gets
    /// a gap.
    pub fn rebuild(self) -> Self {
        let lost = self.log_is_changing.then(|| self.log.sequence() + 1);
        self.rebuild_after(lost)
    }

    /// The same; with a sequence, an empty log after it replaces the log.
    pub(super) fn rebuild_after(self, lost: Option<u64>) -> Self {
        let log = match lost {
            None => self.log,
            Some(sequence) => {
                let last_time = self.log.last_time();
                drop(self.log);
                // Events of the last millisecond may be lost.
                self.spec.own_log(sequence, last_time + 1)
            }
        };
        Self {
            log,
            log_is_changing: false,
            remembered: self.remembered,
            fan_outs: self.fan_outs,
            routing: Routing::default(),
            replaying: HashSet::new(),
            key_ends: self.key_ends,
            trims: self.trims,
            changes: VecDeque::new(),
            stored: self.stored,
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
        let terms = PublishTerms::of(event.event());
        if let Some(id) = terms.id {
            if let Some(taken) = self.repeated(topic, id, now) {
                return Ok(taken);
            }
            self.remembered.check(terms.publisher)?;
        }
        let taken = self.store(self.stamp(now), topic, event.body_for(topic), terms, permit, now);
        self.tell_lost_values(now);
        Ok(taken)
    }

    /// The first answer to a publish with this id, within the window.
    pub(super) fn repeated(&mut self, topic: &Topic, id: &str, now: Instant) -> Option<Taken> {
        let answer = self.remembered.get(topic, id, now)?;
        Some(Taken { published: self.published(topic, answer), trim: None, is_new: false })
    }

    /// Stores an event, and queues it for the managers of its listeners.
    pub(super) fn store(
        &mut self,
        stamp: Stamp,
        topic: &Topic,
        body: Arc<EventBody>,
        terms: PublishTerms<'_>,
        permit: Option<&P>,
        now: Instant,
    ) -> Taken {
        let receivers = self.routing.listeners.receivers(topic, body.event_type.as_deref());
        let (sequenced, trim) = self.append(stamp, topic, body, now);
        let (sequence, unix_ms) = (sequenced.sequence, sequenced.unix_ms);
        let answer = FirstAnswer { sequence, unix_ms, receivers: receivers.stream_count };
        // From here on the event is in history: after a panic, [`Self::take_stored`] answers. Only
        // then comes the rest, and the id first: a retry must not store the event twice.
        self.stored = Some(answer);
        if let Some(id) = terms.id {
            self.remembered.insert(topic, id, terms.publisher, answer, now);
        }
        if let Some(ttl) = terms.ttl {
            self.key_ends.add(stamp.published_at, ttl, &sequenced, &self.log);
        }
        self.queue_for(receivers, &sequenced, permit);
        self.stored = None;
        Taken { published: self.published(topic, answer), trim, is_new: true }
    }

    /// After a panic during a publish and [`Self::rebuild`]: the answer, if the event is in
    /// history. Its streams end, and get it when they resume.
    pub fn take_stored(&mut self, topic: &Topic) -> Option<Taken> {
        let answer = self.stored.take()?;
        Some(Taken { published: self.published(topic, answer), trim: None, is_new: true })
    }

    /// Forgets this answer: its publish has another one.
    pub(super) fn forget_stored(&mut self) {
        self.stored = None;
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
            let body = fan_out.event.body();
            trims.extend(self.store_silently(self.stamp(now), topic, body, permit, now));
            self.tell_lost_values(now);
        }
        Ok((fanned_out, trims))
    }

    /// The same without an answer. Returns the other partition due to trim its history.
    pub(super) fn store_silently(
        &mut self,
        stamp: Stamp,
        topic: &Topic,
        body: Arc<EventBody>,
        permit: Option<&P>,
        now: Instant,
    ) -> Option<u16> {
        let (event, trim) = self.append(stamp, topic, body, now);
        self.route(&event, permit);
        trim
    }

    fn stamp(&self, now: Instant) -> Stamp {
        // The clock may be set back; the times of a partition never go back.
        let unix_ms = self.spec.clock.at(now).max(self.log.last_time());
        Stamp { sequence: self.log.sequence() + 1, unix_ms, published_at: now }
    }

    fn append(
        &mut self,
        stamp: Stamp,
        topic: &Topic,
        body: Arc<EventBody>,
        now: Instant,
    ) -> (Arc<SequencedEvent>, Option<u16>) {
        self.log_is_changing = true;
        let build = |sequence, history: &HistoryRing| SequencedEvent {
            topic: topic.clone(),
            partition: self.spec.partition,
            epoch: self.spec.epoch,
            sequence,
            published_at: stamp.published_at,
            unix_ms: stamp.unix_ms,
            policy: history.policy.clone(),
            body,
            collapsed: None,
        };
        let appended = self.log.append_at(stamp.sequence, topic, now, build);
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

    /// Evicts events while the budget is exceeded and this partition has the oldest.
    pub fn trim(&mut self, now: Instant) {
        // A partition does not pass the request on: requests would go in circles.
        let _ = self.log.trim();
        self.tell_lost_values(now);
    }

    /// Publishes the removal of keys evicted by the budget. The removals leave history before any
    /// further value.
    fn tell_lost_values(&mut self, now: Instant) {
        loop {
            let lost = self.log.take_lost();
            if lost.is_empty() {
                return;
            }
            for value in lost {
                let key = value.key().unwrap_or_default();
                // Published again since: only the older value is lost.
                let is_present =
                    self.log.history(&value.topic).is_some_and(|history| history.has_value(key));
                if !is_present {
                    self.remove_key(&value.topic, key, now);
                }
            }
        }
    }

    /// Publishes the removal of a key by the hub itself.
    fn remove_key(&mut self, topic: &Topic, key: &str, now: Instant) {
        let trim = self.store_silently(self.stamp(now), topic, removal(topic, key), None, now);
        self.trims.extend(trim);
    }

    /// Removes the keys at the end of their time to live, as many as a short turn allows. Returns
    /// the next end.
    pub fn end_keys(&mut self, now: Instant) -> Option<Instant> {
        for _ in 0..MAX_ENDS_A_TURN {
            let Some((_, topic, key)) = self.key_ends.take_due(now, &self.log) else { break };
            self.remove_key(&topic, &key, now);
        }
        self.tell_lost_values(now);
        self.key_ends.next()
    }

    /// Takes the other partitions due to trim their history, besides those in the answers.
    pub fn take_trims(&mut self) -> Vec<u16> {
        std::mem::take(&mut self.trims)
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

    fn route(&mut self, event: &Arc<SequencedEvent>, permit: Option<&P>) {
        let receivers = self.routing.listeners.receivers(&event.topic, event.event_type());
        self.queue_for(receivers, event, permit);
    }

    fn queue_for(&mut self, receivers: Receivers, event: &Arc<SequencedEvent>, permit: Option<&P>) {
        for manager in receivers.managers {
            let delivery = Delivery::Event { event: event.clone(), permit: permit.cloned() };
            self.routing.queue(manager, delivery);
        }
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

/// The event for a key removed by the hub itself.
pub(super) fn removal(topic: &Topic, key: &str) -> Arc<EventBody> {
    Arc::new(encode::body(&Event::deletion(topic, key, None), 1))
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::{
        budget::HistoryBudget,
        cursor::Epoch,
        id_budget::IdBudget,
        interest::{Interest, StartFrom, TypeFilter},
        pattern_set::PatternSet,
        policy::{Conflate, Policies},
        testing,
        wall_clock::WallClock,
    };

    fn spec() -> PartitionSpec {
        let policy = (*testing::policy(Conflate::None)).clone();
        PartitionSpec {
            partition: 0,
            epoch: Epoch::new(1),
            policies: Arc::new(Policies::new(policy, Vec::new())),
            budget: Arc::new(HistoryBudget::new(1 << 20, 1, Instant::now())),
            clock: Arc::new(WallClock::new(Instant::now(), Duration::ZERO)),
            started_ms: 0,
            max_idle_topics: 10,
            idempotency_window: Duration::from_secs(300),
            remembered: Arc::new(IdBudget::new(10_000)),
            remembered_fan_outs: Arc::new(IdBudget::new(10_000)),
        }
    }

    /// A permit with a bug: its clone for a delivery panics.
    #[derive(Debug)]
    struct Panicking;

    impl Clone for Panicking {
        fn clone(&self) -> Self {
            panic!("asked to")
        }
    }

    #[test]
    fn a_panic_behind_the_append_answers_with_the_stored_event_and_a_retry_stores_none() {
        let now = Instant::now();
        let topic = Topic::parse("a").unwrap();
        let mut partition = MemoryPartition::new(spec());
        let interest = Interest {
            topics: [topic.clone()].into_iter().collect(),
            patterns: PatternSet::none(),
            types: TypeFilter::default(),
        };
        let (interest, from) = (Arc::new(interest), StartFrom::Live);
        let attach = InterestChange::Attach { stream: 1, interest, from, max_bytes: 1 };
        partition.change_interest(1, vec![attach], now);
        let event = Event { id: Some("once".into()), ..Event::text("data") };
        let event = SharedEvent::new(event, 1);
        let publish = AssertUnwindSafe(|| {
            let _ = partition.publish(&topic, &event, Some(&Panicking), now);
        });
        assert!(catch_unwind(publish).is_err());
        let mut partition = partition.rebuild();
        let stored = partition.take_stored(&topic).map(|taken| taken.published.sequence);
        assert_eq!(stored, Some(1), "the event is in history");
        assert_eq!(partition.take_stored(&topic).map(|taken| taken.published.sequence), None);
        let retried = partition.publish(&topic, &event, None, now).unwrap();
        assert_eq!((retried.published.sequence, retried.is_new), (1, false));
        assert_eq!(partition.last_sequence(&topic), 1);
    }
}
