//! The expected delivery of each event to each client: recorded at the publish, and revised with
//! every change of the client's subscription.
//!
//! - A wanted event must arrive, an unwanted event must not. With a change in flight, it may.
//! - A removal is requested, and the stream's manager already has a wanted event: the event must
//!   arrive, unless the stream is cut. If the manager does not have it yet, it may arrive.
//! - An event published before an addition may arrive if the client's last id is older.

use fanfare_core::{
    cursor::{Cursor, IN_ANOTHER_EPOCH},
    interest::StartFrom,
    topic::Topic,
};

use super::{PARTITIONS, TOPICS, World};
use crate::{
    client::{ModelClient, StreamTold},
    expectation::Due,
    graph::{ModelGraph, NOTIFICATIONS, POSTS},
    reference::{EventRecord, Reference},
};

/// The expected delivery of an event by the client's present subscription.
fn due_now(client: &ModelClient, graph: &ModelGraph, record: &EventRecord) -> Due {
    let type_filter = match client.wants_type(record.event_type) {
        true => client.expectation.kind(graph, record.event_type),
        false => Due::Not,
    };
    client.expectation.topic(graph, record.topic).and(type_filter)
}

fn covers_topic(client: &ModelClient, graph: &ModelGraph, topic: &Topic) -> bool {
    client.expectation.topic(graph, topic.as_str()) != Due::Not
}

impl World {
    /// Records the expected delivery of the newest event, for every client.
    pub(super) fn promise(&mut self) {
        let Some(record) = self.reference.records.last() else { return };
        for client in &mut self.clients {
            let due = due_now(client, &self.graph, record);
            client.due.push(due);
            client.topic_due.push(client.expectation.topic(&self.graph, record.topic));
        }
    }

    /// Revises the expected deliveries at the start of a change.
    pub(super) fn revise(&mut self, number: usize) {
        let arrived = self.sessions[number].as_ref().map(|session| &session.arrived);
        let (mut revised, mut kept) = (Vec::new(), 0);
        for (index, record, due) in self.untold(number) {
            let client = &self.clients[number];
            let now = due_now(client, &self.graph, record);
            let kind = client.expectation.kind(&self.graph, record.event_type);
            let has_arrived = arrived.is_some_and(|arrived| arrived.contains(&index));
            // A muted event is queued with the others of its topic, so unmuting may deliver it.
            let is_queued = has_arrived && client.topic_due[index] != Due::Not;
            let may_be_wanted = now != Due::Not
                || kind != Due::Not && is_queued && client.wants_type(record.event_type);
            match due {
                Due::Not if client.not_in_snapshot.contains(&index) => {}
                Due::Not if may_be_wanted && self.may_come(number, record) => revised.push(index),
                Due::Must if now != Due::Must && !(has_arrived && kind == Due::Must) => {
                    revised.push(index);
                }
                Due::Must if now != Due::Must => kept += 1,
                _ => {}
            }
        }
        self.totals.kept += kept;
        self.set_may(number, &revised);
    }

    /// Revises the expected deliveries for a new stream; `wants` is its subscription.
    pub(super) fn promise_at_open(
        &mut self,
        number: usize,
        begins_with_history: bool,
        wants: impl Fn(&EventRecord) -> bool,
    ) {
        if self.clients[number].last_id.is_empty() {
            // A new beginning: the partitions' answers decide again.
            self.clients[number].not_in_snapshot.clear();
        }
        let client = &self.clients[number];
        let cursor = client.last_id.parse::<Cursor>().ok();
        let (mut revised, mut unnamed) = (Vec::new(), 0);
        for (index, record, due) in self.untold(number) {
            let is_wanted = wants(record) && client.wants_type(record.event_type);
            // The client's id does not name the partition: the stream begins at the id's time.
            let is_unnamed = cursor
                .as_ref()
                .is_some_and(|cursor| cursor.positions.get(record.partition).is_none());
            let since = cursor.as_ref().and_then(|cursor| cursor.unix_ms);
            let is_since = since.is_some_and(|since| self.worker.clock_ms(record.at) >= since);
            let may_come =
                begins_with_history || self.may_come(number, record) || is_unnamed && is_since;
            match due {
                Due::Not if client.not_in_snapshot.contains(&index) => {}
                Due::Not if is_wanted && may_come => revised.push(index),
                // Left in history, the partition's answer promises it again.
                Due::Must if !is_wanted || begins_with_history => revised.push(index),
                Due::Must if is_unnamed => {
                    assert!(is_since, "an id is older than the events after it");
                    unnamed += 1;
                }
                _ => {}
            }
        }
        // Positions of partitions not attached now serve later additions.
        let is_named = |number: u16| {
            cursor.as_ref().is_some_and(|cursor| cursor.positions.get(number).is_some())
        };
        let is_attached = |number: u16| {
            let topics = TOPICS.iter().chain(&NOTIFICATIONS).chain(&POSTS);
            let mut topics = topics.filter_map(|topic| Topic::parse(topic).ok());
            topics.any(|topic| {
                topic.partition(PARTITIONS) == number && covers_topic(client, &self.graph, &topic)
            })
        };
        let may_lack = (0..PARTITIONS).any(|number| match is_named(number) {
            true => !is_attached(number),
            false => self.redis.is_some(),
        });
        self.clients[number].may_lack_times = may_lack || client.expectation.owes();
        self.totals.unnamed += unnamed;
        self.set_may(number, &revised);
    }

