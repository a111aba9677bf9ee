//! The end of an actor's turn: work done once per turn, after the mailbox is drained, and the time
//! of the next turn.
//!
//! actix drains a mailbox before it polls anything else of the actor. So handlers gather work
//! (batches, interest changes), and the turn's end sends it in few messages. Handlers of a flooded
//! actor must check its deadlines too.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use actix::{Actor, ActorFuture, AsyncContext};
use tokio::time::Sleep;

use crate::clock::poll_sleep;

/// An actor with an end of turn.
pub(crate) trait Turn: Actor {
    /// Sends all gathered work. Returns the latest time of the next turn; `None` waits for a
    /// message.
    fn end_turn(&mut self, ctx: &mut Self::Context) -> Option<Instant>;
}

/// Ends an actor's turns as long as the actor runs. A sleeping actor polls nothing.
pub(crate) struct TurnLoop {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl TurnLoop {
    /// Starts the turn loop of the context's actor.
    pub fn spawn<A>(ctx: &mut A::Context)
    where
        A: Turn,
        A::Context: AsyncContext<A>,
    {
        ctx.spawn(Self { sleep: None });
    }
}

impl<A: Turn> ActorFuture<A> for TurnLoop {
    type Output = ();

    fn poll(
        mut self: Pin<&mut Self>,
        actor: &mut A,
        ctx: &mut A::Context,
        task: &mut Context<'_>,
    ) -> Poll<()> {
        // If the next turn is due at once, wake and return: a loop here would not let other tasks
        // run.
        let Some(due) = actor.end_turn(ctx) else { return Poll::Pending };
        if poll_sleep(&mut self.sleep, due, task).is_ready() {
            task.waker().wake_by_ref();
        }
        Poll::Pending
    }
}
