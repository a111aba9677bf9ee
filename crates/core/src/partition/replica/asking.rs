//! The requests for streams waiting for their attach, and the answers.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use crate::{
    interest::StartFrom,
    log::{Changed, Channel, LogRequest, PartitionHead, Purpose, TopicRead},
    partition::{
        Delivery,
        replica::{
            LinkState, Replica,
            attach::{AttachVerdict, Needs, PendingAttach},
            push_buffer::PushBuffer,
        },
    },
    topic::Topic,
};

impl<P> Replica<P> {
    /// Subscribes to channels and reads their topics: the read's answer confirms the subscription.
    /// The read begins at the lowest position of the waiting streams, so the same answer brings
    /// their missing events. Without such a stream it requests no events.
    pub(super) fn subscribe(&mut self, channels: Vec<Channel>) {
        let mut reads: BTreeMap<Topic, u64> = BTreeMap::new();
        for channel in &channels {
            if let Channel::Topic(topic) = channel {
                reads.insert(topic.clone(), u64::MAX);
            }
        }
        for waiting in &self.waiting {
            let after = match waiting.from {
                StartFrom::Live => continue,
                StartFrom::After { epoch, sequence } if epoch == self.log.epoch() => sequence,
                _ => 0,
            };
            for topic in &waiting.interest.topics {
                if let Some(lowest) = reads.get_mut(topic) {
                    *lowest = after.min(*lowest);
                }
            }
        }
        // Subscribe first. With the read first, an event between the two would be neither in the
        // answer nor pushed.
        let has_all = channels.contains(&Channel::All);
        self.requests.push(LogRequest::Subscribe(channels));
        if has_all {
            // An empty list: only its head is needed, to confirm the channel of all topics.
            self.ask_changes(u64::MAX);
        }
        self.ask_reads(reads.into_iter().collect());
    }

    pub(super) fn ask_changes(&mut self, after: u64) {
        self.serial += 1;
        self.listing.push((self.serial, after));
        let purpose = Purpose::Attach { serial: self.serial };
        self.requests.push(LogRequest::Changes { purpose, after });
    }

    pub(super) fn ask_reads(&mut self, topics: Vec<(Topic, u64)>) {
        if topics.is_empty() {
            return;
        }
        self.serial += 1;
        self.reading.extend(topics.iter().cloned());
        let purpose = Purpose::Attach { serial: self.serial };
        self.requests.push(LogRequest::Read { purpose, topics });
    }

    pub(super) fn on_changes_for_streams(
        &mut self,
        serial: u64,
        head: &PartitionHead,
        changed: Changed,
    ) {
        let asked = self.listing.iter().position(|(asked, _)| *asked == serial);
        let after = asked.map(|index| self.listing.swap_remove(index).1);
        if !self.accepts(head) {
            return;
        }
        self.coverage.confirm(&Channel::All, serial, head.sequence);
        let Some(after) = after.filter(|_| self.is_up()) else { return };
        // The confirmed topics' pushes first: `answer_waiting` replays from the history.
        self.merge_unconfirmed();
        self.log.settle_merges();
        self.log.advance(head.sequence);
        let changed = Arc::new(changed);
        for waiting in &mut self.waiting {
            let from = match waiting.from {
                // Only a cursor of this log counts. For a foreign one, the stream gets all events
                // left in history.
                StartFrom::After { epoch, sequence }
                    if epoch == head.epoch && sequence <= head.sequence =>
                {
                    sequence
                }
                _ => 0,
            };
            // The list begins at `after`: too late for a stream with a lower position.
            if from >= after {
                waiting.changed = Some(changed.clone());
            }
        }
        self.answer_waiting();
    }

    pub(super) fn on_read_for_streams(
        &mut self,
        serial: u64,
        head: &PartitionHead,
        reads: Vec<TopicRead>,
        now: Instant,
    ) {
        for read in &reads {
            if self.reading.get(&read.topic) == Some(&read.after) {
                self.reading.remove(&read.topic);
            }
        }
        if !self.accepts(head) {
            return;
        }
        for read in reads {
            let channel = Channel::Topic(read.topic.clone());
            // A topic covered before may have open streams. They get newer events as live events
            // from pushes; merged here, these events would be known and their pushes skipped.
            // Computed before `confirm`, since it changes the coverage.
            let through = match self.coverage.topic_since(&read.topic) {
                Some(_) => self.known_through(&read.topic),
                None => head.sequence,
            };
            self.coverage.confirm(&channel, serial, head.sequence);
            let is_wanted = self.coverage.topic_since(&read.topic).is_some();
            if read.after == u64::MAX || !is_wanted || !self.is_up() {
                // While catching up, these events must not overtake the held pushes: the stream
                // requests the read again later.
                continue;
            }
            let (mut events, lost_through) = self.split_expired(&read, now);
            events.retain(|event| event.sequence <= through);
            self.merge(&read.topic, events, read.after, lost_through);
        }
        if self.is_up() {
            self.merge_unconfirmed();
            self.log.settle_merges();
            self.log.advance(head.sequence);
            self.answer_waiting();
        }
        // Apply the budget after the replays. Earlier, it would evict the events just read for
        // these streams.
        self.trims.extend(self.log.trim());
        self.log.expire(now);
    }

    /// Merges the unconfirmed pushes of topics confirmed since. No open stream listens to these
    /// topics, so the history takes their events without routing them.
    fn merge_unconfirmed(&mut self) {
        let LinkState::Up { unconfirmed } = &mut self.link else { return };
        let mut still_unconfirmed = PushBuffer::default();
        for event in unconfirmed.take() {
            if self.coverage.topic_since(&event.topic).is_none() {
                if self.coverage.covers(&event.topic) {
                    still_unconfirmed.push(event);
                }
            } else if event.sequence > self.known_through(&event.topic) {
                let (topic, sequence) = (event.topic.clone(), event.sequence);
                self.merge(&topic, vec![event], u64::MAX, 0);
                self.log.advance(sequence);
            }
        }
        self.link = LinkState::Up { unconfirmed: still_unconfirmed };
    }

    /// Attaches the ready streams, and requests the missing events of the others.
    pub(super) fn answer_waiting(&mut self) {
        if !self.is_up() {
            return;
        }
        let mut needs = Needs::default();
        let mut still = Vec::new();
        let mut began = Vec::new();
        for mut waiting in std::mem::take(&mut self.waiting) {
            match self.judge(&waiting, &mut needs) {
                AttachVerdict::Begins(replay) => began.push((waiting, replay)),
                AttachVerdict::Waits => still.push(waiting),
                AttachVerdict::WaitsForRead => {
                    waiting.rounds += 1;
                    still.push(waiting);
                }
            }
        }
        self.waiting = still;
        // The replay ends at the log's sequence, and no event enters the log before the attach. So
        // the stream gets each event once, from the replay or live.
        for (PendingAttach { manager, stream, interest, .. }, replay) in began {
            self.routing.listeners.attach(manager, &interest);
            self.queue(manager, Delivery::Attached { stream, replay });
        }
        self.ask(needs);
    }

    /// Requests `needs`, except for requests already in flight.
    pub(super) fn ask(&mut self, needs: Needs) {
        if needs.head_after.is_some_and(|after| self.head_serial <= after) {
            self.serial += 1;
            self.head_serial = self.serial;
            let purpose = Purpose::Attach { serial: self.serial };
            self.requests.push(LogRequest::Head { purpose });
        }
        if let Some(after) = needs.changes_after
            && self.listing.iter().all(|(_, asked)| *asked > after)
        {
            self.ask_changes(after);
        }
        self.ask_reads(needs.reads.into_iter().collect());
    }
}
