//! The decisions of a partition with its log on disk: the partition in memory behind a journal.
//!
//! 1. **Accept**: a publish is checked, gets its sequence, and becomes a record. Nothing visible
//!    changes.
//! 2. The shell hands the records to the [`Journal`](crate::journal::Journal), a batch at a time.
//! 3. **Commit**: once the journal has written a batch, the partition in memory stores and routes
//!    its events, in order, and the publishers get their answers. So no stream sees an event that a
//!    crash can lose.
//!
//! `record` has the bytes, `recovery` reads them back, `cleaning` chooses the records still needed.

mod accepted;
mod cleaning;
mod reading;
mod record;
mod recovery;
mod removals;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    mem::take,
    sync::Arc,
    time::Instant,
};

pub use recovery::{Recovery, StoreEnd};

use self::{
    accepted::{Accepted, AcceptedEvent, AcceptedFanOut},
    record::{BodyBytes, EventRecord, FanOutRecord, IdOf, LogMark, ModeRecord, ReachedTopic},
    removals::Removals,
};
use super::{
    MemoryPartition, Publishing, Taken,
    memory::{PublishTerms, Stamp},
};
use crate::{
    error::PublishError,
    fan_out::{FanOutPublish, FannedOut},
    ids::PublisherId,
    journal::{JournalError, Record},
    publish::SharedEvent,
    topic::Topic,
};

/// Batches of one partition with the journal: one being written, and the next one waiting for it.
pub const MAX_BATCHES_IN_FLIGHT: usize = 2;

/// Records applied in one turn: some hundred microseconds of work.
const MAX_APPLIED_A_TURN: usize = 256;

/// The answer to an accepted publish. The answers come in the order of the publishes.
pub enum Outcome {
    Published(Result<Taken, PublishError>),
    FannedOut(Result<(FannedOut, Vec<u16>), PublishError>),
    Mode(Result<bool, PublishError>),
}

/// A partition with its log on disk.
pub struct JournaledPartition<P> {
    pub(super) memory: MemoryPartition<P>,
    /// The last sequence and time given out, perhaps not applied yet.
    last: (u64, u64),
    /// Everything accepted and not applied, in order.
    accepted: VecDeque<Accepted<P>>,
    /// Records for the next batch, and the number of accepted entries waiting for them.
    records: Vec<Record>,
    gathered: usize,
    /// The numbers of accepted entries waiting for each batch in flight, and for each answered one.
    in_flight: VecDeque<Batch>,
    answered: VecDeque<(usize, Result<(), JournalError>)>,
    /// The last failure, for repeated publishes of a failed one.
    failure: JournalError,
    ids: HashSet<(Topic, Box<str>)>,
    /// Set while an accepted entry is applied: after a panic, the log may lack it.
    applying: Option<Applying>,
    outcomes: Vec<Outcome>,
    removals: Removals,
    /// The time and sequence of the last event known to have left the disk.
    left: (u64, u64),
    mark: MarkState,
    /// The topics with a mark on disk, each with the last removal the mark has.
    marked: HashMap<Topic, u64>,
}

/// A batch with the journal.
struct Batch {
    /// The number of accepted entries waiting for it.
    count: usize,
    has_mark: bool,
}

/// The mark of the log at its start. Without it, a later start would not know of an unclean stop
/// before: every batch begins with it until one is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MarkState {
    /// To write with a batch of its own.
    Due,
    /// Refused, or in flight.
    Unwritten,
    Written,
}

/// The entry being applied: the last of its sequences, and the answer after a panic.
struct Applying {
    sequence: u64,
    after_panic: Option<Outcome>,
}

impl<P: Clone> JournaledPartition<P> {
    fn new(memory: MemoryPartition<P>, left: (u64, u64)) -> Self {
        let last = (memory.log.sequence(), memory.log.last_time());
        Self {
            memory,
            last,
            accepted: VecDeque::new(),
            records: Vec::new(),
            gathered: 0,
            in_flight: VecDeque::new(),
            answered: VecDeque::new(),
            failure: JournalError::Busy,
            ids: HashSet::new(),
            applying: None,
            outcomes: Vec::new(),
            removals: Removals::default(),
            left,
            mark: MarkState::Due,
            marked: HashMap::new(),
        }
    }

    /// Builds the partition anew after a panic. If an entry was being applied, memory loses all
    /// events up to it: every stream with missed events gets a gap. They are still on disk.
    pub fn rebuild(mut self) -> Self {
        let losses = self.memory.log.losses().clone();
        let lost = self.applying.take().map(|applying| {
            self.outcomes.extend(applying.after_panic);
            applying.sequence.max(self.memory.log.sequence())
        });
        let mut memory = self.memory.rebuild_after(lost);
        // The outcome above is the answer.
        memory.forget_stored();
        memory.log.set_losses(losses);
        Self { memory, ..self }
    }

