//! The requests for streams waiting for their attach, and the answers.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use crate::{
    interest::{Rest, StartFrom},
    log::{Changed, Channel, LogRequest, PartitionHead, Purpose, TopicRead},
    partition::{
        Delivery,
        replica::{
            LinkState, Replica,
            attach::{AttachVerdict, ChangedTopics, Needs, PendingAttach},
            catch_up::Unexpired,
            push_buffer::PushBuffer,
            reads::{ListInFlight, NeededRead, ReadInFlight, ReadTopic, StreamRead},
            sequenced,
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
            let after = match self.located(waiting.from) {
                StartFrom::Live | StartFrom::Since { .. } => continue,
                StartFrom::After { epoch, sequence, .. }
                | StartFrom::LiveAfter { epoch, sequence }
                | StartFrom::Continue(Rest { epoch, sequence, .. })
                    if self.present_epoch(epoch) == self.log.epoch() =>
                {
                    sequence
                }
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
        if !reads.is_empty() {
            let reads: Vec<(Topic, u64)> = reads.into_iter().collect();
            let bytes = self.waiting.iter().map(|waiting| waiting.max_bytes).max();
            self.ask_read(NeededRead::new(&reads, bytes.unwrap_or_default()));
        }
    }

    pub(super) fn ask_changes(&mut self, after: u64) {
        self.serial += 1;
        let pinned_after = self.log.sequence();
        self.listing.push(ListInFlight { serial: self.serial, after, pinned_after });
        let purpose = Purpose::Attach { serial: self.serial };
        self.requests.push(LogRequest::Changes { purpose, after });
        self.pin();
    }

    /// The waiting streams of this second get their position.
    pub(super) fn on_located(&mut self, head: &PartitionHead, second: u64, sequence: u64) {
        self.locating.remove(&second);
        if !self.accepts(head) {
            return;
        }
        let (present, earlier) = (head.epoch, &self.earlier_epochs);
        for waiting in &mut self.waiting {
            if let StartFrom::Since { unix_ms, epoch } = waiting.from
                && unix_ms / 1000 == second
                && epoch.is_none_or(|epoch| epoch == present || earlier.contains(&epoch))
            {
                waiting.from = StartFrom::After { epoch: present, sequence, since: unix_ms };
            }
        }
        if self.is_up() {
            self.log.advance(head.sequence);
            self.answer_waiting();
        }
    }

    pub(super) fn on_changes_for_streams(
        &mut self,
        serial: u64,
        head: &PartitionHead,
        changed: Changed,
    ) {
        let asked = self.listing.iter().position(|list| list.serial == serial);
        let asked = asked.map(|index| self.listing.swap_remove(index));
        if !self.accepts(head) {
            return;
        }
        self.coverage.confirm(&Channel::All, serial, head.sequence);
        let Some(asked) = asked.filter(|_| self.is_up()) else { return self.pin() };
        // The confirmed topics' pushes first: `answer_waiting` replays from the history.
        self.merge_unconfirmed();
        self.log.advance(head.sequence);
        let changed = Arc::new(ChangedTopics { changed, head: head.sequence });
        let mut all = std::mem::take(&mut self.waiting);
        for waiting in &mut all {
            let from = match self.located(waiting.from) {
                // Only a cursor of this log counts. For a foreign one, the stream gets all events
                // left in history.
                StartFrom::After { epoch, sequence, .. }
                | StartFrom::LiveAfter { epoch, sequence }
                | StartFrom::Continue(Rest { epoch, sequence, .. })
                    if self.present_epoch(epoch) == head.epoch && sequence <= head.sequence =>
                {
                    sequence
                }
                _ => 0,
            };
            // The list begins at `after`: too late for a stream with a lower position.
            if from >= asked.after && waiting.changed.is_none() {
                waiting.changed = Some(changed.clone());
                waiting.pin(asked.pinned_after);
            }
        }
        self.waiting = all;
        self.answer_waiting();
    }

    pub(super) fn on_read_for_streams(
        &mut self,
        serial: u64,
        head: &PartitionHead,
        through: u64,
        reads: Vec<TopicRead>,
        now: Instant,
    ) {
        let asked = self.reading.iter().position(|read| read.serial == serial);
        let asked = asked.map(|index| self.reading.swap_remove(index));
        for waiting in self.waiting.iter_mut().filter(|waiting| waiting.asked == Some(serial)) {
            waiting.asked = None;
        }
        if !self.accepts(head) {
            return self.pin();
        }
        for read in &reads {
            self.coverage.confirm(&Channel::Topic(read.topic.clone()), serial, head.sequence);
        }
        // While catching up, the read's events must not overtake the held pushes: the streams ask
        // again later.
        if self.is_up() {
            self.merge_unconfirmed();
            self.log.advance(head.sequence);
            if let Some(asked) = asked {
                self.hand_read(&asked, head, through, reads, now);
            }
            self.answer_waiting();
        }
        self.pin();
        self.trims.extend(self.log.trim());
        self.log.expire(now);
    }

    /// Hands an answered read to the streams waiting for it, and to all streams without a read.
    fn hand_read(
        &mut self,
        asked: &ReadInFlight,
        head: &PartitionHead,
        through: u64,
        reads: Vec<TopicRead>,
        now: Instant,
    ) {
        let reads = reads.into_iter().filter(|read| read.after < u64::MAX);
        // Its pages may have been read after the head: later events are in the log.
        let through = through.min(head.sequence);
        let is_whole = through == head.sequence;
        let topics =
            reads.map(|read| (read.topic.clone(), self.read_topic(&read, through, is_whole, now)));
        let read = Arc::new(StreamRead { through, is_whole, topics: topics.collect() });
        for waiting in self.waiting.iter_mut() {
            if waiting.asked.is_none() && waiting.read.is_none() {
                waiting.read = Some(read.clone());
                waiting.pin(asked.pinned_after);
            }
        }
        self.keep_read(&read);
    }

    fn read_topic(
        &self,
        read: &TopicRead,
        through: u64,
        is_whole: bool,
        now: Instant,
    ) -> ReadTopic {
        let Unexpired { events, lost_through, is_trimmed } =
            self.split_expired(read, is_whole, now);
        let policy = self.spec.partition.policies.of(read.topic.as_str());
        let (partition, epoch) = (self.spec.partition.partition, self.log.epoch());
        let events = events.into_iter().filter(|event| event.sequence <= through);
        let events =
            events.map(|event| Arc::new(sequenced(event, partition, epoch, policy.clone())));
        ReadTopic {
            after: read.after,
            lost_through,
            is_trimmed,
            last: read.last,
            events: events.collect(),
        }
    }

    /// Merges the unconfirmed pushes of topics confirmed since. No open stream listens to these
    /// topics, so the history takes their events without routing them.
    fn merge_unconfirmed(&mut self) {
        let LinkState::Up { unconfirmed } = &mut self.link else { return };
        let mut still_unconfirmed = PushBuffer::default();
        let mut has_merged = false;
        for event in unconfirmed.take() {
            if self.coverage.topic_since(&event.topic).is_none() {
                if self.coverage.covers(&event.topic) {
                    still_unconfirmed.push(event);
                }
            } else if event.sequence > self.known_through(&event.topic) {
                let (topic, sequence) = (event.topic.clone(), event.sequence);
                self.merge(&topic, vec![event], 0, false);
                has_merged = true;
                self.log.advance(sequence);
            }
        }
        self.link = LinkState::Up { unconfirmed: still_unconfirmed };
        if has_merged {
            self.log.settle_merges();
        }
    }

    /// Attaches the ready streams, and requests the missing events of the others.
    pub(super) fn answer_waiting(&mut self) {
        if !self.is_up() {
            return;
        }
        let (mut needs, mut still, mut began) = (Needs::default(), Vec::new(), Vec::new());
        // The places of streams waiting for a read about to be requested, and the place of the read.
        let mut readers = Vec::new();
        for mut waiting in std::mem::take(&mut self.waiting) {
            match self.judge(&waiting) {
                AttachVerdict::Begins(replay, told) => {
                    began.push((waiting, replay, told));
                    continue;
                }
                AttachVerdict::Waits => {}
                AttachVerdict::NeedsHead => {
                    needs.head_after = needs.head_after.max(Some(waiting.came_after));
                }
                AttachVerdict::NeedsPosition { second } => {
                    needs.seconds.insert(second);
                }
                AttachVerdict::NeedsChanges { after } => {
                    let lowest = needs.changes_after.unwrap_or(after);
                    needs.changes_after = Some(lowest.min(after));
                }
                AttachVerdict::NeedsRead { topics } => {
                    waiting.read = None;
                    if let Some((serial, pinned_after)) = self.read_in_flight(&topics) {
                        waiting.asked = Some(serial);
                        waiting.pin(pinned_after);
                    } else {
                        waiting.pin(self.log.sequence());
                        readers.push((still.len(), needs.read(&topics, waiting.max_bytes)));
                    }
                }
            }
            still.push(waiting);
        }
        self.waiting = still;
        // The replay ends at the log's sequence, and no event enters the log before the attach. So
        // the stream gets each event once, from the replay or live.
        for (PendingAttach { manager, stream, interest, .. }, replay, told) in began {
            if replay.next.is_some() {
                self.replaying.insert((manager, stream), told);
            } else {
                self.routing.listeners.attach(manager, &interest);
            }
            self.queue(manager, Delivery::Attached { stream, replay });
        }
        self.ask(needs, &readers);
    }

    /// Requests `needs`, except for requests already in flight. `readers` are the places of the
    /// streams waiting for a read, and the places of their reads.
    fn ask(&mut self, needs: Needs, readers: &[(usize, usize)]) {
        if needs.head_after.is_some_and(|after| self.head_serial <= after) {
            self.serial += 1;
            self.head_serial = self.serial;
            let purpose = Purpose::Attach { serial: self.serial };
            self.requests.push(LogRequest::Head { purpose });
        }
        for second in needs.seconds {
            if self.locating.insert(second) {
                self.serial += 1;
                let purpose = Purpose::Attach { serial: self.serial };
                self.requests.push(LogRequest::Locate { purpose, second });
            }
        }
        if let Some(after) = needs.changes_after
            && self.listing.iter().all(|list| list.after > after)
        {
            self.ask_changes(after);
        }
        let reads = needs.reads.into_iter();
        let serials: Vec<u64> = reads.map(|read| self.ask_read(read)).collect();
        for (reader, read) in readers {
            self.waiting[*reader].asked = Some(serials[*read]);
        }
        self.pin();
    }
}
