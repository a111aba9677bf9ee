//! A partition from the records of its log on disk.
//!
//! The records come in the order of the log. Copies made by cleaning have older sequences than the
//! records before them: the recovery adds them at its end.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    JournaledPartition,
    record::{
        EventRecord, FanOutRecord, KeptId, LogMark, ModeRecord, ReachedTopic, TopicMark, kind,
    },
};
use crate::{
    event::{EventBody, SequencedEvent},
    history::RemovedTypes,
    idempotency::FirstAnswer,
    ids::PublisherId,
    partition::{MemoryPartition, PartitionSpec},
    topic::Topic,
};

/// Sequences left out after an unclean stop: more than the log can have lost.
const UNCLEAN_STEP: u64 = 1 << 20;

/// Holes between sequences remembered for a damaged log.
const MAX_HOLES: usize = 1024;

/// The end of reading a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreEnd<'a> {
    /// Whether the log was closed in order. A new log counts as closed.
    pub is_clean: bool,
    /// The highest sequence written to the log in the partition's name.
    pub last_sequence: u64,
    /// The sequences of damaged records; `None` for a record with unknown sequence or partition.
    pub damaged: &'a [Option<u64>],
}

/// A publish id within the window.
struct RememberedId {
    topic: Topic,
    id: Box<str>,
    answer: FirstAnswer,
}

struct RecoveredMark {
    last: u64,
    evicted_through: u64,
    types: RemovedTypes,
}

/// A partition while its records are read.
pub struct Recovery<P> {
    memory: MemoryPartition<P>,
    now: Instant,
    now_ms: u64,
    copies: HashMap<Topic, Vec<Arc<SequencedEvent>>>,
    /// The copied values of keys. A later event of the key takes its value: the removal of a key may
    /// have left the history by the end, and would not supersede the value then.
    copied_values: HashMap<(Topic, Box<str>), Arc<SequencedEvent>>,
    /// The ends of copied values: sequence, topic, time of publish, time to live.
    copied_ends: Vec<(Arc<SequencedEvent>, Duration)>,
    marks: HashMap<Topic, RecoveredMark>,
    log_mark: Option<LogMark>,
    ids: Vec<RememberedId>,
    /// Values evicted by the budget: without a later event of their key, streams must be told.
    lost: HashMap<(Topic, Box<str>), u64>,
    /// Ranges without a record: after the first, before the second.
    holes: Vec<(u64, u64)>,
    /// The highest sequence seen.
    last: u64,
    unreadable_count: u64,
    due_to_trim: Option<u16>,
}

impl<P: Clone> Recovery<P> {
    /// `spec` has the epoch of the log.
    pub fn new(spec: PartitionSpec, now: Instant) -> Self {
        let now_ms = spec.clock.at(now);
        Self {
            memory: MemoryPartition::new(spec),
            now,
            now_ms,
            copies: HashMap::new(),
            copied_values: HashMap::new(),
            copied_ends: Vec::new(),
            marks: HashMap::new(),
            log_mark: None,
            ids: Vec::new(),
            lost: HashMap::new(),
            holes: Vec::new(),
            last: 0,
            unreadable_count: 0,
            due_to_trim: None,
        }
    }

    /// Reads the next record. An unreadable one counts as damaged. Returns another partition due to
    /// trim its history, see [`Self::trim`].
    pub fn read(&mut self, sequence: u64, kind: u8, payload: &[u8]) -> Option<u16> {
        let read = match kind {
            kind::EVENT => {
                EventRecord::read(payload).and_then(|event| self.on_event(sequence, &event))
            }
            kind::FAN_OUT => {
                FanOutRecord::read(payload).and_then(|fan_out| self.on_fan_out(&fan_out))
            }
            kind::TOPIC_MARK => TopicMark::read(payload).and_then(|mark| self.on_topic_mark(mark)),
            kind::LOG_MARK => LogMark::read(payload).map(|mark| self.on_log_mark(mark)),
            kind::KEPT_ID => KeptId::read(payload).and_then(|kept| self.on_kept_id(&kept)),
            kind::FAN_OUT_MODE => ModeRecord::read(payload).map(|mode| self.on_mode(&mode)),
            _ => None,
        };
        if read.is_none() {
            self.unreadable_count += 1;
        }
        self.due_to_trim.take()
    }

