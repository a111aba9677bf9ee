//! Catching up: a replica reads its missed events after a lost connection, after a missing push,
//! and at the start of a new epoch.
//!
//! 1. [`Replica::catch_up`] requests the topics changed since the last cut, and holds new pushes.
//! 2. [`Replica::on_changes`] requests the missed events of these topics.
//! 3. [`Replica::finish_catching_up`] applies the read events and the held pushes in order.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem::{replace, take},
    sync::Arc,
    time::Instant,
};

use crate::{
    cursor::Epoch,
    log::{Acknowledgements, Changed, LogEvent, LogRequest, PartitionHead, Purpose, TopicRead},
    partition::{
        Delivery, Interruption,
        replica::{
            CatchingUp, LinkState, Replica, arrivals::Arrivals, push_buffer::PushBuffer,
            tail_losses::Tail,
        },
    },
    partition_log::MissedReason,
    policy::Conflate,
    topic::Topic,
};

impl<P> Replica<P> {
    pub(super) fn on_link_up(&mut self, generation: u64, acknowledged: &Acknowledgements) {
        self.on_link_down();
        self.generation = generation;
        for one in acknowledged.iter() {
            if self.server.is_none() {
                // First contact. Keep the confirmed event's epoch, server and sequence. Otherwise
                // a log without this event would pass for complete.
                self.replace_log(one.epoch, 0);
                self.server = Some(one.server.clone());
                self.highest = one.sequence;
            } else if one.epoch == self.log.epoch() && self.server.as_ref() == Some(&one.server) {
                self.highest = self.highest.max(one.sequence);
            }
        }
        self.acknowledged.begin(acknowledged);
        for manager in self.managers.clone() {
            self.queue(manager, Delivery::Relinked);
        }
        // Subscribe before the catch-up's request. In the other order, an event between the two
        // would be neither in the answer nor pushed.
        let channels = self.coverage.channels();
        if !channels.is_empty() {
            self.requests.push(LogRequest::Subscribe(channels));
        }
        self.catch_up();
    }

    pub(super) fn on_link_down(&mut self) {
        self.link = LinkState::Down;
        self.arrivals = Arrivals::default();
        // Requests in flight stay unanswered. Their records would block new requests.
        self.requests.clear();
        self.ask_anew();
        self.head_serial = 0;
        for waiting in &mut self.waiting {
            waiting.has_head = false;
        }
    }

    /// Requests all changes since the last cut. Holds pushes until the answer.
    pub(super) fn catch_up(&mut self) {
        // From here on, only this catch-up's answer confirms the unconfirmed channels. After a
        // reconnect their own requests stay unanswered, so nothing else would confirm them.
        self.coverage.ask_anew();
        self.serial += 1;
        let (held, renewing) = match take(&mut self.link) {
            LinkState::Down => (PushBuffer::default(), None),
            LinkState::CatchingUp(before) => (before.held, before.renewing),
            LinkState::Up { unconfirmed } => (unconfirmed, None),
        };
        let serial = self.serial;
        // The answer to the new request includes the events of all pushes dropped before.
        let catching_up = CatchingUp { serial, held, has_dropped: false, renewing };
        self.link = LinkState::CatchingUp(catching_up);
        let purpose = Purpose::CatchUp { serial };
        self.requests.push(match self.is_known {
            true => LogRequest::Changes { purpose, after: self.cut },
            false => LogRequest::Head { purpose },
        });
    }

