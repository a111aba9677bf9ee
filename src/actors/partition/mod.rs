//! The partition actor: the only writer of its topics' sequence and history; with a log elsewhere,
//! the only writer of this instance's replica.
//!
//! The partition has at most one message in flight to each manager. Later deliveries gather into
//! the next message.

mod answers;
mod in_flight;
mod journaled;
mod long_turns;
mod messages;
mod queue;

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock, atomic::Ordering},
    time::{Duration, Instant},
};

use actix::{
    Actor, Addr, AsyncContext, Context, Handler, MessageResult, Recipient, ResponseFuture,
    fut::wrap_future,
};
pub(crate) use answers::{AnswerQueue, AnswerSlots, Answered};
#[cfg(feature = "log")]
use fanfare_core::journal::Journal;
use fanfare_core::{
    cursor::Epoch,
    error::PublishError,
    ids::ManagerId,
    log::{Append, AppendEvent, AppendFanOut, Log, Permit, Reply},
    partition::{Delivery, PartitionState, Publishing},
    wall_clock::WallClock,
};
pub(crate) use in_flight::InFlight;
pub(crate) use long_turns::{AskForTurn, LongTurns};
pub(crate) use messages::{
    ApplyLogUpdates, ChangeInterest, ContinueChanges, CountSubscribers, Deliver, DeliveriesTaken,
    FanOutEvent, PublishEvent, PublishEvents, PublishPermit, ReadHead, ReadLastSequence,
    RecordFanOutMode, TrimHistory,
};

pub(crate) use queue::{PartitionQueue, PartitionQueues};

#[cfg(feature = "log")]
pub(crate) use messages::DecidePage;
#[cfg(test)]
pub(crate) use messages::Panic;

use self::journaled::{JournalLink, Waiting};
use super::{
    catch,
    courier::{self, Parcel},
    turn::{Turn, TurnLoop},
};
use tokio::sync::oneshot;

use crate::{
    clock::{now, since_1970},
    hops::hop,
    metrics::Metrics,
};

/// Publishes handled before the partition yields: some hundred microseconds of work.
const MAX_PUBLISHES_A_TURN: usize = 256;

/// Interval of forgetting expired events and dead managers.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(1);

/// The shell of a partition.
pub(crate) struct Partition {
    number: u16,
    /// `None` only during a rebuild.
    state: Option<PartitionState<PublishPermit>>,
    /// The log elsewhere, if this partition is a replica.
    log: Option<Arc<dyn Log>>,
    /// The log on disk, if this partition has one.
    journal: Option<JournalLink>,
    /// Appends for the log elsewhere, sent at the end of the turn.
    appends: Vec<Append>,
    managers: HashMap<ManagerId, ManagerLink>,
    others: Arc<OnceLock<Vec<Addr<Partition>>>>,
    publishes_in_turn: usize,
    /// Gives turns for long work; `None` before the start.
    long_turns: Option<Addr<LongTurns>>,
    /// Whether a turn for long work is on its way.
    awaits_long_turn: bool,
    next_expiry: Instant,
    metrics: Arc<Metrics>,
    /// The hub's clock, if this partition sets it.
    clock: Option<Arc<WallClock>>,
}

/// A topic manager as a partition sees it.
struct ManagerLink {
    deliveries: Arc<Recipient<Deliver>>,
    in_flight: Arc<InFlight>,
    /// Whether the next message must begin with `Restarted`: the partition was rebuilt.
    must_restart: bool,
}

impl Partition {
    /// A partition with this state. `others` is filled after the start of all partitions.
    pub fn new(
        number: u16,
        state: PartitionState<PublishPermit>,
        others: Arc<OnceLock<Vec<Addr<Partition>>>>,
        metrics: Arc<Metrics>,
        clock: Option<Arc<WallClock>>,
    ) -> Self {
        Self {
            number,
            state: Some(state),
            log: None,
            journal: None,
            appends: Vec::new(),
            managers: HashMap::new(),
            others,
            publishes_in_turn: 0,
            long_turns: None,
            awaits_long_turn: false,
            next_expiry: now(),
            metrics,
            clock,
        }
    }

    /// The same as a replica of a log elsewhere.
    #[cfg(feature = "redis")]
    pub fn with_log(self, log: Arc<dyn Log>) -> Self {
        Self { log: Some(log), ..self }
    }

