//! Cleaning: of the records of the oldest segment, the partition keeps those still needed. A topic
//! with removed events gets a mark, so that after a restart only clients with missed events get a
//! gap.

use std::{
    collections::{HashMap, HashSet},
    time::Instant,
};

use super::{
    JournaledPartition,
    record::{EventRecord, FanOutRecord, IdOf, KeptId, ModeRecord, ReachedTopic, TopicMark, kind},
};
use crate::{journal::Record, topic::Topic};

/// The decisions about one page.
#[derive(Default)]
struct Page {
    kept: Vec<Record>,
    /// The topics with records leaving the disk, each with its highest sequence leaving.
    leaving: HashMap<Topic, u64>,
}

impl Page {
    fn leave(&mut self, topic: Topic, sequence: u64) {
        let highest = self.leaving.entry(topic).or_default();
        *highest = (*highest).max(sequence);
    }
}

/// A record of the page is not applied yet, or an entry in flight may supersede it: ask again later.
struct NotYet;

impl<P: Clone> JournaledPartition<P> {
    /// The records to write again from a page of the oldest segment, with marks in place of the
    /// others; `None` if the decision must wait for entries in flight. The caller writes them before
    /// any later batch. `is_repeated`: the segment's pages were decided before, and those decisions
    /// may be lost.
    pub fn keep_of(
        &mut self,
        page: Vec<Record>,
        is_repeated: bool,
        now: Instant,
    ) -> Option<Vec<Record>> {
        let in_flight = self.keys_in_flight();
        let mut decided = Page::default();
        let mut left = self.left;
        for record in page {
            self.decide(record, &in_flight, &mut decided, &mut left, now).ok()?;
        }
        self.left = left;
        let Page { mut kept, leaving } = decided;
        for (topic, highest) in leaving {
            kept.extend(self.mark_of(&topic, highest, is_repeated));
        }
        self.tidy_marked();
        // It has the topics forgotten by memory too.
        kept.push(self.log_mark());
        Some(kept)
    }

    fn decide(
        &mut self,
        record: Record,
        in_flight: &HashSet<(Topic, Box<str>)>,
        page: &mut Page,
        left: &mut (u64, u64),
        now: Instant,
    ) -> Result<(), NotYet> {
        if record.sequence > self.memory.log.sequence() {
            return Err(NotYet);
        }
        let payload = record.payload.clone();
        match record.kind {
            kind::EVENT => {
                let Some(event) = EventRecord::read(&payload) else { return Ok(()) };
                self.decide_event(record, &event, in_flight, page, left, now)?;
            }
            kind::FAN_OUT => {
                let Some(fan_out) = FanOutRecord::read(&payload) else { return Ok(()) };
                self.decide_fan_out(record.sequence, fan_out, in_flight, page, left, now)?;
            }
            kind::TOPIC_MARK => {
                let mark = TopicMark::read(&payload);
                if let Some(mark) = mark
                    && let Some(topic) = self.memory.log.shared_name(mark.topic)
                    && self.marked_through(&topic) <= mark.evicted_through
                {
                    // The latest mark of its topic leaves: write it again.
                    self.marked.remove(&topic);
                    page.leave(topic, mark.evicted_through);
                }
            }
            kind::KEPT_ID => {
                let kept = KeptId::read(&payload);
                if kept
                    .is_some_and(|kept| self.needs_id(kept.topic, kept.id.id, kept.sequence, now))
                {
                    page.kept.push(record);
                }
            }
            kind::FAN_OUT_MODE => {
                let mode = ModeRecord::read(&payload);
                if mode.is_some_and(|mode| self.is_in_window(mode.unix_ms, now)) {
                    page.kept.push(record);
                }
            }
            // The page gets a new mark of the log.
            _ => {}
        }
        Ok(())
    }

    fn decide_event(
        &mut self,
        record: Record,
        event: &EventRecord<'_>,
        in_flight: &HashSet<(Topic, Box<str>)>,
        page: &mut Page,
        left: &mut (u64, u64),
        now: Instant,
    ) -> Result<(), NotYet> {
        let sequence = record.sequence;
        let Some(topic) = self.memory.log.shared_name(event.topic) else {
            self.keep_id(event, sequence, page, now);
            *left = (*left).max_by_sequence(event.unix_ms, sequence);
            return Ok(());
        };
        if self.holds(&topic, sequence) {
            check_in_flight(&topic, event.body.key, in_flight)?;
            page.kept.push(record);
            return Ok(());
        }
        self.keep_id(event, sequence, page, now);
        page.leave(topic, sequence);
        *left = (*left).max_by_sequence(event.unix_ms, sequence);
        Ok(())
    }