    fn stamp(&mut self, now: Instant, count: u64) -> Stamp {
        // As in memory: times never go back.
        let unix_ms = self.memory.spec.clock.at(now).max(self.last.1);
        let sequence = self.last.0.max(self.memory.log.sequence()) + 1;
        self.last = (sequence + count - 1, unix_ms);
        Stamp { sequence, unix_ms, published_at: now }
    }

    fn accept(&mut self, accepted: Accepted<P>, record: Option<Record>) {
        self.accepted.push_back(accepted);
        self.records.extend(record);
        self.gathered += 1;
    }

    /// Accepts one event. A repeated id within the idempotency window gets the first answer, also
    /// while the first publish is in flight.
    pub fn publish(
        &mut self,
        topic: &Topic,
        event: &SharedEvent,
        permit: Option<&P>,
        now: Instant,
    ) -> Publishing<Taken> {
        let terms = PublishTerms::of(event.event());
        if let Some(id) = terms.id {
            if let Some(taken) = self.memory.repeated(topic, id, now) {
                return Publishing::Decided(Ok(taken));
            }
            let key = (topic.clone(), id.into());
            if self.ids.contains(&key) {
                self.accept(Accepted::Repeated { topic: key.0, id: key.1 }, None);
                return Publishing::Journaled;
            }
            if let Err(error) = self.memory.remembered.check(terms.publisher) {
                return Publishing::Decided(Err(error));
            }
            self.ids.insert(key);
        }
        let body = event.body_for(topic);
        let stamp = self.stamp(now, 1);
        let id = terms.id.map(|id| {
            // The streams at this moment: the first answer may count others.
            let listeners = &self.memory.routing.listeners;
            let receivers = listeners.receivers(topic, body.event_type.as_deref());
            IdOf { id, receivers: receivers.stream_count as u64 }
        });
        let record = EventRecord {
            unix_ms: stamp.unix_ms,
            topic: topic.as_str(),
            id,
            ttl_ms: terms.ttl.map(|ttl| ttl.as_millis() as u64),
            body: BodyBytes::of(&body),
        };
        let record = record.to_record(stamp.sequence);
        let event = AcceptedEvent {
            stamp,
            topic: topic.clone(),
            body,
            id: terms.id.map(Into::into),
            publisher: terms.publisher,
            ttl: terms.ttl,
            permit: permit.cloned(),
        };
        self.accept(Accepted::Event(event), Some(record));
        Publishing::Journaled
    }

    /// Accepts one body for each of these topics, except topics already reached by the fan-out's
    /// id.
    pub fn fan_out(
        &mut self,
        fan_out: &FanOutPublish,
        topics: &[Topic],
        permit: Option<&P>,
        now: Instant,
    ) -> Publishing<(FannedOut, Vec<u16>)> {
        let publisher = fan_out.event.event().publisher;
        let id = fan_out.id.as_ref();
        if let Some(id) = id
            && let Err(error) = self.memory.fan_outs.check(id, publisher, topics, now)
        {
            return Publishing::Decided(Err(error));
        }
        let (mut new, mut reached) = (Vec::new(), Vec::new());
        for topic in topics {
            let fan_outs = &mut self.memory.fan_outs;
            match id.is_none_or(|id| fan_outs.insert(id, publisher, topic, now)) {
                true => new.push(topic.clone()),
                false => reached.push(topic.clone()),
            }
        }
        if new.is_empty() && self.accepted.is_empty() {
            let online = reached.iter().filter(|topic| self.is_online(topic)).count();
            return Publishing::Decided(Ok((FannedOut { new: 0, online }, Vec::new())));
        }
        let body = fan_out.event.body();
        let stamp = match new.is_empty() {
            true => Stamp { sequence: self.last.0 + 1, unix_ms: 0, published_at: now },
            false => self.stamp(now, new.len() as u64),
        };
        let record =
            (!new.is_empty()).then(|| {
                let topics = new.iter().zip(stamp.sequence..).map(|(topic, sequence)| {
                    ReachedTopic { topic: topic.as_str(), sequence, has_event: true }
                });
                let record = FanOutRecord {
                    unix_ms: stamp.unix_ms,
                    id: id.map(|id| &**id),
                    body: BodyBytes::of(&body),
                    topics: topics.collect(),
                };
                record.to_record(self.last.0)
            });
        let (id, permit) = (fan_out.id.clone(), permit.cloned());
        let fan_out = AcceptedFanOut { stamp, id, body, new, reached, permit };
        self.accept(Accepted::FanOut(fan_out), record);
        Publishing::Journaled
    }

