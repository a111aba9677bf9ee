//! The decisions of a topic manager: the receivers of each event on its worker, and the moment of
//! delivery. `flush` makes the frames. Encoding for one stream is the connection's part.

mod changes;
mod feeds;
mod flush;
mod frame;
mod grants;
mod pace;
mod questions;
mod replaying;
mod streams;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    mem::take,
    sync::Arc,
    time::{Duration, Instant},
};

use changes::Changes;
pub use changes::{ChangeOutcome, Ticket};
use feeds::FeedsByUser;
pub use frame::{ChangeStep, Frame, Frames, Opening, Page};
pub use grants::{Renewal, Which};
use pace::ChangeDebt;
pub use questions::{Answered, Question};
use slab::Slab;
use smallvec::SmallVec;
pub use streams::{Outlet, Slot, SlotRef};
use streams::{SlotReplay, Streams, Subscribers};

use crate::{
    batch::{Added, Batch},
    event::SequencedEvent,
    ids::StreamId,
    partition::{Delivery, InterestChange, Interruption},
    partition_log::Replay,
    pattern_set::{PatternSet, PatternSetId},
    policy::{Flush, Policy},
    replays::ReplayLimit,
    sse::ShutdownReason,
    subscription::{ResolvedSubscription, StreamLimits},
    timer_wheel::TimerWheel,
    topic::Topic,
    user::User,
};

/// Bounds and times of a manager.
#[derive(Debug, Clone)]
pub struct ManagerSpec {
    pub start: Instant,
    /// The start of all ticks, on all workers and in partitions.
    pub ticks_from: Instant,
    /// The worker's phase, in steps of a tick; see [`Policy::next_tick`].
    pub tick_phase: u32,
    pub partition_count: u16,
    pub heartbeat: Duration,
    pub max_lifetime: Duration,
    pub max_lifetime_jitter: Duration,
    pub max_batch_events: usize,
    pub max_batch_bytes: usize,
    /// Time before the end of a grant for telling its client.
    pub renew_before: Duration,
    /// How long a stream outlives its grant while the application gives no answer.
    pub ask_grace: Duration,
    /// Time limit of an answer by the application.
    pub ask_timeout: Duration,
    /// Limits of a changed stream.
    pub limits: StreamLimits,
    /// Names added to or removed from one stream a second, in the long run; 0 is no limit.
    pub max_changes_per_second: u32,
    /// Bounds the replays longer than a page, on all workers.
    pub replays: Arc<ReplayLimit>,
}

impl ManagerSpec {
    /// Milliseconds from the start: half of an `Instant`, for the slots of streams.
    fn age_ms(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_millis() as u64
    }
}

/// Bytes of replayed events held by a stream at once, over all its partitions.
const REPLAY_BYTES: usize = 256 * 1024;

/// The least bytes of a page of one partition.
const MIN_PAGE_BYTES: usize = 16 * 1024;

/// How late a stream may end after its grant.
const GRANT_RESOLUTION: Duration = Duration::from_millis(10);

/// The deadlines on the wheel.
#[derive(Debug, Clone, Copy)]
enum Deadline {
    Heartbeat(SlotRef),
    Lifetime(SlotRef),
}

/// A topic with subscribers here, or with pending events.
struct TopicEntry {
    topic: Topic,
    /// Streams naming the topic.
    subscribers: Subscribers,
    pending: Batch,
    /// The moment the pending events leave. Without pending events: the moment a leading topic can
    /// be forgotten.
    due: Option<Instant>,
    /// A leading topic's event leaves at once from this moment on: a tick after its last event.
    quiet_from: Option<Instant>,
}

/// Counts since the last call, for the metrics.
#[derive(Debug, Default)]
pub struct Activity {
    pub conflated: u64,
    /// The number of events of each frame.
    pub batch_events: Vec<usize>,
}