    /// A new stream begins with history: a partition hands out its first page, or the page arrives.
    /// Everything wanted and left in history must come; of topics without conflation, a snapshot
    /// has nothing up to the head.
    pub(super) fn promise_history(
        &mut self,
        number: usize,
        partition: u16,
        from: StartFrom,
        head: u64,
    ) {
        let evicted = self.reference.evicted(self.now).clone();
        let mut revised: Vec<(usize, Due)> = Vec::new();
        for (index, record) in self.reference.records.iter().enumerate() {
            let client = &self.clients[number];
            let wanted = due_now(client, &self.graph, record);
            if record.partition != partition || wanted == Due::Not || client.is_got.contains(&index)
            {
                continue;
            }
            let conflates = self.reference.policies.of(record.topic).conflates();
            let is_shown = conflates && !record.is_removal;
            let is_in_snapshot = from != StartFrom::Snapshot || is_shown || record.sequence > head;
            let is_left = !evicted.contains(&index);
            // A change in flight is no reason to expect an event: the stream begins without the ones
            // outside its snapshot, or published after its opening and evicted before the answer.
            let is_beginning = record.sequence <= head;
            let is_due = client.due[index] == Due::Must;
            let is_removed = from == StartFrom::Snapshot
                && self.redis.as_ref().is_none_or(|redis| !redis.loses_tails)
                && self.reference.is_removed(index, head);
            let due = match (wanted, is_in_snapshot, is_left) {
                _ if is_removed => Due::Not,
                (Due::Must, true, true) => Due::Must,
                (_, false, _) if self.redis.is_none() => Due::Not,
                (Due::Must, ..) if is_beginning => Due::May,
                (_, false, _) | (_, _, false) if is_beginning && is_due => Due::May,
                _ => continue,
            };
            revised.push((index, due));
        }
        let promised = revised.iter().filter(|(_, due)| *due == Due::Must);
        self.totals.from_history += promised.count();
        let unwanted = revised.iter().filter(|(_, due)| *due == Due::Not);
        self.clients[number].not_in_snapshot.extend(unwanted.map(|(index, _)| *index));
        for (index, due) in revised {
            self.clients[number].due[index] = due;
        }
    }

    /// Takes the client's newly read events and gaps.
    pub(super) fn note_told(&mut self, number: usize) {
        self.note_beginning(number);
        self.note_gaps_of_additions(number);
        let client = &mut self.clients[number];
        if client.seen_epoch_gaps < client.epoch_gaps_at.len() {
            client.seen_epoch_gaps = client.epoch_gaps_at.len();
            self.note_epoch(number);
        }
        let client = &mut self.clients[number];
        for place in client.got.len()..client.told.len() {
            let told = &client.told[place];
            let index = which(&self.reference, told).unwrap_or_else(|| {
                client.blurred.insert(told.number);
                self.reference.of_number(told.number)[0]
            });
            self.totals.collapsed += usize::from(client.told[place].count > 1);
            client.got.push(index);
            client.is_got.insert(index);
        }
    }

    /// A gap of an addition excuses the events missing in history.
    fn note_gaps_of_additions(&mut self, number: usize) {
        let gaps = std::mem::take(&mut self.clients[number].gaps_of_additions);
        if gaps.is_empty() {
            return;
        }
        let evicted = self.reference.evicted(self.now).clone();
        for (partitions, topics) in gaps {
            let is_told = |index: &usize| {
                let record = &self.reference.records[*index];
                let is_named = topics.is_empty() || topics.iter().any(|one| one == record.topic);
                partitions.contains(&record.partition) && is_named
            };
            self.clients[number].excused.extend(evicted.iter().copied().filter(is_told));
        }
    }

