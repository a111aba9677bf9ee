//! The connection actor: one per stream, on the worker of its socket. It owns the stream's state,
//! shared with the transport by the [`Pipe`]. It writes no socket.

mod cell;
mod messages;
mod pipe;
mod run_queue;
mod tally;

use std::{
    cell::RefCell,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use actix::{Actor, ActorContext, Addr, Handler};
pub(crate) use cell::ConnectionCell;
use cell::ConnectionContext;
use fanfare_core::{
    cluster::StreamInfo,
    connection::{ConnectionSpec, ConnectionState, Piece, WorkerContext},
    ids::StreamId,
    interest::Start,
    shared_names::SharedNames,
    sse::ShutdownReason,
    subscription::{Format, ResolvedSubscription},
    topic_manager::Frame,
};
pub(crate) use messages::{
    BeatHeart, ChangeTopics, DeliverFrames, EndStream, Mail, OpenedStream, ReplayPage, TellRenewal,
};
pub(crate) use pipe::{DirectTransport, Pipe, PipeReader, Stalled};
pub(crate) use run_queue::RunQueue;
pub(crate) use tally::Tally;
use tokio_util::task::task_tracker::TaskTrackerToken;

#[cfg(test)]
pub(crate) use messages::Panic;

use super::topic_manager::{CloseStream, OpenStream, TopicManager};
use crate::clock::{now, unix_ms};
use crate::{
    addresses::{OfStream, Share},
    ids::Ids,
    metrics::{Metrics, WorkerMetrics},
    stream_reports::{StreamChange, StreamReports},
    users::UserShare,
};

/// The parts of a hub needed by its connections.
pub(crate) struct ConnectionHost {
    pub ids: Arc<Ids>,
    pub metrics: Arc<Metrics>,
    /// Streams with a running connection.
    pub open_count: AtomicUsize,
    /// The application's records of streams.
    pub reports: Option<StreamReports>,
    /// The shortest and the longest `retry:` of a stream.
    pub retry_min: Duration,
    pub retry_max: Duration,
}

impl ConnectionHost {
    /// A stream's own retry time. Random: clients disconnected together must not return together.
    fn random_retry(&self) -> Duration {
        self.retry_min + (self.retry_max - self.retry_min).mul_f64(rand::random())
    }
}

/// Messages in a connection's mailbox; one message has all frames of a turn. With a full mailbox,
/// further frames stay with the manager.
pub(crate) const MAILBOX_CAPACITY: usize = 16;

/// Common to all streams of one worker.
pub(crate) struct Worker {
    pub started_at: Instant,
    pub host: Arc<ConnectionHost>,
    pub manager: Addr<TopicManager>,
    pub metrics: Arc<WorkerMetrics>,
    /// Connections with mail.
    pub queue: Rc<RunQueue>,
    pub tally: Rc<Tally>,
    pub spec: Arc<ConnectionSpec>,
    /// Shared topic lists: streams with the same topics have one list.
    pub names: RefCell<SharedNames>,
    pub context: RefCell<WorkerContext>,
}

impl Worker {
    fn age_ms(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.started_at).as_millis() as u64
    }
}

/// The shell of a connection.
pub(crate) struct Connection {
    stream: StreamId,
    pipe: Pipe,
    /// Milliseconds from the start of the worker.
    opened_ms: u64,
}

/// Held until a stream's last byte is written.
pub(crate) struct StreamHold {
    _body: TaskTrackerToken,
    /// The stream's share of its client's address.
    _share: Option<Share<OfStream>>,
    /// The stream's share of its user.
    _of_user: Option<UserShare>,
}

impl StreamHold {
    pub fn new(
        body: TaskTrackerToken,
        share: Option<Share<OfStream>>,
        of_user: Option<UserShare>,
    ) -> Self {
        Self { _body: body, _share: share, _of_user: of_user }
    }
}

/// A new stream, not yet running.
pub(crate) struct NewStream {
    connection: Rc<ConnectionCell>,
    held: StreamHold,
}

impl NewStream {
    /// The stream's client id.
    pub fn client_id(&self) -> String {
        self.connection.with(|actor| actor.client_id())
    }

    /// Starts the connection. The returned reader keeps it alive.
    pub fn start(self) -> PipeReader {
        self.connection.start();
        PipeReader::new(self.connection, self.held)
    }
}