    fn decide_fan_out(
        &self,
        sequence: u64,
        mut fan_out: FanOutRecord<'_>,
        in_flight: &HashSet<(Topic, Box<str>)>,
        page: &mut Page,
        left: &mut (u64, u64),
        now: Instant,
    ) -> Result<(), NotYet> {
        let in_window = fan_out.id.is_some() && self.is_in_window(fan_out.unix_ms, now);
        let mut topics = Vec::new();
        for reached in &fan_out.topics {
            let topic = self.memory.log.shared_name(reached.topic);
            let is_held = topic.as_ref().is_some_and(|topic| self.holds(topic, reached.sequence));
            if let (true, Some(topic)) = (is_held, &topic) {
                check_in_flight(topic, fan_out.body.key, in_flight)?;
            } else if reached.has_event {
                *left = (*left).max_by_sequence(fan_out.unix_ms, reached.sequence);
                topic.into_iter().for_each(|topic| page.leave(topic, reached.sequence));
            }
            if is_held || in_window {
                topics.push(ReachedTopic { has_event: is_held, ..*reached });
            }
        }
        if !topics.is_empty() {
            fan_out.topics = topics;
            page.kept.push(fan_out.to_record(sequence));
        }
        Ok(())
    }

    fn holds(&self, topic: &Topic, sequence: u64) -> bool {
        self.memory.log.history(topic).is_some_and(|history| history.holds(sequence))
    }

    fn keep_id(&mut self, event: &EventRecord<'_>, sequence: u64, page: &mut Page, now: Instant) {
        if let Some(IdOf { id, .. }) = event.id
            && self.needs_id(event.topic, id, sequence, now)
            && let Some(id) = event.id
        {
            let kept = KeptId { unix_ms: event.unix_ms, sequence, topic: event.topic, id };
            page.kept.push(kept.to_record());
        }
    }

    fn needs_id(&mut self, topic: &str, id: &str, sequence: u64, now: Instant) -> bool {
        let Ok(topic) = Topic::parse(topic) else { return false };
        let answer = self.memory.remembered.get(&topic, id, now);
        answer.is_some_and(|answer| answer.sequence == sequence)
    }

    fn is_in_window(&self, unix_ms: u64, now: Instant) -> bool {
        let age_ms = self.memory.spec.clock.at(now).saturating_sub(unix_ms);
        u128::from(age_ms) < self.memory.spec.idempotency_window.as_millis()
    }

    /// The mark of a topic with records leaving the disk, unless an earlier mark has their removal.
    fn mark_of(&mut self, topic: &Topic, highest: u64, is_repeated: bool) -> Option<Record> {
        let history = self.memory.log.history(topic)?;
        let evicted_through = history.evicted_through();
        // Events superseded by conflation are not missed.
        let is_missed = evicted_through > 0;
        if !is_missed || (highest <= self.marked_through(topic) && !is_repeated) {
            return None;
        }
        let mark = TopicMark {
            topic: topic.as_str(),
            last: history.last(),
            evicted_through,
            types: history.removed_types(),
        };
        let record = mark.to_record();
        self.marked.insert(topic.clone(), evicted_through);
        Some(record)
    }

    /// The removals of a topic up to this sequence have a mark on disk.
    fn marked_through(&self, topic: &Topic) -> u64 {
        self.marked.get(topic).copied().unwrap_or_default()
    }

    /// Forgets the marks of forgotten topics: the log's own mark has them.
    fn tidy_marked(&mut self) {
        if self.marked.len() > 2 * self.memory.topic_count() + 1024 {
            let log = &self.memory.log;
            self.marked.retain(|topic, _| log.history(topic).is_some());
        }
    }
}

fn check_in_flight(
    topic: &Topic,
    key: Option<&str>,
    in_flight: &HashSet<(Topic, Box<str>)>,
) -> Result<(), NotYet> {
    match key {
        Some(key) if in_flight.contains(&(topic.clone(), key.into())) => Err(NotYet),
        _ => Ok(()),
    }
}

trait MaxBySequence {
    fn max_by_sequence(self, unix_ms: u64, sequence: u64) -> Self;
}

/// A time and a sequence.
impl MaxBySequence for (u64, u64) {
    fn max_by_sequence(self, unix_ms: u64, sequence: u64) -> Self {
        if sequence > self.1 { (unix_ms, sequence) } else { self }
    }
}
