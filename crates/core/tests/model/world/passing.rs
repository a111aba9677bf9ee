//! The messages between partitions and managers, and the turns of managers.

use std::collections::HashSet;

use fanfare_core::{
    event::SequencedEvent,
    ids::StreamId,
    interest::{Begun, Start, StartFrom, Told},
    partition::{Delivery, InterestChange, Interruption},
    partition_log::{MissedReason, Replay},
    topic::Topic,
};
use rand::RngExt;

use super::{CLIENTS, MANAGERS, PARTITIONS, Reference, Scope, World, any, nodes::Session};

impl World {
    /// A message between a partition and a manager is sent or arrives.
    pub(super) fn hand_over(&mut self) {
        let partition = self.rng.random_range(0..usize::from(PARTITIONS));
        let manager = self.rng.random_range(0..MANAGERS);
        if self.redis.is_some() && self.rng.random_bool(0.5) {
            let count = self.rng.random_range(1..10);
            return self.relay(manager, partition, count);
        }
        if self.rng.random_bool(0.5) {
            self.partition_to_manager(partition, manager);
        } else {
            self.manager_to_partition(partition, manager);
        }
    }

    pub(super) fn hand_over_all(&mut self) {
        for partition in 0..usize::from(PARTITIONS) {
            for manager in 0..MANAGERS {
                for _ in 0..2 {
                    self.manager_to_partition(partition, manager);
                    self.partition_to_manager(partition, manager);
                }
            }
        }
    }

    /// The instance of a manager.
    fn instance_of(&self, manager: usize) -> usize {
        if self.redis.is_some() { manager } else { 0 }
    }

    fn partition_to_manager(&mut self, partition: usize, manager: usize) {
        let instance = self.instance_of(manager);
        let node = &mut self.instances[instance][partition];
        if let Some(deliveries) = node.to_manager[manager].take() {
            for delivery in deliveries {
                self.note_arrival(manager, partition as u16, &delivery);
                let state = &mut self.managers[manager].state;
                state.on_delivery(partition as u16, delivery, self.now);
            }
            return;
        }
        let mut deliveries = node.partition().routing().take_outgoing(manager as u64);
        if std::mem::take(&mut node.must_restart[manager]) {
            deliveries.insert(0, Delivery::Restarted);
        }
        if !deliveries.is_empty() {
            node.to_manager[manager] = Some(deliveries);
        }
    }

    fn manager_to_partition(&mut self, partition: usize, manager: usize) {
        let instance = self.instance_of(manager);
        let node = &mut self.managers[manager];
        if let Some(mut changes) = node.to_partition[partition].take() {
            let sizes: &[usize] = match self.scope {
                Scope::Everything => &[1, 60, 200, 10_000],
                Scope::Additions => &[1, 1, 60],
            };
            for change in &mut changes {
                if let InterestChange::Attach { max_bytes, .. } = change {
                    *max_bytes = any(&mut self.rng, sizes);
                }
            }
            changes.iter().for_each(|change| self.note_attach(manager, partition as u16, change));
            let state = self.instances[instance][partition].partition();
            state.change_interest(manager as u64, changes, self.now);
            while state.continue_changes(self.now) {}
        } else if node.state.has_changes(partition as u16) {
            node.to_partition[partition] = Some(node.state.take_changes(partition as u16));
        }
    }