    /// The same with its log on disk.
    #[cfg(feature = "log")]
    pub fn with_journal(self, journal: Arc<dyn Journal>) -> Self {
        Self { journal: Some(JournalLink::new(journal)), ..self }
    }

    /// The same with its thread's turns for long work.
    pub fn with_long_turns(self, long_turns: Addr<LongTurns>) -> Self {
        Self { long_turns: Some(long_turns), ..self }
    }

    pub fn number(&self) -> u16 {
        self.number
    }

    /// Runs `work` on the state. After a panic it rebuilds the state: managers end their streams,
    /// whose clients resume, and a replica reads its log again.
    fn decide<R>(
        &mut self,
        work: impl FnOnce(&mut PartitionState<PublishPermit>) -> R,
    ) -> Option<R> {
        let mut state = self.state.take()?;
        let result = catch("partition", || work(&mut state));
        if result.is_some() {
            self.state = Some(state);
        } else {
            self.metrics.actor_panics.fetch_add(1, Ordering::Relaxed);
            self.state = Some(state.rebuild());
            for link in self.managers.values_mut() {
                link.must_restart = true;
            }
            if let Some(log) = &self.log {
                log.reconnect(self.number);
            }
        }
        result
    }

    /// Sends the gathered appends and requests to the log elsewhere, and trims to other partitions.
    fn send_to_log(&mut self) {
        let Some(log) = &self.log else { return };
        if !self.appends.is_empty() {
            log.append(self.number, std::mem::take(&mut self.appends));
        }
        let Some(replica) = self.state.as_mut().and_then(PartitionState::replica) else { return };
        let (generation, requests) = replica.take_requests();
        if !requests.is_empty() {
            log.request(self.number, generation, requests);
        }
        self.metrics.set_refills(self.number, replica.refill_count());
        for partition in replica.take_trims() {
            self.ask_to_trim(partition);
        }
    }

    /// Asks the partitions due to trim their history after removed keys.
    fn send_trims(&mut self) {
        let trims = self.state.as_mut().map(PartitionState::take_trims);
        for partition in trims.unwrap_or_default() {
            self.ask_to_trim(partition);
        }
    }

    fn ask_to_trim(&self, partition: u16) {
        if let Some(other) = self.others.get().and_then(|all| all.get(usize::from(partition))) {
            // The budget's flag bounds this message: one in flight for each partition.
            other.do_send(TrimHistory);
        }
    }

    /// Asks for a turn if changes are left.
    fn ask_for_turn(&mut self, ctx: &Context<Self>) {
        let has_changes = self.state.as_ref().is_some_and(PartitionState::has_changes);
        if has_changes
            && !self.awaits_long_turn
            && let Some(turns) = &self.long_turns
        {
            self.awaits_long_turn = true;
            turns.do_send(AskForTurn(ctx.address().recipient()));
        }
    }

    /// Sends queued deliveries. A manager with a message in flight gets its next one after taking
    /// it.
    fn send_deliveries(&mut self) {
        let Some(state) = &mut self.state else { return };
        let routing = state.routing();
        for (manager, link) in &mut self.managers {
            let is_due = link.must_restart || routing.has_outgoing(*manager);
            if !is_due || !link.in_flight.begin() {
                continue;
            }
            let mut deliveries = routing.take_outgoing(*manager);
            // Before all later deliveries: they belong to the rebuilt state, and the manager's old
            // streams must not get them without the lost ones.
            if std::mem::take(&mut link.must_restart) {
                deliveries.insert(0, Delivery::Restarted);
            }
            let (partition, in_flight) = (self.number, link.in_flight.clone());
            let message = Deliver { partition, deliveries, in_flight };
            courier::post(Parcel::Deliver(link.deliveries.clone(), message));
        }
    }

    /// Forgets managers of ended threads.
    fn drop_dead_managers(&mut self) {
        let dead = self.managers.iter().filter(|(_, link)| !link.deliveries.connected());
        for manager in dead.map(|(manager, _)| *manager).collect::<Vec<_>>() {
            self.managers.remove(&manager);
            self.decide(|state| state.remove_manager(manager, now()));
        }
    }

