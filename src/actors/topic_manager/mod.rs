//! The topic manager actor: one per worker thread, started with the worker's first stream. Every
//! later step of a delivery stays on this worker.

mod asking;
mod messages;

use std::{
    collections::{HashMap, HashSet},
    mem::take,
    panic::AssertUnwindSafe,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use actix::{
    Actor, ActorContext, ActorFutureExt, Addr, AsyncContext, Context, Handler, MessageResult,
    ResponseFuture, WrapFuture, fut::wrap_future,
};
pub(crate) use asking::AskAgain;
use fanfare_core::{
    cluster::StreamInfo,
    ids::{ManagerId, StreamId},
    partition::Delivery,
    policy::PHASES,
    sse::ShutdownReason,
    subscription::{FeedOf, ResolvedSubscription},
    topic_manager::{
        ChangeOutcome, ChangeStep, Frames, ManagerSpec, ManagerState, Opening, Outlet, Page,
        Question, Renewal, Ticket,
    },
};
use futures_util::{FutureExt, future::join_all};
pub(crate) use messages::{
    ChangeStreams, CloseStream, ContinueReplay, DeliverRelinked, Drain, EndStreams, ExpectFeed,
    ForgetFeed, ListFeedUsers, ListStreams, OpenStream, RenewGrant, Whose,
};
use tokio::sync::{mpsc, oneshot};

#[cfg(test)]
pub(crate) use messages::Panic;

use super::{
    catch,
    connection::{
        BeatHeart, ChangeTopics, ConnectionCell, DeliverFrames, EndStream, Mail, OpenedStream,
        ReplayPage, RunQueue, TellRenewal,
    },
    partition::{ChangeInterest, Deliver, InFlight, Partition, PartitionQueues},
    turn::{Turn, TurnLoop},
};
use crate::{
    clock::now,
    follow::FeedReader,
    hops::hop,
    ids::Ids,
    lifecycle::Lifecycle,
    metrics::{Metrics, WorkerMetrics},
    revocations::Revocations,
};

/// The parts of a hub needed by its topic managers.
pub(crate) struct ManagerHost {
    /// The template of a manager's spec. [`TopicManager::new`] sets its start and its phase.
    pub spec: ManagerSpec,
    pub partitions: Vec<Addr<Partition>>,
    pub queues: PartitionQueues,
    pub feeds: Arc<FeedReader>,
    pub ids: Arc<Ids>,
    pub lifecycle: Arc<Lifecycle>,
    pub revocations: Arc<Revocations>,
    /// For grants by the application.
    pub application: Arc<dyn AskAgain>,
    pub metrics: Arc<Metrics>,
}

/// Feeds reread at the same time by one manager. It bounds the load on the follow graph.
const MAX_REREADING: usize = 32;

/// Time limit for rereading a feed. Past it the feed's streams end.
const REREAD_TIMEOUT: Duration = Duration::from_secs(10);

/// The shell of a topic manager.
pub(crate) struct TopicManager {
    id: ManagerId,
    spec: ManagerSpec,
    /// `None` only during a rebuild.
    state: Option<ManagerState<ConnectionOutlet>>,
    /// Per partition, whether a `ChangeInterest` is in flight.
    is_awaited: Vec<bool>,
    /// Partitions with a `Deliver` handled in this turn, to mark as taken at its end.
    taken: Vec<(u16, Arc<InFlight>)>,
    /// The number of feeds being reread.
    rereading: usize,
    /// Callers waiting for changes of streams.
    tickets: HashMap<Ticket, oneshot::Sender<ChangeOutcome>>,
    last_ticket: Ticket,
    /// Asks the application; none before the first question.
    asker: Option<mpsc::UnboundedSender<Question>>,
    /// Ending streams, and the callers waiting for their ends.
    ending: Vec<(HashSet<StreamId>, oneshot::Sender<()>)>,
    host: Arc<ManagerHost>,
    metrics: Arc<WorkerMetrics>,
    /// The connections of this worker with mail.
    queue: Rc<RunQueue>,
}

impl TopicManager {
    /// `number` is the number of managers started before in this hub.
    pub fn new(
        host: Arc<ManagerHost>,
        metrics: Arc<WorkerMetrics>,
        queue: Rc<RunQueue>,
        number: usize,
    ) -> Self {
        let tick_phase = tick_phase(number);
        let spec = ManagerSpec { start: now(), tick_phase, ..host.spec.clone() };
        Self {
            id: host.ids.next(),
            is_awaited: vec![false; usize::from(spec.partition_count)],
            taken: Vec::new(),
            rereading: 0,
            tickets: HashMap::new(),
            last_ticket: 0,
            asker: None,
            ending: Vec::new(),
            state: Some(ManagerState::new(spec.clone())),
            spec,
            metrics,
            queue,
            host,
        }
    }

    /// Runs `work` on the state. After a panic it ends all streams, whose clients resume, and
    /// rebuilds the state without them.
    fn decide(&mut self, work: impl FnOnce(&mut ManagerState<ConnectionOutlet>)) {
        let Some(mut state) = self.state.take() else { return };
        if catch("topic manager", || work(&mut state)).is_some() {
            self.state = Some(state);
            return;
        }
        self.host.metrics.actor_panics.fetch_add(1, Ordering::Relaxed);
        catch("topic manager", || state.end_all(ShutdownReason::Drain));
        let mut state = ManagerState::new(self.spec.clone());
        state.reset_interest();
        self.state = Some(state);
        // The streams of pending changes have ended: dropping the senders answers the callers.
        self.tickets.clear();
        self.ending.clear();
    }

    /// Rereads feeds from the follow graph, at most [`MAX_REREADING`] at the same time.
    fn reread_feeds(&mut self, ctx: &mut Context<Self>) {
        while self.rereading < MAX_REREADING {
            let next = self.state.as_mut().and_then(ManagerState::next_to_reread);
            let Some(user) = next else { return };
            self.rereading += 1;
            let feeds = self.host.feeds.clone();
            let read = async move {
                // The application's store may panic or never answer. Either must free its slot, and
                // the feed's streams end instead of missing changes silently.
                let read = AssertUnwindSafe(feeds.reread(&user)).catch_unwind();
                let read = tokio::time::timeout(REREAD_TIMEOUT, read).await;
                (user, read.ok().and_then(Result::ok).flatten())
            };
            ctx.spawn(read.into_actor(self).map(|(user, read), this: &mut Self, ctx| {
                this.rereading -= 1;
                let read = read.as_ref().map(|(topics, muted)| (&topics[..], &muted[..]));
                this.decide(|state| state.on_reread(&user, read, now()));
                this.reread_feeds(ctx);
            }));
        }
    }

    /// Marks messages as taken once their streams have run. A partition sends its next message only
    /// then: events arriving meanwhile leave together.
    fn mark_taken(&mut self) {
        if self.taken.is_empty() {
            return;
        }
        let (taken, host) = (take(&mut self.taken), self.host.clone());
        self.queue.then(move || {
            for (partition, in_flight) in taken {
                if in_flight.end() {
                    host.queues.tell_taken(partition);
                }
            }
        });
    }

    fn next_ticket(&mut self) -> (Ticket, oneshot::Receiver<ChangeOutcome>) {
        let (sender, receiver) = oneshot::channel();
        self.last_ticket += 1;
        self.tickets.insert(self.last_ticket, sender);
        (self.last_ticket, receiver)
    }

    /// Answers the callers of finished changes.
    fn answer_changes(&mut self) {
        let finished = self.state.as_mut().map(ManagerState::take_finished).unwrap_or_default();
        for (ticket, outcome) in finished {
            if let Some(waiting) = self.tickets.remove(&ticket) {
                // The caller may be gone.
                let _ = waiting.send(outcome);
            }
        }
    }

    /// Sends gathered changes of interest, one message in flight for each partition: a storm of
    /// streams makes large messages, and not many.
    fn send_changes(&mut self, ctx: &mut Context<Self>) {
        let Some(state) = &mut self.state else { return };
        for (partition, addr) in (0_u16..).zip(&self.host.partitions) {
            let index = usize::from(partition);
            if self.is_awaited[index] || !state.has_changes(partition) {
                continue;
            }
            self.is_awaited[index] = true;
            let message = ChangeInterest {
                manager: self.id,
                deliveries: ctx.address().recipient(),
                changes: state.take_changes(partition),
            };
            let answer = wrap_future::<_, Self>(addr.send(message));
            ctx.spawn(answer.map(move |_, this, ctx| {
                this.is_awaited[index] = false;
                // The turn's end may come before this answer. Without this call, changes gathered
                // meanwhile would wait for the next turn.
                this.send_changes(ctx);
            }));
        }
    }
}

/// The phase of a manager's ticks. Managers started one after the other get phases far apart, so
/// workers do not all flush in the same moment.
fn tick_phase(number: usize) -> u32 {
    (number % PHASES as usize) as u32 * 3 % PHASES
}

impl Actor for TopicManager {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        TurnLoop::spawn::<Self>(ctx);
        let stopped = self.host.lifecycle.stop.clone().cancelled_owned().into_actor(self);
        ctx.spawn(stopped.map(|(), this: &mut Self, ctx| {
            this.decide(|state| state.end_all(ShutdownReason::Drain));
            ctx.stop();
        }));
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.queue.forget_newcomers();
    }
}

