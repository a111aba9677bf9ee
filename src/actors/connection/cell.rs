//! A connection with its mailbox. Its manager, its transport and the run queue of its worker share
//! it. All are on one thread, so nothing is locked.
//!
//! The stock mailbox of actix boxes each message and wakes a task for each actor. For one event to
//! ten thousand streams, this is most of the work.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Instant,
};

use actix::{Actor, ActorContext, ActorState, Handler};
use smallvec::SmallVec;

use super::{Connection, MAILBOX_CAPACITY, Mail, Worker};
use crate::actors::catch;

/// The state of a connection's life.
pub(crate) struct ConnectionContext(ActorState);

impl ActorContext for ConnectionContext {
    fn stop(&mut self) {
        if self.0 == ActorState::Running {
            self.0 = ActorState::Stopping;
        }
    }

    fn terminate(&mut self) {
        self.0 = ActorState::Stopped;
    }

    fn state(&self) -> ActorState {
        self.0
    }
}

/// A connection, its mailbox, and its life.
pub(crate) struct ConnectionCell {
    /// The run queue has the connection while there is mail.
    mailbox: Cell<SmallVec<[Mail; 1]>>,
    running: RefCell<Running>,
    worker: Rc<Worker>,
}

struct Running {
    actor: Connection,
    context: ConnectionContext,
}

impl Running {
    fn stop(&mut self) {
        if matches!(self.context.0, ActorState::Running | ActorState::Stopping) {
            self.context.0 = ActorState::Stopped;
            self.actor.stopped(&mut self.context);
        }
    }
}

impl ConnectionCell {
    pub fn new(actor: Connection, worker: Rc<Worker>) -> Rc<Self> {
        let running = Running { actor, context: ConnectionContext(ActorState::Started) };
        Rc::new(Self { mailbox: Cell::default(), running: RefCell::new(running), worker })
    }

    /// Starts the actor, once.
    pub fn start(self: &Rc<Self>) {
        let mut running = self.running.borrow_mut();
        let Running { actor, context } = &mut *running;
        context.0 = ActorState::Running;
        self.worker.queue.introduce(actor.stream, self.clone());
        actor.started(context);
        if context.0 == ActorState::Stopping {
            running.stop();
        }
    }

    /// Stops the actor now, if it runs.
    pub fn close(&self) {
        self.running.borrow_mut().stop();
    }

    /// Whether the mailbox has room. Mail with a bound of its own passes the mailbox's bound.
    pub fn has_room(&self) -> bool {
        let mailbox = self.mailbox.take();
        let has_room = mailbox.len() < MAILBOX_CAPACITY;
        self.mailbox.set(mailbox);
        has_room
    }

    /// Puts a message into the mailbox. A stopped connection ignores it.
    pub fn post(self: &Rc<Self>, mail: Mail) {
        let mut mailbox = self.mailbox.take();
        mailbox.push(mail);
        let is_first = mailbox.len() == 1;
        self.mailbox.set(mailbox);
        if is_first {
            self.worker.queue.push(self.clone());
        }
    }

    /// Runs `work` on the connection.
    pub fn with<R>(&self, work: impl FnOnce(&mut Connection) -> R) -> R {
        work(&mut self.running.borrow_mut().actor)
    }

    /// Handles the mail, then hands the output to the transport. A panic ends this stream only.
    pub fn run(&self, now: Instant) {
        let mail = self.mailbox.take();
        if catch("connection", || self.running.borrow_mut().run(mail, now)).is_none() {
            catch("connection", || self.running.borrow_mut().break_down(now));
        }
    }
}

impl Running {
    fn run(&mut self, mail: SmallVec<[Mail; 1]>, now: Instant) {
        if self.context.0 != ActorState::Running {
            return;
        }
        let Self { actor, context } = self;
        let unsent_before = actor.pipe.unsent_bytes();
        let direct = actor.pipe.direct();
        let write_timeout = actor.pipe.write_timeout();
        let is_ready = direct.as_ref().is_some_and(|direct| direct.is_ready(write_timeout, now));
        // The usual case: one message, and its output can leave at once.
        let passed = match &mail[..] {
            [mail] if is_ready => actor.pass(mail, now),
            _ => None,
        };
        if passed.is_none() {
            for mail in mail {
                mail.handle(actor, context);
                if context.0 != ActorState::Running {
                    break;
                }
            }
        }
        match direct {
            Some(direct) => direct.write(&mut actor.pipe, passed, now),
            None => actor.pipe.wake(),
        }
        actor.pipe.count_changes(unsent_before);
        if context.0 == ActorState::Stopping {
            self.stop();
        }
    }

    fn break_down(&mut self, now: Instant) {
        let Self { actor, context } = self;
        actor.break_down(context);
        if let Some(direct) = actor.pipe.direct() {
            direct.write(&mut actor.pipe, None, now);
        }
        self.stop();
    }
}

impl Mail {
    fn handle(self, actor: &mut Connection, context: &mut ConnectionContext) {
        match self {
            Self::Opened(message) => actor.handle(*message, context),
            Self::Page(message) => actor.handle(*message, context),
            Self::Frames(message) => actor.handle(message, context),
            Self::Change(message) => actor.handle(*message, context),
            Self::Renewal(message) => actor.handle(message, context),
            Self::Describe(answer) => {
                // The caller may be gone.
                let _ = answer.send(actor.describe());
            }
            Self::Heartbeat(message) => actor.handle(message, context),
            Self::End(message) => actor.handle(*message, context),
            #[cfg(test)]
            Self::Panic(message) => actor.handle(message, context),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With two counters 320 bytes, a size of the allocator; the next one is 384.
    #[test]
    #[cfg(target_pointer_width = "64")]
    fn a_connection_is_one_small_block() {
        assert!(size_of::<ConnectionCell>() <= 304, "{}", size_of::<ConnectionCell>());
    }
}
