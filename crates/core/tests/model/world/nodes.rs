//! The parts under test, with the messages in flight between them.

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashSet, VecDeque},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use fanfare_core::{
    connection::{ConnectionState, Next, WorkerContext},
    ids::StreamId,
    interest::Start,
    partition::{Delivery, InterestChange, PartitionState},
    sse::ShutdownReason,
    subscription::ResolvedSubscription,
    topic_manager::{ChangeStep, Frames, ManagerState, Opening, Outlet, Page},
};

use super::{MAILBOX, MANAGERS};

pub(super) enum ConnectionMail {
    Open(Opening),
    Page(Page),
    Frames(Frames),
    Beat,
    Change(Arc<ResolvedSubscription>, ChangeStep),
    /// With the last frames.
    End(ShutdownReason, Frames),
}

/// A connection's mailbox with a bound on frames, and the number of refused frames.
#[derive(Clone, Default)]
pub(super) struct Mailbox(pub Rc<RefCell<VecDeque<ConnectionMail>>>, pub Rc<RefCell<usize>>);

impl Outlet for Mailbox {
    fn open(&self, opening: Opening) {
        self.0.borrow_mut().push_back(ConnectionMail::Open(opening));
    }

    fn page(&self, page: Page) {
        self.0.borrow_mut().push_back(ConnectionMail::Page(page));
    }

    fn deliver(&self, frames: Frames) -> Result<(), Frames> {
        let mut mails = self.0.borrow_mut();
        if mails.len() >= MAILBOX {
            *self.1.borrow_mut() += 1;
            return Err(frames);
        }
        mails.push_back(ConnectionMail::Frames(frames));
        Ok(())
    }

    fn change(&self, subscription: &Arc<ResolvedSubscription>, step: ChangeStep) {
        self.0.borrow_mut().push_back(ConnectionMail::Change(subscription.clone(), step));
    }

    fn renew(&self, _: Duration) {}

    fn beat(&self) {
        if self.0.borrow().len() < MAILBOX {
            self.0.borrow_mut().push_back(ConnectionMail::Beat);
        }
    }

    fn end(&self, reason: ShutdownReason, _: Option<Duration>, frames: Frames) {
        self.0.borrow_mut().push_back(ConnectionMail::End(reason, frames));
    }
}

pub(super) struct PartitionNode {
    /// None only during a rebuild.
    pub state: Option<PartitionState<()>>,
    /// By manager: whether the restart is still unreported, and the deliveries in flight.
    pub must_restart: [bool; MANAGERS],
    pub to_manager: [Option<Vec<Delivery<()>>>; MANAGERS],
}

impl PartitionNode {
    pub fn partition(&mut self) -> &mut PartitionState<()> {
        self.state.as_mut().unwrap()
    }

    pub fn rebuild(&mut self) {
        self.state = self.state.take().map(PartitionState::rebuild);
        self.must_restart = [true; MANAGERS];
    }
}

pub(super) struct ManagerNode {
    pub state: ManagerState<Mailbox>,
    /// By partition, the interest changes in flight.
    pub to_partition: Vec<Option<Vec<InterestChange>>>,
}

/// One open stream of a client.
pub(super) struct Session {
    pub stream: StreamId,
    pub manager: usize,
    pub mailbox: Mailbox,
    pub state: ConnectionState,
    /// Whether the actor still runs. Its unread bytes may outlive it.
    pub is_actor_alive: bool,
    pub is_finished: bool,
    /// Written by the hub, not read by the client.
    pub wire: VecDeque<u8>,
    pub secret: u64,
    pub begins_with: Start,
    /// The partitions with a first page, for a stream beginning with history.
    pub begun: HashSet<u16>,
    /// By partition, the last sequence at the opening.
    pub opened_at: Vec<u64>,
    /// Events taken by its manager since the opening: they reach the stream, even after a later
    /// removal of their topic.
    pub arrived: HashSet<usize>,
    /// Whether topics added by a change have more pages.
    pub is_adding: bool,
    /// Events with a collapse key taken by the connection, on their own or merged.
    pub handed: BTreeSet<usize>,
}

impl Session {
    /// Writes all available output.
    pub fn write(&mut self, worker: &mut WorkerContext, now: Instant) {
        loop {
            match self.state.next(worker, now) {
                Next::Write(piece) => self.wire.extend(&piece.bytes),
                Next::Finished => return self.is_finished = true,
                Next::Idle | Next::WaitUntil(_) => return,
            }
        }
    }
}