impl Turn for TopicManager {
    fn end_turn(&mut self, ctx: &mut Self::Context) -> Option<Instant> {
        self.decide(|state| state.on_time(now()));
        self.send_changes(ctx);
        self.answer_changes();
        self.reread_feeds(ctx);
        self.ask_application(ctx);
        self.mark_taken();
        let state = self.state.as_mut()?;
        self.metrics.record_activity(&state.take_activity());
        state.next_due()
    }
}

impl Handler<OpenStream> for TopicManager {
    type Result = ();

    fn handle(&mut self, message: OpenStream, _: &mut Self::Context) {
        let OpenStream { stream, subscription } = message;
        let Some(connection) = self.queue.newcomer(stream) else { return };
        let connection = ConnectionOutlet(connection);
        if self.host.lifecycle.is_draining() {
            // The stream passed the hub's check before the drain began. `Drain` may have ended all
            // other streams already, so nothing else would end this one.
            if let Some(feed) = subscription.feed_of() {
                self.decide(|state| state.forget_expected(feed));
            }
            return connection.end(ShutdownReason::Drain, None, Frames::new());
        }
        if self.host.revocations.covers(&subscription.grant) {
            // Revoked since the check of its request.
            if let Some(feed) = subscription.feed_of() {
                self.decide(|state| state.forget_expected(feed));
            }
            return connection.end(ShutdownReason::Revoked, None, Frames::new());
        }
        self.decide(|state| state.open(stream, connection, &subscription, rand::random(), now()));
    }
}