    fn publish(&mut self, publish: PublishEvent, permit: Option<&PublishPermit>, now: Instant) {
        let PublishEvent { topic, event, answer } = publish;
        if let Some(Err(refusal)) = self.journal.as_ref().map(JournalLink::check) {
            return answer.send(Err(refusal.into()));
        }
        let publishing = self.decide(|state| state.publish(&topic, &event, permit, now));
        let taken = match publishing {
            Some(Publishing::Decided(taken)) => taken,
            Some(Publishing::Journaled) => return self.wait(Waiting::Publish(answer)),
            Some(Publishing::Append { receivers }) => {
                let permit = permit.cloned().map(|permit| permit as Permit);
                let answer = Reply::new(|result| answer.send(result));
                let append = AppendEvent { topic, event, receivers, permit, answer };
                return self.appends.push(Append::Event(append));
            }
            // The panic may have come with the event in history already. Then this is the answer.
            None => {
                let stored = self.decide(|state| state.memory()?.take_stored(&topic)).flatten();
                stored.ok_or(PublishError::Internal)
            }
        };
        self.answer_publish(answer, taken);
    }

    /// The answer waits for the journal.
    fn wait(&mut self, waiting: Waiting) {
        if let Some(link) = &mut self.journal {
            link.waiting.push_back(waiting);
        }
    }

    /// Yields every [`MAX_PUBLISHES_A_TURN`] publishes. actix drains a mailbox before anything else
    /// on the thread runs: under a flood, deliveries would not leave and other partitions would not
    /// run.
    fn bound_turn(&mut self, publishes: usize, ctx: &mut Context<Self>) {
        self.publishes_in_turn += publishes;
        if self.publishes_in_turn >= MAX_PUBLISHES_A_TURN {
            self.publishes_in_turn = 0;
            self.send_deliveries();
            self.send_to_log();
            self.send_batches();
            ctx.wait(wrap_future(tokio::task::yield_now()));
        }
    }
}

impl Actor for Partition {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.start_journal(ctx);
        TurnLoop::spawn::<Self>(ctx);
    }
}

impl Turn for Partition {
    fn end_turn(&mut self, ctx: &mut Self::Context) -> Option<Instant> {
        let now = now();
        self.publishes_in_turn = 0;
        if self.next_expiry <= now {
            self.next_expiry = now + EXPIRY_INTERVAL;
            if let Some(clock) = &self.clock {
                clock.set(now, since_1970());
            }
            self.decide(|state| state.expire(now));
            self.drop_dead_managers();
            let topics = self.state.as_ref().map_or(0, PartitionState::topic_count);
            self.metrics.set_topics(self.number, topics);
            self.report_needed_bytes();
        }
        let is_unapplied = self.apply_written();
        let next_end = self.decide(|state| state.end_keys(now)).flatten();
        self.ask_for_turn(ctx);
        self.send_batches();
        self.send_deliveries();
        self.send_to_log();
        self.send_trims();
        let next = next_end.map_or(self.next_expiry, |end| end.min(self.next_expiry));
        Some(if is_unapplied { now } else { next })
    }
}

impl Handler<PublishEvents> for Partition {
    type Result = ();

    fn handle(&mut self, message: PublishEvents, ctx: &mut Self::Context) {
        self.bound_turn(message.events.len(), ctx);
        let now = now();
        for event in message.events {
            self.publish(event, message.permit.as_ref(), now);
        }
        hop!("accepted");
    }
}

impl Handler<FanOutEvent> for Partition {
    type Result = ();

    fn handle(&mut self, message: FanOutEvent, ctx: &mut Self::Context) {
        self.bound_turn(message.topics.len(), ctx);
        let FanOutEvent { fan_out, topics, permit, answer } = message;
        if let Some(Err(refusal)) = self.journal.as_ref().map(JournalLink::check) {
            return self.answer_fan_out(answer, Err(refusal.into()));
        }
        let publishing =
            self.decide(|state| state.fan_out(&fan_out, &topics, permit.as_ref(), now()));
        let taken = match publishing {
            Some(Publishing::Decided(taken)) => taken,
            Some(Publishing::Journaled) => return self.wait(Waiting::FanOut(answer)),
            Some(Publishing::Append { .. }) => {
                let permit = permit.map(|permit| permit as Permit);
                // The router may be gone: then the answer is dropped.
                let answer = Reply::new(|result| drop(answer.send(result)));
                let append = AppendFanOut { fan_out, topics, permit, answer };
                return self.appends.push(Append::FanOut(append));
            }
            None => Err(PublishError::Internal),
        };
        self.answer_fan_out(answer, taken);
    }
}

impl Handler<ApplyLogUpdates> for Partition {
    type Result = ();

