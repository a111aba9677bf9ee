//! The end of an actor's turn: work done once, after the mailbox is drained and before the actor
//! sleeps, and the time of the next turn.
//!
//! actix drains a mailbox before it polls anything else of the actor. So work gathered while
//! messages are handled (batches, interest changes) is sent here, once a turn, and a flooded actor
//! checks its deadlines in its handlers too.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use actix::{Actor, ActorFuture, AsyncContext};
use tokio::time::Sleep;

/// An actor with an end of turn.
pub(crate) trait Turn: Actor {
    /// Sends everything gathered. Returns the latest time of the next turn.
    fn end_turn(&mut self, ctx: &mut Self::Context) -> Option<Instant>;
}

/// Ends an actor's turns for as long as it runs. Nothing is polled while it sleeps.
pub(crate) struct TurnLoop {
    sleep: Pin<Box<Sleep>>,
}

impl TurnLoop {
    /// Starts the turn loop of the context's actor.
    pub fn spawn<A>(ctx: &mut A::Context)
    where
        A: Turn,
        A::Context: AsyncContext<A>,
    {
        ctx.spawn(Self { sleep: Box::pin(tokio::time::sleep(std::time::Duration::ZERO)) });
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
        // A turn due at once again still lets other tasks run.
        let Some(due) = actor.end_turn(ctx) else { return Poll::Pending };
        self.sleep.as_mut().reset(due.into());
        if self.sleep.as_mut().poll(task).is_ready() {
            task.waker().wake_by_ref();
        }
        Poll::Pending
    }
}