    /// Records the events missing in history for a stream, at the moment of its attach.
    fn note_attach(&mut self, manager: usize, partition: u16, change: &InterestChange) {
        let InterestChange::Attach { stream, interest, from, .. } = change else { return };
        if matches!(from, StartFrom::LiveAfter { .. }) {
            return self.note_addition(manager, *stream, partition);
        }
        if matches!(from, StartFrom::Continue(_)) && self.session_of(manager, *stream).is_some() {
            self.totals.added_pages += 1;
        }
        if self.redis.is_some() {
            // The replica answers later, and history may have lost more events by then.
            return;
        }
        let Some(number) = self.streams.get(stream).copied() else { return };
        let session = self.sessions[number].as_ref();
        if session.is_none_or(|session| session.stream != *stream) {
            // The stream has already ended.
            return;
        }
        let evicted = self.reference.evicted(self.now).clone();
        let reference = &self.reference;
        let client = &mut self.clients[number];
        // The first page tells the losses up to then; a later page tells the losses since.
        let (after, since, told) = match from {
            StartFrom::Continue(rest) if rest.told == Told::AtHead => {
                // In doubt, the partition tells a loss from before the replay again.
                client.may_lack_times = true;
                let is_known = |index: &&usize| !reference.was_evicted_from(**index, rest.head);
                (rest.sequence, 0, Some(evicted.iter().filter(is_known).copied().collect()))
            }
            StartFrom::Continue(rest) => {
                (rest.sequence, rest.since, client.told_evicted.remove(&partition))
            }
            StartFrom::After { sequence, .. } => (*sequence, 0, None),
            StartFrom::Since { unix_ms, .. } => (0, *unix_ms, None),
            StartFrom::Snapshot | StartFrom::Earliest => {
                client.told_evicted.insert(partition, evicted);
                let head = self.reference.last_in(partition);
                return self.promise_history(number, partition, *from, head);
            }
            StartFrom::Live | StartFrom::LiveAfter { .. } => return,
        };
        let told: HashSet<usize> = told.unwrap_or_default();
        let lost = evicted.difference(&told).filter(|index| {
            let record = &self.reference.records[**index];
            let topic = Topic::parse(record.topic).unwrap();
            let is_wanted = interest.topics.contains(&topic) || interest.matches_pattern(&topic);
            let is_wanted = is_wanted && interest.types.wants_type(record.event_type);
            let is_since = self.worker.clock_ms(record.at) >= since;
            // A snapshot wants no older events of topics without conflation.
            let after = match from {
                StartFrom::Continue(rest)
                    if rest.begun == Begun::Snapshot
                        && !reference.policies.of(record.topic).conflates() =>
                {
                    after.max(rest.head)
                }
                _ => after,
            };
            is_wanted && is_since && record.partition == partition && record.sequence > after
        });
        let is_first = match from {
            StartFrom::Continue(rest) => rest.told == Told::AtHead,
            _ => matches!(from, StartFrom::After { .. }),
        };
        // Evicted at the head of the last gap: before this gap, or after it. Only in the second case
        // the partition has to tell it.
        let is_in_doubt = |index: &usize| match from {
            StartFrom::Continue(rest) if rest.told == Told::AtHead => {
                !reference.was_evicted_from(*index, rest.head + 1)
            }
            _ => false,
        };
        let (in_doubt, events): (HashSet<usize>, HashSet<usize>) =
            lost.copied().partition(is_in_doubt);
        client.lose(reference.loss(partition, in_doubt), false);
        client.lose(reference.loss(partition, events), is_first);
        client.told_evicted.insert(partition, evicted);
    }

    /// A topic added live in a partition of the stream begins live: a gap may name it.
    fn note_addition(&mut self, manager: usize, attachment: StreamId, partition: u16) {
        if let Some(number) = self.session_of(manager, attachment) {
            self.clients[number].additions.insert(partition);
        }
    }

    /// The session of an attachment added by a change, while the partition owes an answer.
    /// Other managers have attachments with the same id.
    fn session_of(&self, manager: usize, attachment: StreamId) -> Option<usize> {
        let stream = self.managers[manager].state.stream_of_attachment(attachment)?;
        let is_its = |session: &Session| session.stream == stream;
        self.sessions.iter().position(|one| one.as_ref().is_some_and(is_its))
    }

    pub(super) fn end_turn(&mut self) {
        let manager = self.rng.random_range(0..MANAGERS);
        self.end_turn_of(manager);
    }

    pub(super) fn end_turn_of(&mut self, manager: usize) {
        let state = &mut self.managers[manager].state;
        state.on_time(self.now);
        state.take_activity();
        self.take_finished(manager);
        self.take_rereads(manager);
    }