impl Connection {
    /// Creates a stream.
    pub fn create(
        worker: Rc<Worker>,
        mut subscription: ResolvedSubscription,
        held: StreamHold,
    ) -> NewStream {
        let stream = worker.host.ids.next();
        subscription.share_names(&mut worker.names.borrow_mut());
        let opened_at = now();
        let (spec, retry) = (worker.spec.clone(), worker.host.random_retry());
        let state = ConnectionState::new(
            spec,
            retry,
            Arc::new(subscription),
            &worker.context.borrow(),
            opened_at,
        );
        let pipe = Pipe::new(state, worker.clone());
        let opened_ms = worker.age_ms(opened_at);
        let connection = Self { stream, pipe, opened_ms };
        NewStream { connection: ConnectionCell::new(connection, worker), held }
    }

    /// The stream's client id. Computed at the start and at the end, not stored, to save memory.
    fn client_id(&self) -> String {
        self.host().ids.client_id(self.stream, self.subscription().secret)
    }

    fn worker(&self) -> &Worker {
        self.pipe.worker()
    }

    fn host(&self) -> &ConnectionHost {
        &self.worker().host
    }

    fn subscription(&self) -> &ResolvedSubscription {
        self.pipe.state.subscription()
    }

    fn age(&self) -> Duration {
        Duration::from_millis(self.worker().age_ms(now()).saturating_sub(self.opened_ms))
    }

    fn describe(&self) -> StreamInfo {
        let age_ms = self.age().as_millis() as u64;
        let mut info = StreamInfo::new(self.client_id(), unix_ms().saturating_sub(age_ms));
        let names = self.subscription().names().take(StreamInfo::MAX_TOPICS);
        info.topics = names.map(str::to_owned).collect();
        info.topic_count = self.subscription().name_count();
        info.user = self.subscription().user().map(|user| user.as_str().to_owned());
        info.unsent_bytes = self.pipe.unsent_bytes();
        info
    }

    /// Reports a change of the stream to the application.
    fn report(&self, change: impl FnOnce() -> StreamChange) {
        if let Some(reports) = &self.host().reports
            && self.subscription().format != Format::Poll
        {
            reports.report(self.describe(), change());
        }
    }

    /// Whether the stream begins at the present, without a cursor.
    fn starts_now(&self) -> bool {
        matches!(self.subscription().start, Start::Live | Start::Snapshot)
    }

    /// Runs `work` on the state. An error ends the stream with its reason.
    fn decide<R>(
        &mut self,
        ctx: &mut ConnectionContext,
        work: impl FnOnce(&mut ConnectionState, &mut WorkerContext) -> Result<R, ShutdownReason>,
    ) -> Option<R> {
        match self.pipe.change(work) {
            Ok(result) => Some(result),
            Err(reason) => {
                self.end(ctx, reason, None);
                None
            }
        }
    }

    /// Handles a message whose output can leave at once, and takes this output. Anything else is
    /// `None`, and changes nothing.
    fn pass(&mut self, mail: &Mail, now: Instant) -> Option<Piece> {
        let piece = match mail {
            Mail::Frames(DeliverFrames(frames)) => {
                self.pipe.change(|state, worker| state.pass(frames, worker, now))?
            }
            Mail::Heartbeat(BeatHeart) => self.pipe.change(|state, _| state.pass_heartbeat(now))?,
            _ => return None,
        };
        self.pipe.count_delivered(&piece);
        Some(piece)
    }

    /// Ends the stream after a panic: its state is unreliable. Its unsent events are forgotten. The
    /// client resumes after its last received event and gets them again.
    fn break_down(&mut self, ctx: &mut ConnectionContext) {
        self.host().metrics.actor_panics.fetch_add(1, Ordering::Relaxed);
        let unsent_before = self.pipe.unsent_bytes();
        self.pipe.change(|state, _| state.forget());
        self.end(ctx, ShutdownReason::Drain, None);
        self.pipe.count_changes(unsent_before);
        self.pipe.wake();
    }

    fn on_frames(&mut self, ctx: &mut ConnectionContext, frames: &[Arc<Frame>]) {
        self.decide(ctx, |state, worker| state.on_frames(frames, worker, now()));
    }

    fn end(
        &mut self,
        ctx: &mut ConnectionContext,
        reason: ShutdownReason,
        reconnect: Option<Duration>,
    ) {
        self.pipe.change(|state, _| state.end(reason, reconnect));
        ctx.stop();
    }
}