    pub(super) fn on_head(&mut self, purpose: Option<Purpose>, head: &PartitionHead, now: Instant) {
        if !self.is_known {
            // Only the answer to the own request is surely a cut after the subscriptions.
            let Some(Purpose::CatchUp { serial }) = purpose else { return };
            if self.is_catching_up_by(serial) {
                let is_present = self.log.epoch() == head.epoch
                    || head.earlier_epochs.contains(&self.log.epoch());
                if is_present && !self.has_settled_losses(head) {
                    // The log lacks a publish confirmed to this instance.
                    return self.catch_up();
                }
                self.begin(head, now);
            }
            return;
        }
        if purpose == Some(Purpose::Attach { serial: self.head_serial }) {
            self.head_serial = 0;
        }
        // While catching up, `advance` would move the log past the held pushes.
        if !self.accepts(head) || !self.is_up() {
            return;
        }
        self.log.advance(head.sequence);
        if let Some(Purpose::Attach { serial }) = purpose {
            for waiting in self.waiting.iter_mut().filter(|waiting| waiting.came_after < serial) {
                waiting.has_head = true;
            }
        }
        self.answer_waiting();
    }

    /// The first contact. No stream is attached yet, so no stream misses an event.
    fn begin(&mut self, head: &PartitionHead, now: Instant) {
        self.is_known = true;
        self.earlier_epochs.clone_from(&head.earlier_epochs);
        self.replace_log(head.epoch, head.sequence);
        // It may be of an ended epoch.
        self.highest = head.sequence;
        self.losses.begin(head);
        self.server = head.lineage.first().map(|era| era.server.clone());
        self.coverage.confirm_all(head.sequence);
        let held = self.take_held();
        self.go_live(head.sequence, PushBuffer::default());
        held.into_iter().for_each(|event| self.on_event(event, now));
    }

    fn take_held(&mut self) -> Vec<LogEvent> {
        match &mut self.link {
            LinkState::CatchingUp(catching_up) => catching_up.held.take(),
            LinkState::Down | LinkState::Up { .. } => Vec::new(),
        }
    }

    fn go_live(&mut self, sequence: u64, unconfirmed: PushBuffer) {
        let link = replace(&mut self.link, LinkState::Up { unconfirmed });
        if matches!(link, LinkState::CatchingUp(CatchingUp { has_dropped: true, .. })) {
            // The dropped pushes may be newer than the answer: read again.
            return self.catch_up();
        }
        self.log.advance(sequence);
        self.highest = self.highest.max(sequence);
        self.cut = sequence;
        self.answer_waiting();
    }

    /// Whether the answer continues this replica's state. If not, this call requests a new epoch,
    /// or starts the replica over in the log's present one.
    pub(super) fn accepts(&mut self, head: &PartitionHead) -> bool {
        if head.epoch < self.log.epoch() {
            // Redis came back in an older state. It would give out sequences a second time. A new
            // epoch separates the second ones from the first.
            self.renew(head);
            return false;
        }
        if head.epoch != self.log.epoch() {
            if !head.earlier_epochs.contains(&self.log.epoch()) {
                self.restart(head);
                return false;
            }
            self.rename(head);
        }
        if !self.has_settled_losses(head) {
            return false;
        }
        let position = self.log.sequence();
        if self.losses.note(head, self.server.as_deref(), position) {
            self.interrupt(Some(MissedReason::Epoch), Vec::new(), None);
        }
        self.server = head.lineage.first().map(|era| era.server.clone());
        true
    }

    /// The same sequences have a new epoch: streams go on without a gap, with ids of this epoch.
    fn rename(&mut self, head: &PartitionHead) {
        self.log.rename(head.epoch);
        self.earlier_epochs.clone_from(&head.earlier_epochs);
        let beginning = Some((head.epoch, self.log.sequence()));
        self.interrupt(None, Vec::new(), beginning);
        let log = &self.log;
        let pushes = match &mut self.link {
            LinkState::Down => return,
            LinkState::CatchingUp(catching_up) => &mut catching_up.held,
            LinkState::Up { unconfirmed } => unconfirmed,
        };
        let earlier = &head.earlier_epochs;
        pushes.rename(|epoch| if earlier.contains(&epoch) { log.epoch() } else { epoch });
    }

    /// The log's epoch in place of an earlier one of the same sequences.
    pub(super) fn present_epoch(&self, epoch: Epoch) -> Epoch {
        if self.earlier_epochs.contains(&epoch) { self.log.epoch() } else { epoch }
    }