    /// Accepts the mode of the fan-out `name`. The answer is the mode recorded first.
    pub fn record_fan_out_mode(
        &mut self,
        name: &Arc<str>,
        publisher: PublisherId,
        is_pull: bool,
        now: Instant,
    ) -> Publishing<bool> {
        let known = self.memory.fan_outs.mode_of(name);
        let settled = match self.memory.fan_outs.settle(name, publisher, is_pull, now) {
            Ok(settled) => settled,
            Err(error) => return Publishing::Decided(Err(error)),
        };
        if known.is_some() && self.accepted.is_empty() {
            return Publishing::Decided(Ok(settled));
        }
        let record = known.is_none().then(|| {
            let unix_ms = self.memory.spec.clock.at(now);
            ModeRecord { unix_ms, name, is_pull }.to_record()
        });
        let is_first = known.is_none();
        self.accept(Accepted::Mode { name: name.clone(), is_first }, record);
        Publishing::Journaled
    }

    /// Takes the next batch of records for the journal, unless [`MAX_BATCHES_IN_FLIGHT`] are with
    /// it. [`Self::on_written`] must follow, once for each batch.
    pub fn take_batch(&mut self) -> Option<Vec<Record>> {
        if !self.records.is_empty() || self.mark == MarkState::Due {
            return self.next_batch();
        }
        // Entries without a record of their own wait for the entries before them.
        let gathered = take(&mut self.gathered);
        if let Some(batch) = self.in_flight.back_mut() {
            batch.count += gathered;
        } else if let Some((count, _)) = self.answered.back_mut() {
            *count += gathered;
        } else if gathered > 0 {
            self.answered.push_back((gathered, Ok(())));
        }
        None
    }

    fn next_batch(&mut self) -> Option<Vec<Record>> {
        if self.is_journal_busy() {
            return None;
        }
        let mut records = take(&mut self.records);
        let has_mark = self.mark != MarkState::Written;
        if has_mark {
            records.insert(0, self.log_mark());
            self.mark = MarkState::Unwritten;
        }
        self.in_flight.push_back(Batch { count: take(&mut self.gathered), has_mark });
        Some(records)
    }

    /// Whether the log's mark of this start is written. Otherwise the stop of the log is unclean.
    pub fn is_marked(&self) -> bool {
        self.mark == MarkState::Written
    }

    /// Forgets expired events and ids, and writes a refused mark again.
    pub fn expire(&mut self, now: Instant) {
        self.memory.expire(now);
        if self.mark == MarkState::Unwritten && self.in_flight.is_empty() {
            self.mark = MarkState::Due;
        }
    }

    fn is_journal_busy(&self) -> bool {
        self.in_flight.len() >= MAX_BATCHES_IN_FLIGHT
    }

    /// The journal has written the oldest batch in flight, or refused it. [`Self::apply`] follows.
    pub fn on_written(&mut self, result: Result<(), JournalError>) {
        let Some(Batch { count, has_mark }) = self.in_flight.pop_front() else { return };
        if has_mark && result.is_ok() {
            self.mark = MarkState::Written;
        }
        self.answered.push_back((count, result));
    }

    /// Applies answered entries, as many as a short turn allows. Returns whether more are left.
    pub fn apply(&mut self, now: Instant) -> bool {
        let mut applied = 0;
        while applied < MAX_APPLIED_A_TURN {
            let Some((count, result)) = self.answered.front_mut() else { return false };
            if *count == 0 {
                self.answered.pop_front();
                continue;
            }
            *count -= 1;
            let result = *result;
            let Some(entry) = self.accepted.pop_front() else { return false };
            applied += entry.cost();
            match result {
                Ok(()) => self.apply_entry(entry, now),
                Err(error) => self.refuse_entry(entry, error, now),
            }
        }
        !self.answered.is_empty()
    }

    /// Takes the answers to accepted publishes, in their order.
    pub fn take_outcomes(&mut self) -> Vec<Outcome> {
        take(&mut self.outcomes)
    }

    /// Bytes of the records still needed, about. An event takes half of its memory on disk.
    pub fn needed_bytes(&self) -> u64 {
        self.memory.log.kept_bytes() as u64 / 2
    }

    fn is_online(&self, topic: &Topic) -> bool {
        self.memory.routing.listeners.has_topic(topic)
    }

    /// The state of the log beside its events, as a record.
    fn log_mark(&self) -> Record {
        let log = &self.memory.log;
        let losses = log.losses();
        let mark = LogMark {
            began_at: log.began_at(),
            left: self.left,
            forgotten_through: log.forgotten_through(),
            damaged_through: losses.damaged_through,
            lost: losses.unclean.clone(),
        };
        mark.to_record()
    }
}
