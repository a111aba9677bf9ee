//! The end of an actor's turn: what is done once, after the mailbox was drained and before
//! the actor sleeps, and when it wants to be woken again.
//!
//! A mailbox is drained before anything else of an actor is polled. So work that gathers
//! while messages are handled (batches, interest changes) is sent here, once per turn; and
//! a flooded actor looks at its deadlines from its handlers too.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use actix::{Actor, ActorFuture, AsyncContext};
use tokio::time::Sleep;

/// An actor that ends its turns.
pub(crate) trait Turn: Actor {
    /// Sends what gathered. Returns when the next turn is due at the latest.
    fn end_turn(&mut self, ctx: &mut Self::Context) -> Option<Instant>;
}

/// Ends an actor's turns for as long as it runs. Nothing is polled while it sleeps.
pub(crate) struct TurnLoop {
    sleep: Pin<Box<Sleep>>,
}

impl TurnLoop {
    /// Starts ending the turns of the actor that the context belongs to.
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
        // A turn that asks for the next one at once still lets other tasks run.
        let Some(due) = actor.end_turn(ctx) else { return Poll::Pending };
        self.sleep.as_mut().reset(due.into());
        if self.sleep.as_mut().poll(task).is_ready() {
            task.waker().wake_by_ref();
        }
        Poll::Pending
    }
}
