//! Reads of the log for waiting streams: in flight, and answered. The events of an answer go
//! straight to the waiting streams, so the size of the local history changes no replay.
//!
//! An answer reaches to its head. Later events are pushes: the log keeps them, beyond its budget,
//! from the request until the waiting streams have begun ([`Replica::pin`]).

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use crate::{
    event::SequencedEvent,
    log::{LogRequest, Purpose},
    partition::replica::{Replica, attach::PendingAttach},
    topic::Topic,
};

/// Bound on the bytes of pinned events. Beyond it, the waiting streams ask anew.
const MAX_PINNED_BYTES: usize = 16 * 1024 * 1024;

/// Streams with positions within this distance share a read. Without the bound, a stream with a low
/// position would fill the reads of all others with its older events.
const SHARED_SEQUENCES: u64 = 1024;

/// A read needed by waiting streams.
#[derive(Debug)]
pub(super) struct NeededRead {
    /// Each topic with the sequence before its first event.
    pub topics: BTreeMap<Topic, u64>,
    /// The lowest of these sequences.
    pub lowest: u64,
    pub max_bytes: usize,
}

impl NeededRead {
    pub fn new(topics: &[(Topic, u64)], max_bytes: usize) -> Self {
        let mut read = Self { topics: BTreeMap::new(), lowest: lowest(topics), max_bytes };
        read.add(topics, max_bytes);
        read
    }

    /// Adds the topics of one more stream.
    pub fn add(&mut self, topics: &[(Topic, u64)], max_bytes: usize) {
        for (topic, after) in topics {
            let at = self.topics.entry(topic.clone()).or_insert(*after);
            *at = (*at).min(*after);
            self.lowest = self.lowest.min(*after);
        }
        self.max_bytes = self.max_bytes.max(max_bytes);
    }

    /// Whether a stream with these topics may share the read.
    pub fn is_near(&self, topics: &[(Topic, u64)]) -> bool {
        self.lowest.abs_diff(lowest(topics)) <= SHARED_SEQUENCES
    }
}

fn lowest(topics: &[(Topic, u64)]) -> u64 {
    topics.iter().map(|(_, after)| *after).min().unwrap_or(u64::MAX)
}

/// A read in flight.
#[derive(Debug)]
pub(super) struct ReadInFlight {
    pub serial: u64,
    pub read: NeededRead,
    /// The replica's position at the request. The answer's head is at least this position.
    pub pinned_after: u64,
}

/// A request in flight for the topics changed after a sequence.
#[derive(Debug)]
pub(super) struct ListInFlight {
    pub serial: u64,
    pub after: u64,
    /// As for [`ReadInFlight`].
    pub pinned_after: u64,
}

/// An answered read.
#[derive(Debug)]
pub(super) struct StreamRead {
    /// The read has all events of its topics up to here.
    pub through: u64,
    /// Whether it reaches to the answer's head: all later events are in the log.
    pub is_whole: bool,
    pub topics: HashMap<Topic, ReadTopic>,
}

/// One topic of an answered read.
#[derive(Debug)]
pub(super) struct ReadTopic {
    /// The sequence before the first event asked for.
    pub after: u64,
    /// The highest sequence lost in every log; 0 if nothing after `after` is lost.
    pub lost_through: u64,
    /// Whether the loss made room for a new event of the topic.
    pub is_trimmed: bool,
    /// Sequence of the topic's last event.
    pub last: u64,
    /// In sequence order.
    pub events: Vec<Arc<SequencedEvent>>,
}

impl StreamRead {
    /// The topic's events after a sequence, for a stream at a position before it: the read must
    /// reach past the position. A snapshot wants some topics only after its head, so a bounded read
    /// may end before the first event wanted of a topic.
    pub fn of(&self, topic: &Topic, after: u64, position: u64) -> Option<&ReadTopic> {
        let is_of_use =
            |read: &&ReadTopic| read.after <= after && (self.is_whole || self.through > position);
        self.topics.get(topic).filter(is_of_use)
    }
}