/// A topic manager. It reaches connections by their `O`.
pub struct ManagerState<O> {
    spec: ManagerSpec,
    streams: Streams<O>,
    topics: Slab<TopicEntry>,
    topic_ids: HashMap<Topic, usize>,
    /// Streams by pattern set. The index of the patterns is shared with all workers.
    patterns: HashMap<PatternSetId, (Arc<PatternSet>, Subscribers)>,
    /// Topics by the moment their pending events leave. Stale entries are skipped.
    due: BTreeMap<Instant, Vec<usize>>,
    /// Per partition, the topics with pending events.
    pending: Vec<HashSet<usize>>,
    /// Per partition, changes of interest to send.
    changes: Vec<Vec<InterestChange>>,
    /// Streams with queued frames, to hand over at `retry_at`.
    undelivered: Vec<SlotRef>,
    retry_at: Option<Instant>,
    wheel: TimerWheel<Deadline>,
    /// The next moment of each grant with an end.
    grants: TimerWheel<(SlotRef, Instant)>,
    /// Questions to the application to send.
    questions: Vec<Question>,
    activity: Activity,
    feeds: FeedsByUser,
    /// Open streams by the id of an attachment added by a change.
    joining: HashMap<StreamId, SlotRef>,
    /// The number of the last attachment added by a change.
    last_attachment: u64,
    finished: Vec<(Ticket, ChangeOutcome)>,
    /// Users with feeds to reread.
    to_reread: VecDeque<User>,
}

impl<O: Outlet> ManagerState<O> {
    pub fn new(spec: ManagerSpec) -> Self {
        let partitions = usize::from(spec.partition_count);
        // With this resolution, a heartbeat is late by at most a fiftieth of its interval.
        let resolution = (spec.heartbeat / 50).min(Duration::from_secs(1));
        Self {
            streams: Streams::default(),
            topics: Slab::new(),
            topic_ids: HashMap::new(),
            patterns: HashMap::new(),
            due: BTreeMap::new(),
            pending: vec![HashSet::new(); partitions],
            changes: (0..partitions).map(|_| Vec::new()).collect(),
            undelivered: Vec::new(),
            retry_at: None,
            wheel: TimerWheel::new(spec.start, resolution),
            grants: TimerWheel::new(spec.start, GRANT_RESOLUTION),
            questions: Vec::new(),
            activity: Activity::default(),
            feeds: FeedsByUser::new(),
            joining: HashMap::new(),
            last_attachment: 0,
            finished: Vec::new(),
            to_reread: VecDeque::new(),
            spec,
        }
    }

    /// Adds a stream and asks its partitions to attach it. The stream gets its replay and its first
    /// frames after all of them have answered. `jitter`, 0 to 1, spreads lifetimes.
    pub fn open(
        &mut self,
        stream: StreamId,
        outlet: O,
        subscription: &Arc<ResolvedSubscription>,
        jitter: f64,
        now: Instant,
    ) {
        let interests = subscription.interests(self.spec.partition_count);
        let slot = self.streams.insert(Slot {
            stream,
            outlet,
            topics: SmallVec::new(),
            may_interleave: !subscription.patterns.is_empty()
                || interests.iter().any(|(_, interest)| interest.topics.len() > 1),
            subscription: subscription.clone(),
            awaited: interests.len() as u32,
            is_open: false,
            is_rereading: false,
            replay: Some(Box::new(SlotReplay::of(stream, &interests))),
            queued: Frames::new(),
            is_held: true,
            written_ms: self.spec.age_ms(now),
            attachments: interests.iter().map(|(partition, _)| *partition).collect(),
            changes: None,
            change_debt: ChangeDebt::default(),
            grant: None,
        });
        self.begin_grant(slot);
        // Subscribe before the partitions answer: live events follow an answer at once, and gather
        // in `queued` until the last answer.
        self.join_sets(slot, subscription.patterns.sets());
        let mut topics = SmallVec::new();
        topics.reserve_exact(subscription.topics.len());
        for topic in &subscription.topics {
            let id = self.topic_id(topic);
            self.topics[id].subscribers.add(slot);
            topics.push(id as u32);
        }
        if let Some(slot) = self.streams.get_mut(slot) {
            slot.topics = topics;
        }
        let max_bytes = page_bytes(interests.len());
        for (partition, interest) in interests {
            let from = subscription.start_in(partition);
            let attach = InterestChange::Attach { stream, interest, from, max_bytes };
            self.changes[usize::from(partition)].push(attach);
        }
        if let Some(feed) = subscription.feed_of() {
            self.open_feed(feed, slot, now);
        }
        self.wheel.schedule(now + self.spec.heartbeat, Deadline::Heartbeat(slot));
        if !self.spec.max_lifetime.is_zero() {
            let jitter = self.spec.max_lifetime_jitter.mul_f64(jitter);
            self.wheel.schedule(now + self.spec.max_lifetime + jitter, Deadline::Lifetime(slot));
        }
    }