impl Handler<ContinueReplay> for TopicManager {
    type Result = ();

    fn handle(&mut self, message: ContinueReplay, _: &mut Self::Context) {
        self.decide(|state| state.continue_replay(message.stream, &message.partitions));
    }
}

impl Handler<CloseStream> for TopicManager {
    type Result = ();

    fn handle(&mut self, message: CloseStream, _: &mut Self::Context) {
        self.decide(|state| state.close(message.stream));
        self.ending.iter_mut().for_each(|(streams, _)| {
            streams.remove(&message.stream);
        });
        for (_, waiting) in self.ending.extract_if(.., |(streams, _)| streams.is_empty()) {
            // The caller may be gone.
            let _ = waiting.send(());
        }
    }
}

impl Handler<ChangeStreams> for TopicManager {
    type Result = ResponseFuture<Vec<ChangeOutcome>>;

    fn handle(&mut self, message: ChangeStreams, _: &mut Self::Context) -> Self::Result {
        let mut waiting = Vec::new();
        // Every stream gets a ticket. `answer_changes` answers it in this or a later turn, after
        // all partitions have attached the stream's added topics.
        for (whose, change) in message.0.iter() {
            let count = match (whose, &self.state) {
                (Whose::Feed(user), Some(state)) => state.feed_count(user),
                (Whose::Client { stream, secret }, Some(state)) => {
                    usize::from(state.find_stream(*stream, *secret).is_some())
                }
                (_, None) => 0,
            };
            let tickets: Vec<_> = (0..count).map(|_| self.next_ticket()).collect();
            let (numbers, receivers): (Vec<_>, Vec<_>) = tickets.into_iter().unzip();
            waiting.extend(receivers);
            let (mut numbers, now) = (numbers.into_iter(), now());
            self.decide(|state| match whose {
                Whose::Feed(user) => state.change_feeds(user, change, &mut numbers, now),
                Whose::Client { stream, secret } => {
                    let found = state.find_stream(*stream, *secret).zip(numbers.next());
                    if let Some((reference, ticket)) = found {
                        state.change_paced(ticket, reference, change.clone(), now);
                    }
                }
            });
        }
        self.answer_changes();
        let outcomes = join_all(waiting);
        // A dropped ticket was unused, or its stream ended in a rebuild.
        Box::pin(outcomes.map(|all| all.into_iter().filter_map(Result::ok).collect()))
    }
}