impl Actor for Connection {
    type Context = ConnectionContext;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.host().open_count.fetch_add(1, Ordering::Relaxed);
        self.host().metrics.opened.fetch_add(1, Ordering::Relaxed);
        if self.subscription().format == Format::Poll {
            self.host().metrics.polls.fetch_add(1, Ordering::Relaxed);
        }
        self.worker().metrics.add_subscriptions(self.subscription().name_count());
        tracing::debug!(
            client_id = self.client_id(),
            topics = %self.subscription().names_for_log(),
            "stream opened"
        );
        self.report(|| StreamChange::Opened);
        if self.worker().manager.connected() {
            // One `OpenStream` and one `CloseStream` per stream: the limit of streams bounds both.
            self.worker().manager.do_send(OpenStream {
                stream: self.stream,
                subscription: self.pipe.state.subscription().clone(),
            });
        } else {
            self.end(ctx, ShutdownReason::Drain, None);
        }
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        let pipe = &self.pipe;
        let reason = match (pipe.is_answered(), pipe.ended()) {
            (true, _) => "answered",
            (false, Some(reason)) => reason.as_str(),
            (false, None) => "client",
        };
        let duration = self.age();
        self.host().metrics.count_closed(reason, duration);
        self.worker().metrics.remove_subscriptions(self.subscription().name_count());
        self.worker().names.borrow_mut().leave(self.subscription().shared_name_count());
        self.worker().manager.do_send(CloseStream { stream: self.stream });
        self.host().open_count.fetch_sub(1, Ordering::Relaxed);
        tracing::debug!(
            client_id = self.client_id(),
            topics = %self.subscription().names_for_log(),
            reason,
            duration_ms = duration.as_millis() as u64,
            event_count = pipe.delivered(),
            "stream closed"
        );
        self.report(|| StreamChange::Closed { reason, duration, events: pipe.delivered() });
    }
}

impl Handler<OpenedStream> for Connection {
    type Result = ();

    fn handle(&mut self, message: OpenedStream, ctx: &mut Self::Context) {
        let client_id = self.client_id();
        let result = self
            .decide(ctx, |state, worker| Ok(state.on_opened(message.0, &client_id, worker, now())));
        if let Some(result) = result {
            self.host().metrics.count_replay(result);
        }
    }
}

impl Handler<ReplayPage> for Connection {
    type Result = ();

    fn handle(&mut self, message: ReplayPage, ctx: &mut Self::Context) {
        self.decide(ctx, |state, _| {
            state.on_page(message.0);
            Ok(())
        });
    }
}

impl Handler<DeliverFrames> for Connection {
    type Result = ();

    fn handle(&mut self, message: DeliverFrames, ctx: &mut Self::Context) {
        self.on_frames(ctx, &message.0);
    }
}

impl Handler<ChangeTopics> for Connection {
    type Result = ();

    fn handle(&mut self, message: ChangeTopics, ctx: &mut Self::Context) {
        let ChangeTopics { subscription, step } = message;
        let (before, after) = (self.subscription().name_count(), subscription.name_count());
        self.worker().metrics.add_subscriptions(after);
        self.worker().metrics.remove_subscriptions(before);
        self.worker().names.borrow_mut().leave(self.subscription().shared_name_count());
        self.decide(ctx, |state, worker| {
            state.on_change(subscription, step, worker);
            Ok(())
        });
    }
}

impl Handler<TellRenewal> for Connection {
    type Result = ();

    fn handle(&mut self, message: TellRenewal, ctx: &mut Self::Context) {
        self.decide(ctx, |state, _| {
            state.on_renew(message.0);
            Ok(())
        });
    }
}

impl Handler<BeatHeart> for Connection {
    type Result = ();

    fn handle(&mut self, _: BeatHeart, ctx: &mut Self::Context) {
        self.decide(ctx, |state, _| state.on_heartbeat(now()));
    }
}

impl Handler<EndStream> for Connection {
    type Result = ();

    fn handle(&mut self, message: EndStream, ctx: &mut Self::Context) {
        if !message.frames.is_empty() {
            self.on_frames(ctx, &message.frames);
        }
        self.end(ctx, message.reason, message.reconnect);
    }
}

#[cfg(test)]
impl Handler<Panic> for Connection {
    type Result = ();

    fn handle(&mut self, _: Panic, ctx: &mut Self::Context) {
        self.decide::<()>(ctx, |_, _| panic!("asked to"));
    }
}