    /// Removes a stream, and detaches it from its partitions. An unknown stream is ignored.
    pub fn close(&mut self, stream: StreamId) {
        let Some((reference, mut slot)) = self.streams.remove(stream) else { return };
        self.end_changes(&mut slot);
        for id in slot.topics.into_iter().map(|id| id as usize) {
            self.topics[id].subscribers.end_one(&self.streams);
            self.drop_topic_if_unused(id);
        }
        for set in slot.subscription.patterns.sets() {
            if let Some((_, subscribers)) = self.patterns.get_mut(&set.id()) {
                subscribers.end_one(&self.streams);
                self.drop_set_if_unused(set);
            }
        }
        slot.attachments.split(stream, &slot.subscription, self.spec.partition_count);
        for attachment in take(slot.attachments.parts_mut()) {
            self.detach(attachment);
        }
        if let Some(feed) = slot.subscription.feed_of() {
            self.close_feed(feed, reference);
        }
    }

    /// Takes the changes of interest for a partition, in order.
    pub fn take_changes(&mut self, partition: u16) -> Vec<InterestChange> {
        take(&mut self.changes[usize::from(partition)])
    }

    /// Whether changes of interest wait for a partition.
    pub fn has_changes(&self, partition: u16) -> bool {
        !self.changes[usize::from(partition)].is_empty()
    }

    /// Handles a delivery. Each partition's deliveries must arrive in order.
    pub fn on_delivery<P>(&mut self, partition: u16, delivery: Delivery<P>, now: Instant) {
        match delivery {
            Delivery::Event { event, permit } => {
                drop(permit);
                self.on_event(event, now);
            }
            Delivery::Attached { stream, replay } => {
                self.on_attached(partition, stream, replay, now);
            }
            Delivery::Interrupted(interruption) => self.on_interrupted(&interruption, now),
            Delivery::Relinked => self.reread_feeds(),
            Delivery::Restarted => self.on_partition_restarted(partition, now),
        }
    }