    /// Requests a new epoch, later than any epoch known to this replica. Holds pushes until a head
    /// of the new epoch arrives.
    fn renew(&mut self, head: &PartitionHead) {
        let mut catching_up = match take(&mut self.link) {
            LinkState::Down => CatchingUp::default(),
            LinkState::CatchingUp(catching_up) => catching_up,
            LinkState::Up { unconfirmed } => {
                CatchingUp { held: unconfirmed, ..CatchingUp::default() }
            }
        };
        // Several answers may show the same loss: one request is enough. But the epoch may have got
        // another name before the request reached the log, which then has renewed nothing.
        if catching_up.renewing.replace(head.epoch) != Some(head.epoch) {
            let known = self.highest.max(self.log.sequence());
            let above = self.log.epoch();
            self.requests.push(LogRequest::Renew { epoch: head.epoch, above, known });
        }
        self.link = LinkState::CatchingUp(catching_up);
    }

    /// Whether the lineage has all losses of events known to this instance. If not, this call records
    /// them and catches up again; or it requests a new epoch, if the lineage cannot tell which events
    /// survive.
    fn has_settled_losses(&mut self, head: &PartitionHead) -> bool {
        // A lower head proves nothing: pushes newer than an answer may come before it. The log
        // itself notices that it went back.
        let highest = self.highest.max(self.log.sequence());
        let own = self.server.iter().map(|server| (server.clone(), highest));
        let acknowledged = self.acknowledged.open_in(head);
        let acknowledged = acknowledged.map(|one| (one.server.clone(), one.sequence));
        let tails = own.chain(acknowledged);
        let tails =
            tails.map(|(server, highest)| (Tail::of(head, &server, highest), server, highest));
        let tails: Vec<_> = tails.collect();
        if tails.iter().any(|(tail, ..)| *tail == Tail::Unknown) {
            // Streams must not take the log for complete, so a new epoch gives them a gap.
            self.renew(head);
            return false;
        }
        let unrecorded =
            |(tail, ..): &&(Tail, String, u64)| *tail == Tail::Lost { is_recorded: false };
        let unrecorded: Vec<_> = tails.iter().filter(unrecorded).collect();
        if unrecorded.is_empty() {
            self.acknowledged.settle();
            return true;
        }
        for (_, server, through) in unrecorded {
            let (server, through) = (server.clone(), *through);
            self.requests.push(LogRequest::NoteLoss { server, through });
        }
        if self.is_known {
            self.catch_up();
        }
        false
    }

    /// Starts over in the log's new epoch. Streams get a gap, and then the events of the log.
    pub(super) fn restart(&mut self, head: &PartitionHead) {
        let position = self.log.sequence();
        // Sequences continue in the new epoch, or restart at 1.
        let after = if head.epoch_began_after >= Some(position) { position } else { 0 };
        self.replace_log(head.epoch, after);
        // Sequences may restart.
        self.arrivals = Arrivals::default();
        self.earlier_epochs.clone_from(&head.earlier_epochs);
        self.server = head.lineage.first().map(|era| era.server.clone());
        self.highest = after;
        self.losses.begin(head);
        self.cut = after;
        self.told_through = head.sequence;
        self.coverage.restart(after);
        // The answers name sequences of the old epoch.
        self.ask_anew();
        if let LinkState::CatchingUp(catching_up) = &mut self.link {
            catching_up.renewing = None;
            let held = catching_up.held.take().into_iter();
            let is_of_head = |event: &LogEvent| {
                event.epoch == head.epoch || head.earlier_epochs.contains(&event.epoch)
            };
            catching_up.held.extend(held.filter(is_of_head));
            catching_up.held.rename(|_| head.epoch);
        }
        // Queue the gap before the new epoch's events: managers take deliveries in order.
        self.tell(&Arc::new(Interruption {
            partition: self.spec.partition.partition,
            reason: Some(MissedReason::Epoch),
            topics: Vec::new(),
            beginning: Some((head.epoch, after)),
            repeats: after == 0 && head.epoch_began_after != Some(0),
        }));
        self.catch_up();
    }

