//! The opening of a stream: `connected`, its replays page by page, and topics added later.

use std::{sync::Arc, time::Instant};

use smallvec::SmallVec;

use super::{
    ConnectionState, Drained, ReplayResult, WorkerContext,
    order::{in_order, merged},
};
use crate::{
    cursor::{IN_ANOTHER_EPOCH, ReplayMark},
    interest::Start,
    outbox::GapHere,
    partition_log::{MissedReason, Replay},
    sse::{
        GapReason,
        control::{Connected, Gap, names},
        encode,
    },
    subscription::ResolvedSubscription,
    topic_manager::{ChangeStep, Opening, Page},
};

impl ConnectionState {
    /// Starts the stream: `connected`, a gap if needed, the replay, then live events.
    pub fn on_opened(
        &mut self,
        opening: Opening,
        client_id: &str,
        worker: &WorkerContext,
        now: Instant,
    ) -> ReplayResult {
        if self.end.is_some() {
            return ReplayResult::None;
        }
        let Opening { stream, replays, at: opening_at } = opening;
        self.backlog.stream = stream;
        // Live events up to `head` are in the replay. The cursor gets `heads` only after the replay
        // is taken: earlier, a cut would lose the rest of the replay.
        self.seen = replays.iter().map(|(number, r)| (*number, r.head)).collect();
        self.backlog.heads = self.seen.clone();
        let more = replays.iter().filter(|(_, replay)| replay.next.is_some());
        self.backlog.more = more.map(|(number, _)| *number).collect();
        self.backlog.paging = self.backlog.more.len();
        self.backlog.owes_live = self.subscription.wants_live;
        let result =
            match (&self.subscription.start, replays.iter().any(|(_, r)| r.missed.is_some())) {
                (_, true) => ReplayResult::Gap,
                (Start::Resume(_) | Start::Since(_), false) => ReplayResult::Complete,
                (_, false) => ReplayResult::None,
            };
        // The partitions' epochs differ only while a new epoch begins. Partitions behind keep their
        // mark in the cursor, so their sequences are never compared with the newest epoch.
        self.epoch = replays.iter().map(|(_, replay)| replay.epoch).max();
        let is_behind = |replay: &Replay| Some(replay.epoch) != self.epoch;
        let behind = replays.iter().filter(|(_, replay)| is_behind(replay));
        self.backlog.behind = behind.map(|(number, _)| *number).collect();
        self.outbox.advance(replays.iter().map(|(number, _)| (*number, IN_ANOTHER_EPOCH)));
        self.advance(replays.iter().map(|(number, replay)| (*number, replay.start)));
        self.keep_positions();
        // The client does not know a gap's losses before the gap.
        let marks = replays.iter().filter(|(_, replay)| replay.missed.is_none());
        marks.for_each(|(number, replay)| self.mark_replay(*number, replay));
        if replays.iter().any(|(_, r)| r.next.is_some() || !r.events.is_empty()) {
            self.backlog.catching_up_since = match &self.subscription.start {
                Start::Resume(cursor) => cursor.unix_ms,
                Start::Since(unix_ms) => Some(*unix_ms),
                Start::Live | Start::Snapshot | Start::Earliest | Start::Resumed(_) => None,
            };
        }
        self.id_ms = worker.clock_ms(opening_at);
        let id = self.cursor();
        let topics: Vec<&str> = self.subscription.names().collect();
        let connected = Connected {
            client_id,
            timestamp: worker.clock_ms(now),
            topics: &topics,
            resumed: result == ReplayResult::Complete,
        };
        // If the connection is cut between `connected` and the gap, the client must return with its
        // old cursor. With the new cursor it would never get the gap.
        let mut text = match &self.subscription.start {
            Start::Resume(cursor) if replays.iter().any(|(_, replay)| tells_epoch(replay)) => {
                connected.encode(&cursor.to_string())
            }
            _ => connected.encode(&id),
        };
        let missed = replays.iter().filter_map(|(number, r)| Some((*number, r.missed.as_ref()?)));
        let (mut partitions, missed): (Vec<u16>, Vec<_>) = missed.unzip();
        if !missed.is_empty() {
            let is_epoch = missed.iter().any(|missed| missed.reason == MissedReason::Epoch);
            if is_epoch && !self.backlog.behind.is_empty() {
                // One gap for the epoch, also for the partitions yet to begin it.
                self.backlog.has_told_epoch = true;
                partitions = self.seen.iter().map(|(number, _)| number).collect();
            }
            let reason = if is_epoch { MissedReason::Epoch } else { MissedReason::History };
            let reason = GapReason::from(reason);
            let topics = names(missed.iter().flat_map(|missed| &missed.topics));
            replays.iter().for_each(|(number, replay)| self.mark_replay(*number, replay));
            let id = self.cursor();
            text += &Gap { reason, partitions: &partitions, topics: &topics }.encode(&id);
        }
        self.backlog.prelude.push_back(text.into());
        let events = replays.into_iter().flat_map(|(_, replay)| replay.events);
        let events = events.filter(|event| self.subscription.wants_event(event)).collect();
        self.backlog.replay = merged(in_order(events)).into();
        result
    }