impl Handler<RenewGrant> for TopicManager {
    type Result = ResponseFuture<Renewal>;

    fn handle(&mut self, message: RenewGrant, _: &mut Self::Context) -> Self::Result {
        let RenewGrant { stream, secret, grant } = message;
        if self.host.revocations.covers(&grant) {
            return Box::pin(async { Renewal::Forbidden });
        }
        let mut renewal = Renewal::Ended;
        let (ticket, changed) = self.next_ticket();
        self.decide(|state| {
            if let Some(reference) = state.find_stream(stream, secret) {
                renewal = state.renew(ticket, reference, &grant, now());
            }
        });
        let Renewal::Pending(removed) = renewal else {
            self.tickets.remove(&ticket);
            return Box::pin(async { renewal });
        };
        self.answer_changes();
        Box::pin(async {
            match changed.await {
                Ok(ChangeOutcome::Changed(_)) => Renewal::Done(removed),
                _ => Renewal::Ended,
            }
        })
    }
}

impl Handler<EndStreams> for TopicManager {
    type Result = ResponseFuture<usize>;

    fn handle(&mut self, message: EndStreams, _: &mut Self::Context) -> Self::Result {
        let EndStreams { which, reason } = message;
        let mut ended = HashSet::new();
        self.decide(|state| ended = state.end_streams(&which, reason).into_iter().collect());
        let count = ended.len();
        if count == 0 {
            return Box::pin(async { 0 });
        }
        let (sender, all_ended) = oneshot::channel();
        self.ending.push((ended, sender));
        // A dropped sender: the manager was rebuilt, and has ended all streams.
        Box::pin(all_ended.map(move |_| count))
    }
}

impl Handler<ListStreams> for TopicManager {
    type Result = ResponseFuture<Vec<StreamInfo>>;

    fn handle(&mut self, message: ListStreams, _: &mut Self::Context) -> Self::Result {
        let ListStreams { which, limit } = message;
        let all = self.state.iter().flat_map(|state| state.find(&which));
        let answers: Vec<_> = all.take(limit).map(|slot| slot.outlet.describe()).collect();
        // A stream without an answer has ended.
        Box::pin(join_all(answers).map(|all| all.into_iter().filter_map(Result::ok).collect()))
    }
}

impl Handler<ExpectFeed> for TopicManager {
    type Result = MessageResult<ExpectFeed>;

    fn handle(&mut self, message: ExpectFeed, _: &mut Self::Context) -> Self::Result {
        let feed = FeedOf { user: message.0, number: self.host.ids.next() };
        self.decide(|state| state.expect_feed(&feed));
        MessageResult(feed)
    }
}

impl Handler<ForgetFeed> for TopicManager {
    type Result = ();

    fn handle(&mut self, message: ForgetFeed, _: &mut Self::Context) {
        self.decide(|state| state.forget_expected(&message.0));
    }
}

impl Handler<ListFeedUsers> for TopicManager {
    type Result = MessageResult<ListFeedUsers>;

    fn handle(&mut self, message: ListFeedUsers, _: &mut Self::Context) -> Self::Result {
        let ListFeedUsers { topic, kind } = message;
        let users = self.state.as_ref().map(|state| state.feed_users(&topic, &kind));
        MessageResult(users.unwrap_or_default())
    }
}