    /// Catches up, or once more after the present catch-up: its answer may lack the events.
    pub(super) fn on_pushes_missing(&mut self) {
        match &mut self.link {
            LinkState::Down => {}
            LinkState::CatchingUp(catching_up) => catching_up.has_dropped = true,
            LinkState::Up { .. } => self.catch_up(),
        }
    }

    pub(super) fn hold(&mut self, event: LogEvent) {
        let LinkState::CatchingUp(catching_up) = &mut self.link else { return };
        if catching_up.held.is_over_full() {
            // Bound the memory. `go_live` sees the flag, and reads the dropped events from the log.
            catching_up.held.take();
            catching_up.has_dropped = true;
        }
        catching_up.held.push(event);
    }

    /// Stores missed events older than already routed events of other topics. Streams cannot get
    /// them in order, so the streams of these topics get a gap.
    pub(super) fn apply_late(&mut self, events: Vec<LogEvent>, now: Instant) {
        let topics: BTreeSet<Topic> = events.iter().map(|event| event.topic.clone()).collect();
        for event in events {
            let topic = event.topic.clone();
            self.merge(&topic, vec![event], 0, false);
        }
        self.log.settle_merges();
        self.log.expire(now);
        self.interrupt(Some(MissedReason::History), topics.into_iter().collect(), None);
    }

    pub(super) fn on_changes(&mut self, head: &PartitionHead, changed: &Changed, now: Instant) {
        self.coverage.confirm_all(head.sequence);
        // Read only topics with streams here and with unknown events. A topic changed after this
        // list is not lost: its pushes are held.
        let reads: Vec<(Topic, u64)> = changed
            .topics
            .iter()
            .filter(|(topic, _)| self.coverage.topic_since(topic).is_some())
            .map(|(topic, last)| (topic, *last, self.known_through(topic)))
            .filter(|(_, last, known)| last > known)
            .map(|(topic, _, known)| (topic.clone(), known))
            .collect();
        if changed.forgotten_through > self.cut.max(self.told_through) {
            // The list may lack topics changed since the cut, so all streams get a gap.
            self.interrupt(Some(MissedReason::History), Vec::new(), None);
        }
        self.refill_count += 1;
        if reads.is_empty() {
            return self.finish_catching_up(head, Vec::new(), now);
        }
        let LinkState::CatchingUp(CatchingUp { serial, .. }) = self.link else { return };
        let purpose = Purpose::CatchUp { serial };
        self.requests.push(LogRequest::Read { purpose, topics: reads, max_bytes: None });
    }

    pub(super) fn finish_catching_up(
        &mut self,
        head: &PartitionHead,
        reads: Vec<TopicRead>,
        now: Instant,
    ) {
        // Step 1: the read events, and the topics with events lost in the log.
        let mut missing: BTreeMap<u64, LogEvent> = BTreeMap::new();
        let mut lost = Vec::new();
        for read in reads {
            let known = self.known_through(&read.topic);
            let Unexpired { events, lost_through, is_trimmed } =
                self.split_expired(&read, true, now);
            if lost_through > known {
                // Record the loss in the history: streams resuming later miss these events too.
                self.merge(&read.topic, Vec::new(), lost_through, is_trimmed);
                self.forget_values(&read.topic, lost_through);
                if lost_through > self.told_through {
                    lost.push(read.topic.clone());
                }
            }
            // Events after the head are also held pushes. They follow after the cut.
            let wanted = known + 1..=head.sequence;
            let newer = events.into_iter().filter(|event| wanted.contains(&event.sequence));
            missing.extend(newer.map(|event| (event.sequence, event)));
        }
        if !lost.is_empty() {
            self.interrupt(Some(MissedReason::History), lost, None);
        }
        // Step 2: events up to the log's position are late. Routed as live events, they would break
        // the order of sequences.
        let position = self.log.sequence();
        let newer = missing.split_off(&(position + 1));
        if !missing.is_empty() {
            self.apply_late(missing.into_values().collect(), now);
        }
        // Step 3: the cut divides the held pushes. Pushes before it join the read events in one
        // order; a push after it may show a hole, and is a new event like any other.
        let held = self.take_held();
        let mut unconfirmed = PushBuffer::default();
        let mut all = newer;
        let (before, after): (Vec<_>, Vec<_>) = held
            .into_iter()
            .partition(|event| event.epoch == head.epoch && event.sequence <= head.sequence);
        // The log may have trimmed an event already, so the read lacks it. Its push still counts.
        for event in before {
            if event.epoch != self.log.epoch() || event.sequence <= position {
                continue;
            }
            if self.coverage.topic_since(&event.topic).is_none() {
                if self.coverage.covers(&event.topic) {
                    unconfirmed.push(event);
                }
            } else if event.sequence > self.known_through(&event.topic) {
                all.entry(event.sequence).or_insert(event);
            }
        }
        // Step 4: route the events in sequence order, go live, then take the newer pushes. If
        // `go_live` or one of them starts another catch-up, `on_event` holds the rest.
        all.into_values().for_each(|event| self.apply(event, now));
        self.go_live(head.sequence, unconfirmed);
        for event in after {
            self.on_event(event, now);
        }
    }

