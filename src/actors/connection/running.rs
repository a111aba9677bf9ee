//! A running connection: its mailbox and its loop, as a future for a task of its own or for a part
//! of a transport's future.
//!
//! The stock context of actix has room for futures spawned and awaited by an actor. A connection
//! uses neither, and this room would be a sixth of an idle stream's memory.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use actix::{
    Actor, ActorContext, ActorFuture, ActorState, Addr, AsyncContext, Handler, Message,
    SpawnHandle, WeakAddr,
    dev::{
        Envelope, EnvelopeProxy, OneshotSender, ToEnvelope,
        channel::{AddressReceiver, channel},
    },
};
use fanfare_core::interest::Start;
use futures_util::Stream;

use super::{Connection, MAILBOX_CAPACITY};

/// The state of a connection's life, and its address.
pub(crate) struct ConnectionContext {
    state: ActorState,
    address: WeakAddr<Connection>,
}

impl ActorContext for ConnectionContext {
    fn stop(&mut self) {
        if self.state == ActorState::Running {
            self.state = ActorState::Stopping;
        }
    }

    fn terminate(&mut self) {
        self.state = ActorState::Stopped;
    }

    fn state(&self) -> ActorState {
        self.state
    }
}

impl AsyncContext<Connection> for ConnectionContext {
    fn address(&self) -> Addr<Connection> {
        self.address.upgrade().expect("the mailbox lives as long as its context")
    }

    fn spawn<F>(&mut self, _: F) -> SpawnHandle
    where
        F: ActorFuture<Connection, Output = ()> + 'static,
    {
        unreachable!("a connection spawns nothing")
    }

    fn wait<F>(&mut self, _: F)
    where
        F: ActorFuture<Connection, Output = ()> + 'static,
    {
        unreachable!("a connection waits for nothing")
    }

    fn waiting(&self) -> bool {
        self.state != ActorState::Running
    }

    fn cancel_future(&mut self, _: SpawnHandle) -> bool {
        false
    }
}

impl<M> ToEnvelope<Connection, M> for ConnectionContext
where
    Connection: Handler<M>,
    M: Message<Result: Send> + Send + 'static,
{
    fn pack(message: M, answer: Option<OneshotSender<M::Result>>) -> Envelope<Connection> {
        Envelope::new(message, answer)
    }
}

/// A connection's actor and mailbox. Resolves once the actor has stopped; dropping it stops the
/// actor.
pub(crate) struct RunningConnection {
    actor: Connection,
    context: ConnectionContext,
    mailbox: AddressReceiver<Connection>,
}

impl RunningConnection {
    pub fn new(actor: Connection) -> Self {
        let (sender, mailbox) = channel(MAILBOX_CAPACITY);
        let address = Addr::new(sender).downgrade();
        let context = ConnectionContext { state: ActorState::Started, address };
        Self { actor, context, mailbox }
    }

    pub fn address(&self) -> Addr<Connection> {
        self.context.address()
    }

    /// The stream's client id.
    pub fn client_id(&self) -> String {
        self.actor.client_id()
    }

    /// Whether the stream begins at the present, without a cursor.
    pub fn starts_now(&self) -> bool {
        matches!(self.actor.subscription.start, Start::Live | Start::Snapshot)
    }

    /// Stops the actor now, if it runs.
    pub fn close(&mut self) {
        if matches!(self.context.state, ActorState::Running | ActorState::Stopping) {
            self.stop();
        }
    }

    fn stop(&mut self) {
        self.context.state = ActorState::Stopped;
        self.actor.stopped(&mut self.context);
    }
}

impl Future for RunningConnection {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        match this.context.state {
            ActorState::Started => {
                this.context.state = ActorState::Running;
                this.actor.started(&mut this.context);
            }
            ActorState::Stopped => return Poll::Ready(()),
            ActorState::Running | ActorState::Stopping => {}
        }
        while this.context.state == ActorState::Running {
            match Pin::new(&mut this.mailbox).poll_next(task) {
                Poll::Ready(Some(mut message)) => {
                    message.handle(&mut this.actor, &mut this.context);
                }
                Poll::Pending if this.mailbox.connected() => return Poll::Pending,
                // No address is left, so no message can come.
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        this.stop();
        Poll::Ready(())
    }
}

impl Drop for RunningConnection {
    fn drop(&mut self) {
        // `stopped` must run exactly once after `started`: it undoes all counts of the stream.
        self.close();
    }
}
