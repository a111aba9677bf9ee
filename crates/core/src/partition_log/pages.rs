//! Replays in pages. A page has a bound in bytes and in visited events, so neither a long history
//! nor a filter matching nothing takes a long turn. The log keeps nothing between two pages: the
//! first page's head and the last position name the rest.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet},
    sync::Arc,
    time::Instant,
};

use super::{MAX_MISSED_TOPICS, Missed, MissedReason, PartitionLog, Replay};
use crate::{
    cursor::{Epoch, ReplayKind},
    event::SequencedEvent,
    history::HistoryRing,
    interest::{Begun, Interest, Rest, StartFrom, Told},
    topic::Topic,
};

/// Events visited for one page: about a millisecond.
const MAX_VISITED: usize = 4096;

/// The events of a page so far, and its bounds.
struct Page<'a> {
    interest: &'a Interest,
    rest: Rest,
    events: Vec<Arc<SequencedEvent>>,
    bytes_left: usize,
    visits_left: usize,
    /// The sequence of the last visited event.
    through: u64,
}

impl Page<'_> {
    /// Visits the next event in sequence order. Returns false once the page is full.
    fn visit(&mut self, sequence: u64, event: Option<&Arc<SequencedEvent>>) -> bool {
        self.through = sequence;
        self.visits_left -= 1;
        let is_wanted = |event: &&Arc<SequencedEvent>| {
            // A snapshot has no removed keys.
            let is_shown = !(event.body.is_deletion && self.rest.is_snapshot_of(event.sequence));
            is_shown && event.unix_ms >= self.rest.since && self.interest.types.wants(event)
        };
        if let Some(event) = event.filter(is_wanted) {
            self.bytes_left = self.bytes_left.saturating_sub(event.stream_bytes());
            self.events.push(event.clone());
        }
        self.visits_left > 0 && self.bytes_left > 0
    }
}

impl Rest {
    /// Whether the event of this sequence is a part of a snapshot. Later pages also have the events
    /// since its begin.
    fn is_snapshot_of(&self, sequence: u64) -> bool {
        self.begun == Begun::Snapshot && sequence <= self.head
    }

    /// The position before the first wanted event of a topic. A snapshot wants no older events of
    /// topics without conflation.
    fn after_in(&self, history: &HistoryRing) -> u64 {
        match self.begun {
            Begun::Snapshot if !history.policy.conflates() => self.head.max(self.sequence),
            Begun::Snapshot | Begun::Earliest | Begun::After => self.sequence,
        }
    }

    /// The mark of the stream's cursor within this replay. After a gap, the client knows all losses
    /// up to now.
    pub fn mark(&self, is_missing: bool, now: u64) -> Option<(ReplayKind, u64)> {
        match self.begun {
            Begun::Snapshot => Some((ReplayKind::Snapshot, self.head)),
            Begun::Earliest | Begun::After if is_missing => Some((ReplayKind::History, now)),
            Begun::Earliest => Some((ReplayKind::History, self.head)),
            Begun::After => None,
        }
    }
}

impl PartitionLog {
    /// The next page of a replay: at most `max_bytes` of events, but at least one event.
    pub fn page(
        &mut self,
        interest: &Interest,
        from: StartFrom,
        max_bytes: usize,
        now: Instant,
    ) -> Replay {
        self.expire(now);
        if let StartFrom::LiveAfter { epoch, sequence } = from {
            let missed = self.missed_before_live(interest, epoch, sequence);
            return Replay { missed, ..self.live_replay() };
        }
        let Some((rest, missed)) = self.begin_page(interest, from) else {
            return self.live_replay();
        };
        let (events, bytes_left, through) = (Vec::new(), max_bytes.max(1), rest.sequence);
        // A replay without a bound comes in one page.
        let max_visits = if max_bytes == usize::MAX { usize::MAX } else { MAX_VISITED };
        let visits_left = max_visits;
        let mut page = Page { interest, rest, events, bytes_left, visits_left, through };
        let is_whole = match interest.patterns.is_empty() {
            true => self.visit_named(&mut page),
            false => self.visit_all(&mut page),
        };
        let left = page.visits_left;
        self.visits += max_visits - left;
        let head = if is_whole { self.sequence } else { page.through };
        let next = Rest { sequence: head, told: Told::Through(self.evictions), ..rest };
        // With losses since a time, the client returns to before them until it has the gap.
        let is_at_start = match (&missed, from) {
            (Some(missed), _) if missed.reason == MissedReason::Epoch => true,
            (_, StartFrom::Earliest | StartFrom::Snapshot) => true,
            (missed, StartFrom::Since { .. }) => missed.is_none(),
            _ => false,
        };
        let start = match is_at_start {
            true => page.events.first().map_or(head, |first| first.sequence - 1),
            false => rest.sequence,
        };
        let next = (!is_whole).then_some(next);
        let mark = rest.mark(missed.is_some(), self.sequence);
        Replay { epoch: self.epoch, start, head, events: page.events, missed, next, mark }
    }