    /// Takes the client's first positions in partitions new to its id. Without the model Redis,
    /// events up to these positions must not arrive.
    fn note_beginning(&mut self, number: usize) {
        let client = &mut self.clients[number];
        for (before, id) in std::mem::take(&mut client.placed) {
            let before: Option<Cursor> = before.parse().ok();
            let since: Cursor = id.parse().unwrap();
            let first_era = match &self.redis {
                Some(redis) if !redis.loses_tails => since.epoch.number() - 1,
                _ => 0,
            };
            for (index, record) in self.reference.records.iter().enumerate() {
                let position = |cursor: &Cursor| cursor.positions.get(record.partition);
                let is_since = before
                    .as_ref()
                    .and_then(|before| before.unix_ms)
                    .is_some_and(|since| self.worker.clock_ms(record.at) >= since);
                if client.is_got.contains(&index)
                    || before.as_ref().and_then(position).is_some()
                    || is_since
                {
                    continue;
                }
                let due = &mut client.due[index];
                match position(&since) {
                    Some(since) if (record.era, record.sequence) <= (first_era, since) => {
                        // With the model Redis, the next epoch may deliver it again.
                        *due = if self.redis.is_none() { Due::Not } else { due.and(Due::May) };
                    }
                    // Lost before the first connect, with a sequence given out a second time.
                    Some(_) if record.is_lost => *due = due.and(Due::May),
                    // The first id does not name the partition either: both outcomes are right.
                    None if !client.has_begun => *due = due.and(Due::May),
                    _ => {}
                }
            }
            client.has_begun = true;
        }
    }

    /// After an `epoch` gap, the client may get every wanted event left in history.
    fn note_epoch(&mut self, number: usize) {
        let client = &self.clients[number];
        let left = self.untold(number).filter(|(_, record, due)| {
            *due == Due::Not && due_now(client, &self.graph, record) != Due::Not
        });
        let left: Vec<usize> = left.map(|(index, ..)| index).collect();
        self.set_may(number, &left);
    }

    /// After a cut, finds the uncounted events: merged into a later, unread event, with the last id
    /// already past them.
    pub(super) fn note_uncounted(
        &mut self,
        number: usize,
        handed: &std::collections::BTreeSet<usize>,
    ) {
        let client = &mut self.clients[number];
        let Ok(cursor) = client.last_id.parse::<Cursor>() else { return };
        for index in handed.iter().filter(|index| !client.is_got.contains(index)) {
            let record = &self.reference.records[*index];
            let item = self.reference.collapses_with(*index);
            let passed = cursor.positions.get(record.partition);
            let is_passed = passed.is_some_and(|passed| record.sequence <= passed);
            if item.is_none() || !is_passed || client.due[*index] != Due::Must {
                continue;
            }
            let mut later = handed.range(index + 1..);
            let is_merged = later.any(|later| {
                !client.is_got.contains(later) && self.reference.collapses_with(*later) == item
            });
            if is_merged && client.uncounted.insert(*index) {
                self.totals.uncounted += 1;
            }
        }
    }

    fn untold(&self, number: usize) -> impl Iterator<Item = (usize, &EventRecord, Due)> {
        let client = &self.clients[number];
        let all = self.reference.records.iter().zip(&client.due).enumerate();
        all.filter(|(index, _)| !client.is_got.contains(index))
            .map(|(index, (record, due))| (index, record, *due))
    }

    fn set_may(&mut self, number: usize, indices: &[usize]) {
        indices.iter().for_each(|index| self.clients[number].due[*index] = Due::May);
    }

    /// Whether a previously unwanted event may arrive after an addition: it is newer than the
    /// client's position.
    fn may_come(&self, number: usize, record: &EventRecord) -> bool {
        if let Some(redis) = &self.redis
            && (redis.era > 0 || redis.loses_tails)
        {
            return true;
        }
        let cursor = self.clients[number].last_id.parse::<Cursor>().ok();
        match cursor.and_then(|cursor| cursor.positions.get(record.partition)) {
            Some(position) => record.sequence > position,
            // The stream's instance may be behind the log.
            None if self.redis.is_some() => true,
            None => {
                let session = self.sessions[number].as_ref();
                session.is_some_and(|session| {
                    record.sequence > session.opened_at[usize::from(record.partition)]
                })
            }
        }
    }
}

/// The index of a received event. For a fan-out, the id decides: it has moved to the event's
/// sequence. None if the id is ambiguous, for example with a partition still in an older epoch.
fn which(reference: &Reference, told: &StreamTold) -> Option<usize> {
    let all = reference.of_number(told.number);
    if let [only] = all {
        return Some(*only);
    }
    let (before, now) = (told.before.parse::<Cursor>().ok(), told.id.parse::<Cursor>().ok());
    let has_come_to = |index: &&usize| {
        let record = &reference.records[**index];
        let position = |cursor: &Option<Cursor>| cursor.as_ref()?.positions.get(record.partition);
        // A partition added in between enters the id without an event.
        let is_known = position(&before).is_some();
        is_known && position(&now) == Some(record.sequence) && position(&now) != position(&before)
    };
    // Events of a partition behind leave no trace in the id.
    let is_behind = |index: &usize| {
        let partition = reference.records[*index].partition;
        now.as_ref().is_some_and(|now| now.positions.get(partition) == Some(IN_ANOTHER_EPOCH))
    };
    if all.iter().any(is_behind) {
        return None;
    }
    let mut found = all.iter().filter(has_come_to);
    found.next().copied().filter(|_| found.next().is_none())
}