    /// Forgets a topic's values of keys after events were lost: a lost event may have removed one of
    /// the keys. Later snapshots read the values from the log.
    fn forget_values(&mut self, topic: &Topic, lost_through: u64) {
        let policy = self.spec.partition.policies.of(topic.as_str());
        if policy.conflate == Conflate::LatestByKey {
            self.log.begin_topic_anew(topic, lost_through);
        }
    }

    /// The unexpired events of a read. `is_whole`: the read reaches to the topic's last event.
    pub(super) fn split_expired(
        &self,
        read: &TopicRead,
        is_whole: bool,
        now: Instant,
    ) -> Unexpired {
        let policy = self.spec.partition.policies.of(read.topic.as_str());
        let is_expired = |event: &LogEvent| {
            event.published_at.checked_add(policy.history_ttl).is_some_and(|at| at <= now)
        };
        let is_keyed = policy.conflate == Conflate::LatestByKey;
        // Current values do not expire, so expired events may come after them.
        let is_lost = |event: &&LogEvent| is_expired(event) && !(is_keyed && event.body.is_value());
        let (expired, kept): (Vec<&LogEvent>, Vec<&LogEvent>) =
            read.events.iter().partition(is_lost);
        let expired_through = expired.last().map_or(0, |event| event.sequence);
        let lost_through = match (kept.first(), policy.conflate) {
            // The read ends at its bound: only the expired events are lost so far.
            (None, _) if !is_whole && !expired.is_empty() => expired_through,
            // Nothing is left, so everything through the topic's last event is lost.
            (None, _) => read.last,
            // The first event left names the last one lost.
            (Some(first), Conflate::None) => first.previous,
            // The newest event supersedes all others.
            (Some(_), Conflate::Latest) => 0,
            // Conflation by key leaves holes too, so `previous` does not show the losses.
            (Some(_), Conflate::LatestByKey) => read.evicted_through.max(expired_through),
        };
        let lost_through = if lost_through > read.after { lost_through } else { 0 };
        // Redis removes single events to make room for new ones of the topic. At its limit of bytes, it
        // also removes events at other times, and notes them in `evicted_through`.
        let is_trimmed =
            lost_through > read.evicted_through && expired.is_empty() && !kept.is_empty();
        Unexpired { events: kept.into_iter().cloned().collect(), lost_through, is_trimmed }
    }
}

/// The unexpired events of a topic's read.
pub(super) struct Unexpired {
    pub events: Vec<LogEvent>,
    /// The highest sequence lost in the log; 0 if nothing after the read's start is lost. Superseded
    /// events are not lost.
    pub lost_through: u64,
    /// Whether the loss made room for a new event of the topic.
    pub is_trimmed: bool,
}