/// The pinned events.
#[derive(Debug, Default)]
pub(super) struct Pinned {
    pub after: Option<u64>,
    bytes: usize,
}

impl<P> Replica<P> {
    /// Requests a read for waiting streams. Returns its number.
    pub(super) fn ask_read(&mut self, read: NeededRead) -> u64 {
        self.serial += 1;
        let serial = self.serial;
        let purpose = Purpose::Attach { serial };
        let topics = read.topics.iter().map(|(topic, after)| (topic.clone(), *after)).collect();
        let max_bytes = Some(read.max_bytes).filter(|bytes| *bytes < usize::MAX);
        self.requests.push(LogRequest::Read { purpose, topics, max_bytes });
        // A read without events only confirms subscriptions.
        if read.lowest < u64::MAX {
            let pinned_after = self.log.sequence();
            self.reading.push(ReadInFlight { serial, read, pinned_after });
        }
        self.pin();
        serial
    }

    /// The read in flight covering these topics, each after a sequence.
    pub(super) fn read_in_flight(&self, topics: &[(Topic, u64)]) -> Option<(u64, u64)> {
        let covers = |asked: &&ReadInFlight| {
            let read = &asked.read;
            let has = |topic: &Topic, after| read.topics.get(topic).is_some_and(|at| *at <= after);
            read.is_near(topics) && topics.iter().all(|(topic, after)| has(topic, *after))
        };
        self.reading.iter().find(covers).map(|read| (read.serial, read.pinned_after))
    }

    /// Pins the events after the lowest position needed by a request in flight or a waiting stream.
    pub(super) fn pin(&mut self) {
        let reads = self.reading.iter().map(|read| read.pinned_after);
        let lists = self.listing.iter().map(|list| list.pinned_after);
        let waiting = self.waiting.iter().filter_map(|waiting| waiting.pinned_after);
        let after = reads.chain(lists).chain(waiting).min();
        if after == self.pinned.after {
            return;
        }
        // Counted anew: at most twice the bound is pinned, with the events counted before.
        self.pinned = Pinned { after, bytes: 0 };
        self.log.pin(after);
        self.trims.extend(self.log.trim());
    }

    /// Counts an event entering the log. Too many pinned bytes: the waiting streams ask anew.
    pub(super) fn count_pinned(&mut self, bytes: usize) {
        if self.pinned.after.is_none() {
            return;
        }
        self.pinned.bytes += bytes;
        if self.pinned.bytes > MAX_PINNED_BYTES {
            self.ask_anew();
            self.answer_waiting();
        }
    }

    /// Forgets requests in flight for streams, and their answers. The streams ask again.
    pub(super) fn ask_anew(&mut self) {
        self.reading.clear();
        self.listing.clear();
        self.locating.clear();
        self.waiting.iter_mut().for_each(PendingAttach::ask_anew);
        self.pin();
    }

    /// Keeps a read's events in the log, for later streams, if the budget has room and the log is
    /// complete after the read.
    pub(super) fn keep_read(&mut self, read: &StreamRead) {
        let events = read.topics.values().flat_map(|topic| &topic.events);
        if !self.log.has_room(events.map(|event| event.size_bytes()).sum()) {
            return;
        }
        for (topic, read_topic) in &read.topics {
            let begin = match self.log.history(topic) {
                Some(history) => history.evicted_through(),
                None => self.begin_of(topic),
            };
            if self.coverage.topic_since(topic).is_none() || read.through < begin {
                continue;
            }
            // Events after `begin` are here, or their push is missing: catching up finds it.
            let older = read_topic.events.iter().filter(|event| event.sequence <= begin);
            let older: Vec<_> = older.cloned().collect();
            if read_topic.after < begin {
                self.log.begin_topic(topic, begin);
                let ReadTopic { after, lost_through, is_trimmed, .. } = *read_topic;
                self.log.merge(topic, older, Some(after), lost_through, is_trimmed);
            }
        }
        self.log.settle_merges();
    }
}