    /// Evicts the oldest events at the request of another partition.
    pub fn trim(&mut self) {
        let _ = self.memory.log.trim();
        self.gather_lost();
    }

    fn on_event(&mut self, sequence: u64, record: &EventRecord<'_>) -> Option<()> {
        let topic = self.topic(record.topic)?;
        if let Some(id) = record.id {
            let receivers = id.receivers as usize;
            let answer = FirstAnswer { sequence, unix_ms: record.unix_ms, receivers };
            self.remember(&topic, id.id, answer);
        }
        let body = || record.body.to_body(1);
        let ttl = record.ttl_ms.map(Duration::from_millis);
        self.on_sequenced(sequence, record.unix_ms, topic, body, ttl);
        Some(())
    }

    fn on_fan_out(&mut self, record: &FanOutRecord<'_>) -> Option<()> {
        let count = record.topics.iter().filter(|reached| reached.has_event).count();
        // One body for all topics.
        let mut body: Option<Arc<EventBody>> = None;
        for ReachedTopic { topic, sequence, has_event } in &record.topics {
            let topic = self.topic(topic)?;
            if let Some(id) = record.id {
                self.reach(id, &topic, record.unix_ms);
            }
            if *has_event {
                let body = body.get_or_insert_with(|| record.body.to_body(count)).clone();
                self.on_sequenced(*sequence, record.unix_ms, topic, || body, None);
            }
        }
        Some(())
    }

    fn topic(&self, name: &str) -> Option<Topic> {
        let known = self.memory.log.shared_name(name);
        known.or_else(|| Topic::parse(name).ok())
    }

    fn on_sequenced(
        &mut self,
        sequence: u64,
        unix_ms: u64,
        topic: Topic,
        body: impl FnOnce() -> Arc<EventBody>,
        ttl: Option<Duration>,
    ) {
        let spec = &self.memory.spec;
        let (partition, epoch) = (spec.partition, spec.epoch);
        let published_at = self.moment(unix_ms);
        let event = |topic: Topic, policy| SequencedEvent {
            topic,
            partition,
            epoch,
            sequence,
            published_at,
            unix_ms,
            policy,
            body: body(),
            collapsed: None,
        };
        if sequence <= self.memory.log.sequence() {
            if self.memory.log.history(&topic).is_some_and(|history| history.holds(sequence)) {
                return;
            }
            let policy = spec.policies.of(topic.as_str()).clone();
            let event = Arc::new(event(topic.clone(), policy));
            self.copied_ends.extend(ttl.map(|ttl| (event.clone(), ttl)));
            return self.add_copy(topic, event);
        }
        self.note_hole(sequence);
        let log = &mut self.memory.log;
        let (event, due) = log.append_at(sequence, &topic, self.now, |_, history| {
            event(topic.clone(), history.policy.clone())
        });
        self.due_to_trim = due.or(self.due_to_trim);
        if let Some(key) = event.key()
            && !(self.lost.is_empty() && self.copied_values.is_empty())
        {
            let item = (topic, key.into());
            self.lost.remove(&item);
            self.copied_values.remove(&item);
        }
        if let Some(ttl) = ttl {
            self.memory.key_ends.add_at(self.end_of(&event, ttl), &event, &self.memory.log);
        }
        self.gather_lost();
    }

    fn add_copy(&mut self, topic: Topic, event: Arc<SequencedEvent>) {
        match event.body.key.clone().filter(|_| event.is_current_value()) {
            Some(key) => {
                let known = self.copied_values.entry((topic, key)).or_insert_with(|| event.clone());
                if known.sequence < event.sequence {
                    *known = event;
                }
            }
            None => self.copies.entry(topic).or_default().push(event),
        }
    }