    /// The number of events visited by pages since the last call.
    pub fn take_visits(&mut self) -> usize {
        std::mem::take(&mut self.visits)
    }

    /// The replay of a stream starting live.
    pub fn live_replay(&self) -> Replay {
        let (epoch, head) = (self.epoch, self.sequence);
        let (events, missed, next, mark) = (Vec::new(), None, None, None);
        Replay { epoch, start: head, head, events, missed, next, mark }
    }

    /// The range of a page, and the events missed before it. None for a live start.
    fn begin_page(&self, interest: &Interest, from: StartFrom) -> Option<(Rest, Option<Missed>)> {
        let (epoch, head) = (self.epoch, self.sequence);
        let rest = |begun, sequence, since| Rest {
            begun,
            epoch,
            sequence,
            head,
            since,
            told: Told::Through(self.evictions),
        };
        // This log has never given out a cursor past its head.
        let is_foreign = |of, sequence| of != epoch || sequence > head;
        let foreign = Missed { reason: MissedReason::Epoch, topics: Vec::new() };
        let began_later =
            matches!(from, StartFrom::Since { unix_ms, .. } if self.began_after(unix_ms));
        let unknown = Missed { reason: MissedReason::History, topics: Vec::new() };
        Some(match self.located(from) {
            StartFrom::Live | StartFrom::LiveAfter { .. } | StartFrom::Since { .. } => return None,
            StartFrom::Snapshot => (rest(Begun::Snapshot, 0, 0), None),
            StartFrom::Earliest => (rest(Begun::Earliest, 0, 0), None),
            StartFrom::After { epoch, sequence, since } if is_foreign(epoch, sequence) => {
                (rest(Begun::Earliest, 0, since), Some(foreign))
            }
            StartFrom::Continue(of) if is_foreign(of.epoch, of.sequence.max(of.head)) => {
                (rest(Begun::Earliest, 0, 0), Some(foreign))
            }
            StartFrom::After { sequence, since, .. } if began_later => {
                (rest(Begun::After, sequence, since), Some(unknown))
            }
            StartFrom::After { sequence, since, .. } => {
                let lacks = |history: &HistoryRing| history.has_lost(sequence, &interest.types, 0);
                let missed = self.missed_since(interest, sequence, sequence, lacks);
                (rest(Begun::After, sequence, since), self.losses.add_to(missed, sequence))
            }
            StartFrom::Continue(rest) => (rest, self.missed_of_rest(interest, rest)),
        })
    }

    /// The topics with wanted events after a sequence. After a gap for another epoch, the client
    /// knows of the losses.
    fn missed_before_live(
        &mut self,
        interest: &Interest,
        epoch: Epoch,
        sequence: u64,
    ) -> Option<Missed> {
        if epoch != self.epoch || sequence > self.sequence {
            return None;
        }
        let types = &interest.types;
        let mut visits = 0;
        let lacks = |history: &HistoryRing| {
            visits += 1;
            let mut events = history.after(sequence);
            let has_event = match types.is_all() {
                true => events.next().is_some(),
                false => events.inspect(|_| visits += 1).any(|event| types.wants(event)),
            };
            has_event || history.has_lost(sequence, types, 0)
        };
        let missed = self.missed_since_by(interest, sequence, lacks);
        self.visits += visits;
        self.losses.add_to(missed, sequence)
    }