    fn handle(&mut self, message: ApplyLogUpdates, _: &mut Self::Context) {
        self.decide(|state| {
            if let Some(replica) = state.replica() {
                message.0.into_iter().for_each(|update| replica.on_update(update, now()));
            }
        });
        // The log resumes after this handler, not after the turn. Send new requests at once: they
        // would otherwise wait for the rest of the mailbox.
        self.send_deliveries();
        self.send_to_log();
    }
}

impl Handler<CountSubscribers> for Partition {
    type Result = MessageResult<CountSubscribers>;

    fn handle(&mut self, message: CountSubscribers, _: &mut Self::Context) -> Self::Result {
        let count = self.decide(|state| state.subscriber_count(&message.0));
        MessageResult(count.unwrap_or_default())
    }
}

impl Handler<ReadLastSequence> for Partition {
    type Result = ResponseFuture<Option<u64>>;

    fn handle(&mut self, message: ReadLastSequence, _: &mut Self::Context) -> Self::Result {
        if let Some(log) = &self.log {
            return log.last_sequence(message.0);
        }
        let last = self.decide(|state| state.memory().map(|own| own.last_sequence(&message.0)));
        Box::pin(std::future::ready(last.flatten()))
    }
}

impl Handler<ReadHead> for Partition {
    type Result = ResponseFuture<Option<(Epoch, u64)>>;

    fn handle(&mut self, _: ReadHead, _: &mut Self::Context) -> Self::Result {
        if let Some(log) = &self.log {
            return log.head(self.number);
        }
        let head = self.decide(|state| state.memory().map(|own| own.head()));
        Box::pin(std::future::ready(head.flatten()))
    }
}

impl Handler<RecordFanOutMode> for Partition {
    type Result = ResponseFuture<Result<bool, PublishError>>;

    fn handle(&mut self, message: RecordFanOutMode, _: &mut Self::Context) -> Self::Result {
        let RecordFanOutMode { posts, name, publisher, is_pull } = message;
        if let Some(log) = &self.log {
            return log.record_fan_out_mode(posts, name, is_pull);
        }
        if let Some(Err(refusal)) = self.journal.as_ref().map(JournalLink::check) {
            return Box::pin(std::future::ready(Err(refusal.into())));
        }
        let record = |state: &mut PartitionState<_>| {
            state.record_fan_out_mode(&name.into(), publisher, is_pull, now())
        };
        let recorded = match self.decide(record).flatten() {
            Some(Publishing::Decided(recorded)) => recorded,
            Some(Publishing::Journaled) => {
                let (answer, answered) = oneshot::channel();
                self.wait(Waiting::Mode(answer));
                let unanswered = Err(PublishError::Internal);
                return Box::pin(async { answered.await.unwrap_or(unanswered) });
            }
            Some(Publishing::Append { .. }) | None => Err(PublishError::Internal),
        };
        Box::pin(std::future::ready(recorded))
    }
}

impl Handler<ChangeInterest> for Partition {
    type Result = ();

    fn handle(&mut self, message: ChangeInterest, _: &mut Self::Context) {
        let ChangeInterest { manager, deliveries, changes } = message;
        self.managers.entry(manager).or_insert_with(|| ManagerLink {
            deliveries: Arc::new(deliveries),
            in_flight: Arc::default(),
            must_restart: false,
        });
        self.decide(|state| state.change_interest(manager, changes, now()));
    }
}

impl Handler<ContinueChanges> for Partition {
    type Result = ();

    fn handle(&mut self, _: ContinueChanges, _: &mut Self::Context) {
        self.awaits_long_turn = false;
        self.decide(|state| state.continue_changes(now()));
    }
}

impl Handler<DeliveriesTaken> for Partition {
    type Result = ();

    /// Does nothing: the message starts a turn, and the turn's end sends the waiting deliveries.
    fn handle(&mut self, _: DeliveriesTaken, _: &mut Self::Context) {}
}

impl Handler<TrimHistory> for Partition {
    type Result = ();

    fn handle(&mut self, _: TrimHistory, _: &mut Self::Context) {
        self.decide(|state| state.trim(now()));
    }
}

#[cfg(test)]
impl Handler<Panic> for Partition {
    type Result = ();

    fn handle(&mut self, _: Panic, _: &mut Self::Context) {
        self.decide::<()>(|_| panic!("asked to"));
    }
}