    /// Records the events taken by a manager: its streams get them.
    fn note_arrival(&mut self, manager: usize, partition: u16, delivery: &Delivery<()>) {
        let reference = &self.reference;
        let index = |event: &SequencedEvent| {
            reference.find(Reference::number_of(&event.body), event.topic.as_str())
        };
        match delivery {
            Delivery::Event { event, .. } => {
                let sessions = self.sessions.iter_mut().flatten();
                for session in sessions.filter(|session| session.manager == manager) {
                    session.arrived.insert(index(event));
                }
            }
            Delivery::Attached { stream, replay } => {
                if let Some(number) = self.session_of(manager, *stream)
                    && let Some(session) = &mut self.sessions[number]
                {
                    session.is_adding = replay.next.is_some();
                }
                let mut sessions = self.sessions.iter_mut().flatten();
                if let Some(session) = sessions.find(|session| session.stream == *stream) {
                    session.arrived.extend(replay.events.iter().map(|event| index(event)));
                }
                self.note_first_page(*stream, partition, replay);
                self.note_missed(*stream, partition, replay);
            }
            Delivery::Interrupted(interruption) if interruption.beginning.is_none() => {
                self.note_interrupted(manager, interruption);
            }
            Delivery::Interrupted(_) | Delivery::Relinked | Delivery::Restarted => {}
        }
    }

    /// With the model Redis: a stream beginning with history gets its first page of a partition.
    fn note_first_page(&mut self, stream: StreamId, partition: u16, replay: &Replay) {
        let Some(number) = self.streams.get(&stream).copied() else { return };
        let session = self.sessions[number].as_mut().filter(|session| session.stream == stream);
        let Some(session) = session.filter(|_| self.redis.is_some()) else { return };
        let from = match session.begins_with {
            Start::Earliest => StartFrom::Earliest,
            Start::Snapshot => StartFrom::Snapshot,
            _ => return,
        };
        if session.begun.insert(partition) {
            let head = replay.mark.map_or(replay.head, |(_, head)| head);
            self.promise_history(number, partition, from, head);
        }
    }

    /// With the model Redis: records the missed events of a replay. The client must get a gap.
    fn note_missed(&mut self, stream: StreamId, partition: u16, replay: &Replay) {
        let missed = replay.missed.as_ref().filter(|missed| missed.reason == MissedReason::History);
        let Some(missed) = missed.filter(|_| self.redis.is_some()) else { return };
        let Some(client) = self.streams.get(&stream).copied() else { return };
        let session = self.sessions[client].as_ref();
        if session.is_none_or(|session| session.stream != stream) {
            return;
        }
        let evicted = self.reference.evicted(self.now).clone();
        // A page tells the losses of all later pages up to now.
        let through = if replay.next.is_none() { replay.head } else { u64::MAX };
        let lost = evicted.into_iter().filter(|index| {
            let record = &self.reference.records[*index];
            record.partition == partition
                && (replay.start + 1..=through).contains(&record.sequence)
                && names(&missed.topics, record.topic)
        });
        let loss = self.reference.loss(partition, lost.collect());
        let client = &mut self.clients[client];
        client.lose(loss, false);
        if self.reference.has_lost(partition, replay.start, through) {
            client.gone_back.insert(partition);
        }
    }

    /// Records the events possibly missed because of an interruption. The clients must get a gap.
    fn note_interrupted(&mut self, manager: usize, interruption: &Interruption) {
        let Interruption { partition, topics, .. } = interruption;
        for client in 0..CLIENTS {
            if self.sessions[client].as_ref().is_none_or(|session| session.manager != manager) {
                continue;
            }
            let client = &mut self.clients[client];
            let late = self.reference.records.iter().enumerate().filter(|(index, record)| {
                record.partition == *partition
                    && names(topics, record.topic)
                    && !client.is_got.contains(index)
            });
            let late = late.map(|(index, _)| index);
            let loss = self.reference.loss(*partition, late.collect());
            client.lose(loss, false);
        }
    }
}

/// Whether a gap's topics include this one; an empty list includes all.
fn names(topics: &[Topic], topic: &str) -> bool {
    topics.is_empty() || topics.iter().any(|one| one.as_str() == topic)
}