    /// Adds the next page of a partition's replay. The client has taken all earlier pages of this
    /// partition.
    pub fn on_page(&mut self, page: Page) {
        if self.end.is_some() {
            return;
        }
        let Page { stream, partition, replay: page } = page;
        self.backlog.stream = stream;
        self.seen.set(partition, page.head);
        self.backlog.heads.set(partition, page.head);
        match page.next {
            Some(_) => self.backlog.more.push(partition),
            None => self.backlog.paging = self.backlog.paging.saturating_sub(1),
        }
        // Between two pages, the stream gets no interruption of the partition: its next page tells a
        // new epoch. Without a gap, the epoch is another name of the same sequences.
        self.begin_epoch(partition, page.epoch);
        self.advance([(partition, page.start)].into_iter());
        if let Some(missed) = &page.missed {
            self.mark_replay(partition, &page);
            let (reason, topics) = (GapReason::from(missed.reason), names(&missed.topics));
            let gap = Gap { reason, partitions: &[partition], topics: &topics };
            // Before all other output: its id would be behind events taken before it.
            let gap = gap.encode(&self.cursor());
            self.backlog.prelude.push_back(gap.into());
        }
        let left = std::mem::take(&mut self.backlog.replay);
        let events = page.events.into_iter().filter(|event| self.subscription.wants_event(event));
        let events = left.into_iter().chain(events).collect();
        self.backlog.replay = merged(in_order(events)).into();
    }

    /// Takes the partitions with a taken page, to ask for their next pages.
    #[inline]
    pub fn take_drained(&mut self) -> Option<Drained> {
        if self.backlog.is_none() || self.backlog.drained.is_empty() {
            return None;
        }
        let partitions = std::mem::take(&mut self.backlog.drained);
        Some(Drained { stream: self.backlog.stream, partitions })
    }

    /// Marks a partition within a replay. Not one behind: in the stream's epoch, the mark would hide
    /// new events up to the old head.
    pub(super) fn mark_replay(&mut self, partition: u16, replay: &Replay) {
        if let Some((kind, head)) = replay.mark.filter(|_| Some(replay.epoch) == self.epoch) {
            self.backlog.marks.set(ReplayMark { partition, kind, head });
        }
    }

    /// Keeps the positions of the client's cursor in partitions not attached: topics added later
    /// continue after them. Positions of another epoch are not comparable; they become a gap. The
    /// marks of the client's cursor stay for now, also of attached partitions.
    pub(super) fn keep_positions(&mut self) {
        let Start::Resume(cursor) = &self.subscription.start else { return };
        let is_present = Some(cursor.epoch) == self.epoch;
        if is_present && !cursor.marks.is_empty() {
            let behind = &self.backlog.behind;
            let mut marks = cursor.marks.clone();
            marks.retain(|mark| !behind.contains(&mark.partition));
            self.backlog.marks = marks;
        }
        let others = cursor.positions.iter().filter(|(number, _)| self.seen.get(*number).is_none());
        let kept = others.map(|(number, sequence)| {
            (number, if is_present { sequence } else { IN_ANOTHER_EPOCH })
        });
        self.outbox.advance(kept.collect::<Vec<_>>().into_iter());
    }

    /// Takes a step of a live change.
    pub fn on_change(
        &mut self,
        subscription: Arc<ResolvedSubscription>,
        step: ChangeStep,
        worker: &WorkerContext,
    ) {
        self.subscription = subscription;
        match step {
            ChangeStep::Began => {}
            ChangeStep::Joined(page) => self.join(page),
            ChangeStep::Finished { at } => {
                self.id_ms = worker.clock_ms(at);
                let id = self.cursor();
                if !id.is_empty() && self.end.is_none() {
                    self.backlog.prelude.push_back(encode::id_block(&id).into());
                }
            }
        }
    }

    /// Adds a partition with the first page of its replay.
    pub(super) fn join(&mut self, page: Page) {
        let Page { partition, ref replay, .. } = page;
        // A known partition keeps its position: the head may be past events still to come.
        if self.seen.get(partition).is_some() {
            return self.queue_missed(partition, replay);
        }
        if self.end.is_some() {
            return;
        }
        if Some(replay.epoch) < self.epoch {
            self.backlog.behind.push(partition);
            self.backlog.marks.retain(|mark| mark.partition != partition);
            self.outbox.advance([(partition, IN_ANOTHER_EPOCH)].into_iter());
        } else {
            self.begin_epoch(partition, replay.epoch);
            self.advance([(partition, replay.start)].into_iter());
        }
        self.backlog.paging += 1;
        self.on_page(page);
    }

    /// Queues the gap of an addition, if any.
    pub(super) fn queue_missed(&mut self, partition: u16, replay: &Replay) {
        if let Some(missed) = &replay.missed {
            let (reason, topics) = (Some(missed.reason), missed.topics.clone());
            let gap = GapHere { reason, partition, topics, epoch: None, repeats: false };
            self.push_gap_segment(gap, SmallVec::new());
        }
    }
}

/// Whether the replay begins with a gap for another epoch.
fn tells_epoch(replay: &Replay) -> bool {
    replay.missed.as_ref().is_some_and(|missed| missed.reason == MissedReason::Epoch)
}