    fn note_hole(&mut self, sequence: u64) {
        if sequence > self.last + 1 {
            // The oldest holes are merged: they then tell a loss at the end of the last of them.
            if self.holes.len() == MAX_HOLES {
                let (after, _) = self.holes[0];
                self.holes[1].0 = after;
                self.holes.remove(0);
            }
            self.holes.push((self.last, sequence));
        }
        self.last = self.last.max(sequence);
    }

    fn gather_lost(&mut self) {
        for value in self.memory.log.take_lost() {
            if let Some(key) = &value.body.key {
                self.lost.insert((value.topic.clone(), key.clone()), value.sequence);
            }
        }
    }

    /// The moment of a time. The clock may have been set back: a later time counts as now.
    fn moment(&self, unix_ms: u64) -> Instant {
        let age = Duration::from_millis(self.now_ms.saturating_sub(unix_ms));
        self.now.checked_sub(age).unwrap_or(self.now)
    }

    fn end_of(&self, event: &SequencedEvent, ttl: Duration) -> Option<Instant> {
        event.published_at.checked_add(ttl)
    }

    fn is_remembered(&self, unix_ms: u64) -> bool {
        let age = Duration::from_millis(self.now_ms.saturating_sub(unix_ms));
        age < self.memory.spec.idempotency_window
    }

    fn remember(&mut self, topic: &Topic, id: &str, answer: FirstAnswer) {
        if self.is_remembered(answer.unix_ms) {
            self.ids.push(RememberedId { topic: topic.clone(), id: id.into(), answer });
        }
    }

    fn reach(&mut self, id: &str, topic: &Topic, unix_ms: u64) {
        if self.is_remembered(unix_ms) {
            let at = self.moment(unix_ms);
            self.memory.fan_outs.insert(&id.into(), PublisherId::Application, topic, at);
        }
    }

    fn on_topic_mark(&mut self, mark: TopicMark<'_>) -> Option<()> {
        let topic = self.topic(mark.topic)?;
        let TopicMark { last, evicted_through, types, .. } = mark;
        // A later mark has at least the removals of an earlier one.
        let is_newer =
            self.marks.get(&topic).is_none_or(|known| known.evicted_through <= evicted_through);
        if is_newer {
            self.marks.insert(topic, RecoveredMark { last, evicted_through, types });
        }
        Some(())
    }

    fn on_log_mark(&mut self, mark: LogMark) {
        // The last one counts: each has everything before it.
        self.log_mark = Some(mark);
    }

    fn on_kept_id(&mut self, kept: &KeptId<'_>) -> Option<()> {
        let topic = self.topic(kept.topic)?;
        let receivers = kept.id.receivers as usize;
        let answer = FirstAnswer { sequence: kept.sequence, unix_ms: kept.unix_ms, receivers };
        self.remember(&topic, kept.id.id, answer);
        Some(())
    }

    fn on_mode(&mut self, mode: &ModeRecord<'_>) {
        if self.is_remembered(mode.unix_ms) {
            let at = self.moment(mode.unix_ms);
            let fan_outs = &mut self.memory.fan_outs;
            fan_outs.restore_mode(&mode.name.into(), PublisherId::Application, mode.is_pull, at);
        }
    }

    /// The records not understood.
    pub fn unreadable_count(&self) -> u64 {
        self.unreadable_count
    }

    /// The partition after the last record. Its first batch has a mark of the log.
    pub fn finish(mut self, end: StoreEnd<'_>) -> JournaledPartition<P> {
        self.merge_copies();
        self.restore_ids();
        let mark = self.log_mark.take();
        let is_new = mark.is_none() && self.last == 0 && end.last_sequence == 0;
        let mark = mark.unwrap_or_default();
        let marked = self.restore_marks(&mark);
        let left = mark.left;
        // Streams opened after an unclean stop have its step as their position.
        let stepped = mark.lost.last().map_or(0, |(_, next)| *next);
        let kept = self.last.max(mark.left.1).max(stepped);
        let mut losses = crate::partition_log::Losses {
            damaged_through: mark.damaged_through.max(self.damaged_through(&mark, &end, kept)),
            unclean: mark.lost,
        };
        let is_damaged = !end.damaged.is_empty() || self.unreadable_count > 0;
        if (!end.is_clean || is_damaged) && !is_new {
            let next = kept.max(end.last_sequence) + UNCLEAN_STEP;
            losses.note_unclean(kept, next);
            self.memory.log.advance(next);
        }
        self.memory.log.advance(kept.max(end.last_sequence));
        self.memory.log.set_losses(losses);
        self.memory.log.expire(self.now);
        self.gather_lost();
        let mut partition = JournaledPartition::new(self.memory, left);
        partition.marked = marked;
        for ((topic, key), sequence) in self.lost {
            partition.add_removal(topic, key, sequence);
        }
        partition
    }