impl Handler<Deliver> for TopicManager {
    type Result = ();

    fn handle(&mut self, message: Deliver, ctx: &mut Self::Context) {
        let mut all = message.deliveries.iter();
        let may_lack_revocations = self.host.revocations.reads().is_some()
            && all.any(|delivery| matches!(delivery, Delivery::Relinked));
        if !may_lack_revocations {
            return self.deliver(message);
        }
        // The instance may have missed revocations while the link was lost, and later events must
        // not reach their streams. The partition sends nothing more before this message is taken.
        let (revocations, manager) = (self.host.revocations.clone(), ctx.address());
        let read = async move {
            if let Some(reads) = revocations.reads() {
                reads.next().await;
            }
            manager.do_send(DeliverRelinked(message));
        };
        tokio::task::spawn_local(self.host.lifecycle.stop.clone().run_until_cancelled_owned(read));
    }
}

impl Handler<DeliverRelinked> for TopicManager {
    type Result = ();

    fn handle(&mut self, message: DeliverRelinked, _: &mut Self::Context) {
        self.deliver(message.0);
    }
}

impl TopicManager {
    fn deliver(&mut self, message: Deliver) {
        hop!("at the manager");
        let now = now();
        self.taken.push((message.partition, message.in_flight));
        self.decide(|state| {
            for delivery in message.deliveries {
                state.on_delivery(message.partition, delivery, now);
            }
            // actix drains the mailbox before it polls the turn's end: under a flood, the tick
            // would be late.
            if state.next_due().is_some_and(|due| due < now) {
                state.on_time(now);
            }
        });
    }
}

impl Handler<Drain> for TopicManager {
    type Result = ();

    fn handle(&mut self, message: Drain, _: &mut Self::Context) {
        let reconnect = || message.window.mul_f64(rand::random());
        self.decide(|state| state.drain(reconnect, now()));
    }
}

#[cfg(test)]
impl Handler<Panic> for TopicManager {
    type Result = ();

    fn handle(&mut self, _: Panic, _: &mut Self::Context) {
        self.decide(|_| panic!("asked to"));
    }
}

/// A manager's way to a connection, with a rule for a full mailbox per message.
pub(crate) struct ConnectionOutlet(Rc<ConnectionCell>);

impl ConnectionOutlet {
    fn describe(&self) -> oneshot::Receiver<StreamInfo> {
        let (sender, receiver) = oneshot::channel();
        self.0.post(Mail::Describe(sender));
        receiver
    }
}

impl Outlet for ConnectionOutlet {
    fn open(&self, opening: Opening) {
        // Once per stream, and the stream cannot begin without it: it passes the mailbox's bound.
        self.0.post(Mail::Opened(Box::new(OpenedStream(opening))));
    }

    fn page(&self, page: Page) {
        // One in flight for each partition of the stream.
        self.0.post(Mail::Page(Box::new(ReplayPage(page))));
    }

    fn deliver(&self, frames: Frames) -> Result<(), Frames> {
        if !self.0.has_room() {
            return Err(frames);
        }
        self.0.post(Mail::Frames(DeliverFrames(frames)));
        Ok(())
    }

    fn change(&self, subscription: &Arc<ResolvedSubscription>, step: ChangeStep) {
        // A few per requested change. It must arrive, and before later deliveries, so it passes the
        // mailbox's bound.
        let message = ChangeTopics { subscription: subscription.clone(), step };
        self.0.post(Mail::Change(Box::new(message)));
    }

    fn beat(&self) {
        // A full mailbox has frames to send: a heartbeat is then skipped.
        if self.0.has_room() {
            self.0.post(Mail::Heartbeat(BeatHeart));
        }
    }

    fn renew(&self, remaining: Duration) {
        // Once for each grant of the stream. It must arrive, so it passes the mailbox's bound.
        self.0.post(Mail::Renewal(TellRenewal(remaining)));
    }

    fn end(&self, reason: ShutdownReason, reconnect: Option<Duration>, frames: Frames) {
        // A stream's last message. It must arrive, so it passes the mailbox's bound.
        self.0.post(Mail::End(Box::new(EndStream { reason, reconnect, frames })));
    }
}