    /// The missed events of the rest of a replay, without the losses known to the client.
    fn missed_of_rest(&self, interest: &Interest, rest: Rest) -> Option<Missed> {
        let has_lost = |history: &HistoryRing, told| {
            history.has_lost(rest.after_in(history), &interest.types, told)
        };
        match rest.told {
            Told::Through(told) => {
                let lacks = |history: &HistoryRing| has_lost(history, told);
                self.missed_since(interest, rest.sequence, rest.head, lacks)
            }
            Told::AtHead => {
                let lacks = |history: &HistoryRing| {
                    has_lost(history, 0) && !history.has_lost_only_before(rest.head)
                };
                let missed = self.missed_since(interest, rest.sequence, rest.sequence, lacks);
                self.losses.add_to(missed, rest.sequence)
            }
        }
    }

    /// Visits the events of the named topics, merged by sequence. Returns whether it visited all.
    fn visit_named(&self, page: &mut Page<'_>) -> bool {
        let histories = page.interest.topics.iter().filter_map(|topic| self.history(topic));
        let mut sources: Vec<_> = histories
            .map(|history| history.after(page.rest.after_in(history)).peekable())
            .collect();
        let place = |(index, source): (usize, &mut std::iter::Peekable<_>)| {
            let event: Option<&&Arc<SequencedEvent>> = source.peek();
            event.map(|event| Reverse((event.sequence, index)))
        };
        let mut heap: BinaryHeap<_> = sources.iter_mut().enumerate().filter_map(place).collect();
        while let Some(Reverse((sequence, index))) = heap.pop() {
            let has_room = page.visit(sequence, sources[index].next());
            heap.extend(place((index, &mut sources[index])));
            if !has_room {
                return heap.is_empty();
            }
        }
        true
    }

    /// Visits all events of the partition, for a stream with patterns. Returns whether it visited
    /// all.
    fn visit_all(&self, page: &mut Page<'_>) -> bool {
        let named: HashSet<&Topic> = page.interest.topics.iter().collect();
        let mut wanted: HashMap<&Topic, Option<&HistoryRing>> = HashMap::new();
        let mut places = self.places_after(page.rest.sequence);
        while let Some((sequence, topic)) = places.next() {
            let history = *wanted.entry(topic).or_insert_with(|| {
                let is_wanted = named.contains(topic) || page.interest.matches_pattern(topic);
                self.history(topic).filter(|_| is_wanted)
            });
            let history = history.filter(|history| *sequence > page.rest.after_in(history));
            let event = history.and_then(|history| history.get(*sequence));
            if !page.visit(*sequence, event) {
                return places.len() == 0;
            }
        }
        true
    }

    /// The missed events after a sequence: of the histories with `lacks`, and of topics forgotten
    /// after `forgotten_after`.
    fn missed_since(
        &self,
        interest: &Interest,
        sequence: u64,
        forgotten_after: u64,
        lacks: impl FnMut(&HistoryRing) -> bool,
    ) -> Option<Missed> {
        if self.evicted_through <= sequence {
            return None;
        }
        self.missed_since_by(interest, forgotten_after, lacks)
    }

    /// The same, also if no event was evicted.
    fn missed_since_by(
        &self,
        interest: &Interest,
        forgotten_after: u64,
        mut lacks: impl FnMut(&HistoryRing) -> bool,
    ) -> Option<Missed> {
        let has_forgotten = self.forgotten_through > forgotten_after;
        let exact = interest.topics.iter();
        let exact = exact.filter(|topic| self.history(topic).map_or(has_forgotten, &mut lacks));
        let exact: Vec<&Topic> = exact.take(MAX_MISSED_TOPICS).collect();
        // A stream without patterns needs no scan of all topics.
        let all = (!interest.patterns.is_empty()).then_some(&self.topics);
        let by_pattern = all.into_iter().flatten();
        let by_pattern =
            by_pattern.filter(|(topic, history)| lacks(history) && interest.matches_pattern(topic));
        let topics = exact.into_iter().chain(by_pattern.map(|(topic, _)| topic));
        let topics: Vec<Topic> = topics.take(MAX_MISSED_TOPICS).cloned().collect();
        let has_forgotten = !interest.patterns.is_empty() && has_forgotten;
        let missed = has_forgotten || !topics.is_empty();
        missed.then_some(Missed { reason: MissedReason::History, topics })
    }
}