    /// Streams before this sequence may miss a damaged record.
    fn damaged_through(&self, mark: &LogMark, end: &StoreEnd<'_>, kept: u64) -> u64 {
        let unreadable = (0..self.unreadable_count).map(|_| None);
        let damaged = end.damaged.iter().copied().chain(unreadable);
        let is_known = |hole: &&(u64, u64)| {
            let after_unclean = mark.lost.iter().any(|lost| lost.1 + 1 == hole.1);
            !after_unclean && hole.1 > mark.left.1 + 1
        };
        let last_hole = self.holes.iter().rfind(is_known).map(|hole| hole.1 - 1);
        // The last record may be the damaged one: no record is behind it.
        let last = kept.max(end.last_sequence) + 1;
        let through = damaged.map(|sequence| match sequence {
            Some(sequence) => {
                let hole = self.holes.iter().find(|hole| hole.0 < sequence && sequence < hole.1);
                hole.map_or(sequence, |hole| hole.1 - 1)
            }
            None if end.last_sequence > kept => end.last_sequence,
            None => last_hole.unwrap_or(last),
        });
        through.max().unwrap_or_default()
    }

    fn merge_copies(&mut self) {
        for ((topic, _), value) in std::mem::take(&mut self.copied_values) {
            self.copies.entry(topic).or_default().push(value);
        }
        if self.copies.is_empty() {
            return;
        }
        for (topic, mut copies) in std::mem::take(&mut self.copies) {
            copies.sort_unstable_by_key(|event| event.sequence);
            copies.dedup_by_key(|event| event.sequence);
            self.memory.log.merge(&topic, copies, None, 0, false);
        }
        self.memory.log.settle_merges();
        self.memory.log.trim();
        for (event, ttl) in std::mem::take(&mut self.copied_ends) {
            self.memory.key_ends.add_at(self.end_of(&event, ttl), &event, &self.memory.log);
        }
        self.gather_lost();
        let log = &self.memory.log;
        self.lost.retain(|(topic, key), sequence| {
            let newest = log.history(topic).and_then(|history| history.newest_of(key));
            newest.is_none_or(|newest| newest <= *sequence)
        });
    }

    fn restore_ids(&mut self) {
        self.ids.sort_unstable_by_key(|id| id.answer.sequence);
        self.ids.dedup_by(|one, other| {
            one.answer.sequence == other.answer.sequence && one.id == other.id
        });
        for RememberedId { topic, id, answer } in std::mem::take(&mut self.ids) {
            let at = self.moment(answer.unix_ms);
            self.memory.remembered.insert(&topic, &id, PublisherId::Application, answer, at);
        }
    }

    /// Returns the topics with a mark.
    fn restore_marks(&mut self, mark: &LogMark) -> HashMap<Topic, u64> {
        // Topics become idle in the order of their last events.
        let mut marks: Vec<_> = std::mem::take(&mut self.marks).into_iter().collect();
        marks.sort_unstable_by_key(|(_, mark)| mark.last);
        let mut marked = HashMap::new();
        for (topic, RecoveredMark { last, evicted_through, types }) in marks {
            self.memory.log.restore_removals(&topic, last, evicted_through, &types);
            marked.insert(topic, evicted_through);
        }
        self.memory.log.forget_through(mark.forgotten_through);
        if mark.began_at > 0 {
            self.memory.log.begin_times(mark.began_at, mark.left.0, mark.left.1);
        }
        marked
    }
}