    /// Does all due work: sends batches and heartbeats, ends lifetimes.
    pub fn on_time(&mut self, now: Instant) {
        // Before the batches: an ended grant gets nothing more.
        self.on_grants_due(now);
        self.flush(now);
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            let undelivered = take(&mut self.undelivered);
            self.hand_over(undelivered, now);
        }
        for deadline in self.wheel.expire(now) {
            match deadline {
                Deadline::Heartbeat(slot) => self.on_heartbeat_due(slot, now),
                Deadline::Lifetime(slot) => {
                    if let Some(slot) = self.streams.get(slot) {
                        slot.outlet.end(ShutdownReason::Lifetime, None, Frames::new());
                    }
                }
            }
        }
    }

    /// The next moment with work for [`Self::on_time`].
    pub fn next_due(&self) -> Option<Instant> {
        let batches = self.due.first_key_value().map(|(at, _)| *at);
        [batches, self.retry_at, self.wheel.next_due(), self.grants.next_due()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Sends all pending events and ends every stream. `reconnect` gives each client's waiting time
    /// before its reconnect.
    pub fn drain(&mut self, mut reconnect: impl FnMut() -> Duration, now: Instant) {
        // Send first: otherwise every client would have to replay the events of the last tick.
        let all = self.topics.iter().filter(|(_, entry)| !entry.pending.is_empty());
        let all = all.map(|(id, _)| id).collect();
        self.send(all, now);
        for slot in self.streams.iter_mut() {
            // A stream still awaiting a partition or a reread gets no frames: they belong after
            // its replay, or its feed is stale. It returns with its own cursor and misses nothing.
            let frames = if slot.awaited == 0 { take(&mut slot.queued) } else { Frames::new() };
            slot.outlet.end(ShutdownReason::Drain, Some(reconnect()), frames);
        }
    }

    /// Detaches all streams of the replaced manager, for a manager rebuilt without them.
    pub fn reset_interest(&mut self) {
        for changes in &mut self.changes {
            changes.push(InterestChange::DetachAll);
        }
    }

    /// Ends every stream, before the manager is rebuilt without them.
    pub fn end_all(&self, reason: ShutdownReason) {
        for slot in self.streams.iter() {
            slot.outlet.end(reason, None, Frames::new());
        }
    }

    /// Takes the activity since the last call.
    pub fn take_activity(&mut self) -> Activity {
        take(&mut self.activity)
    }

    /// Whether all state of streams and topics is gone.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.streams.iter().next().is_none()
            && self.topics.is_empty()
            && self.topic_ids.is_empty()
            && self.patterns.is_empty()
            && self.pending.iter().all(HashSet::is_empty)
            && self.feeds.is_empty()
            && self.joining.is_empty()
    }

    fn on_event(&mut self, event: Arc<SequencedEvent>, now: Instant) {
        let id = self.topic_id(&event.topic);
        let policy = event.policy.clone();
        let partition = usize::from(event.partition);
        let entry = &mut self.topics[id];
        if entry.pending.is_empty() {
            self.pending[partition].insert(id);
        }
        if entry.pending.push(event) != Added::Appended {
            self.activity.conflated += 1;
        }
        // A full batch leaves at once: it would grow without bound until its tick.
        let full = entry.pending.len() >= self.spec.max_batch_events
            || entry.pending.bytes() >= self.spec.max_batch_bytes;
        let due = self.due_by_policy(id, &policy, now);
        let due = if full { now } else { due };
        if self.topics[id].due.is_none_or(|already| due < already) {
            self.set_due(id, due);
        }
    }

    /// Schedules a topic. Its earlier entry in `due` stays, and `flush` skips it.
    fn set_due(&mut self, id: usize, due: Instant) {
        self.topics[id].due = Some(due);
        self.due.entry(due).or_default().push(id);
    }

    /// When an event arriving at `now` leaves.
    fn due_by_policy(&mut self, id: usize, policy: &Policy, now: Instant) -> Instant {
        match policy.flush {
            Flush::Immediate => now,
            Flush::Leading if self.was_quiet(id, policy, now) => now,
            Flush::Leading | Flush::Tick => self.next_tick(policy, now),
        }
    }

    /// Whether a topic was quiet for a tick before its event at `now`.
    fn was_quiet(&mut self, id: usize, policy: &Policy, now: Instant) -> bool {
        let quiet_from = self.topics[id].quiet_from.replace(now + policy.tick);
        quiet_from.is_none_or(|at| at <= now)
    }

    fn next_tick(&self, policy: &Policy, now: Instant) -> Instant {
        policy.next_tick(self.spec.ticks_from, self.spec.tick_phase, now)
    }

    fn on_attached(&mut self, partition: u16, stream: StreamId, replay: Replay, now: Instant) {
        if let Some(reference) = self.joining.remove(&stream) {
            return self.on_joined(partition, stream, reference, replay, now);
        }
        let Some(reference) = self.streams.find(stream) else { return };
        let Some(slot) = self.streams.get_mut(reference) else { return };
        if slot.is_open {
            return self.on_page(partition, reference, replay, now);
        }
        slot.replay.get_or_insert_default().opening.push((partition, replay));
        slot.awaited -= 1;
        self.go_on(reference, now);
    }

    /// Opens a stream and schedules its queued frames, unless it still awaits something.
    fn go_on(&mut self, reference: SlotRef, now: Instant) {
        let (replays, mut is_new) = (&self.spec.replays, false);
        let Some(slot) = self.streams.get_mut(reference).filter(|slot| slot.awaited == 0) else {
            return;
        };
        // Open exactly once, with the answers of all partitions: the first cursor needs a position
        // in each of them.
        if !std::mem::replace(&mut slot.is_open, true) {
            slot.open(replays, now);
            is_new = true;
        }
        if !slot.queued.is_empty() {
            // A past moment: the frames leave at the end of this turn, in one message.
            self.undelivered.push(reference);
            self.retry_at = Some(self.spec.start);
        }
        if is_new {
            self.watch_opened(reference);
        }
        self.start_changes(reference, now);
    }

    /// Puts an interruption in the streams of its partition, in order with their frames. A stream
    /// not attached yet needs none: its replay begins after the interruption.
    fn on_interrupted(&mut self, interruption: &Arc<Interruption>, now: Instant) {
        let partition = interruption.partition;
        // Events published before the interruption leave first. After it they would be out of
        // order, and in a new epoch their sequences would be invalid.
        let pending = self.pending[usize::from(partition)].iter().copied().collect();
        self.send(pending, now);
        let frame = Frame::interruption(interruption.clone());
        let mut dirty = Vec::new();
        for reference in self.streams.references().collect::<Vec<_>>() {
            let Some(slot) = self.streams.get_mut(reference) else { continue };
            // Between two pages, the next page begins after the interruption: it tells a new epoch.
            let is_between = slot.is_between_pages(partition) && interruption.beginning.is_some();
            let is_attached = !is_between && (slot.is_open || slot.has_opening_of(partition));
            // A new epoch concerns all positions of a stream, also in partitions it has left. The
            // connection knows them.
            let touches = interruption.beginning.is_some() || slot.attachments.touches(partition);
            let wants = |topic| slot.subscription.wants(topic);
            let is_concerned =
                interruption.topics.is_empty() || interruption.topics.iter().any(wants);
            if !is_attached && interruption.beginning.is_some() {
                // The stream's replay will be of the new epoch. The queued frames are of the old
                // epoch: their sequences could exceed the replay's head and pass as new.
                slot.queued.retain(|frame| frame.partition != partition);
            }
            if is_attached && touches && is_concerned {
                slot.queued.push(frame.clone());
                dirty.push(reference);
            }
        }
        self.hand_over(dirty, now);
    }

    /// The partition has dropped all listeners of this manager, so their streams end and resume.
    fn on_partition_restarted(&mut self, partition: u16, now: Instant) {
        // Later streams may be in another epoch, and pending events of this epoch would reach them.
        let pending = self.pending[usize::from(partition)].iter().copied().collect();
        self.send(pending, now);
        // Replace changes not sent yet, and forget the attachments here: a later detach of a
        // dropped attachment would count against streams attached after the restart.
        self.changes[usize::from(partition)] = vec![InterestChange::DetachAll];
        for slot in self.streams.iter_mut() {
            if let Some(changes) = &mut slot.changes {
                changes.forget_attachments(partition);
            }
            if slot.attachments.touches(partition) {
                for forgotten in slot.attachments.forget(partition) {
                    self.joining.remove(&forgotten.id);
                }
                slot.outlet.end(ShutdownReason::Drain, None, Frames::new());
            }
        }
    }

    fn on_heartbeat_due(&mut self, reference: SlotRef, now: Instant) {
        let Some(slot) = self.streams.get_mut(reference) else { return };
        // A delivery does not move the deadline on the wheel. It is checked, and moved, only here.
        let mut due =
            self.spec.start + Duration::from_millis(slot.written_ms) + self.spec.heartbeat;
        if due <= now {
            slot.outlet.beat();
            slot.written_ms = self.spec.age_ms(now);
            due = now + self.spec.heartbeat;
        }
        self.wheel.schedule(due, Deadline::Heartbeat(reference));
    }

    fn topic_id(&mut self, topic: &Topic) -> usize {
        if let Some(id) = self.topic_ids.get(topic) {
            return *id;
        }
        let id = self.topics.insert(TopicEntry {
            topic: topic.clone(),
            subscribers: Subscribers::default(),
            pending: Batch::default(),
            due: None,
            quiet_from: None,
        });
        self.topic_ids.insert(topic.clone(), id);
        id
    }

    fn drop_topic_if_unused(&mut self, id: usize) {
        let entry = &self.topics[id];
        if entry.subscribers.is_unused() && entry.pending.is_empty() && entry.due.is_none() {
            self.topic_ids.remove(&entry.topic);
            self.topics.remove(id);
        }
    }

    /// Adds a stream to the subscribers of pattern sets.
    fn join_sets<'a>(
        &mut self,
        reference: SlotRef,
        sets: impl IntoIterator<Item = &'a Arc<PatternSet>>,
    ) {
        for set in sets {
            let new = || (set.clone(), Subscribers::default());
            self.patterns.entry(set.id()).or_insert_with(new).1.add(reference);
        }
    }

    fn drop_set_if_unused(&mut self, set: &PatternSet) {
        if self.patterns.get(&set.id()).is_some_and(|(_, subscribers)| subscribers.is_unused()) {
            self.patterns.remove(&set.id());
        }
    }
}

/// The bytes of a page of each partition, for a stream with so many.
fn page_bytes(partition_count: usize) -> usize {
    (REPLAY_BYTES / partition_count.max(1)).max(MIN_PAGE_BYTES)
}
