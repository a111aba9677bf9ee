//! Follow graph and preferences of a single hub, in memory. One actor owns them. They are lost with
//! the process.
//!
//! | from | to | message | bound |
//! |---|---|---|---|
//! | callers | store | `ChangeEdges`, `ReadPage`, `CountEdges`, `ReadMuted`, `SetMuted`, `AskWhoMutes` | one per call, or one per 1,024 edges; [`MAX_CALLS`] permits, further callers wait |

mod graph;
mod messages;
mod mutes;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use actix::{Actor, Addr, Context, Handler, Message, MessageResult, dev::ToEnvelope};
use fanfare_core::{
    follow::{Counts, Direction, Follow, FollowGraph, GraphError, GraphFuture, Page, Preferences},
    user::User,
};
use futures_util::{FutureExt, future::ready};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use self::{
    graph::EdgeStore,
    messages::{
        AskWhoMutes, ChangeEdges, CountEdges, EdgeOperation, ReadMuted, ReadPage, SetMuted,
    },
    mutes::Mutes,
};

/// Calls in flight to the actor.
const MAX_CALLS: usize = 256;

/// Edges in one message: between two messages the actor handles other calls.
const MAX_EDGES: usize = 1024;

struct MemoryStore {
    graph: EdgeStore,
    mutes: Mutes,
    nobody_mutes: Arc<AtomicBool>,
}

impl Actor for MemoryStore {
    type Context = Context<Self>;
}

/// Follow graph and preferences. All clones share one actor.
#[derive(Clone)]
pub(crate) struct MemoryFollows {
    addr: Addr<MemoryStore>,
    calls: Arc<Semaphore>,
    /// No user mutes a kind: callers skip the query.
    nobody_mutes: Arc<AtomicBool>,
}

impl MemoryFollows {
    /// Starts the actor on this thread.
    pub fn start() -> Self {
        let nobody_mutes = Arc::new(AtomicBool::new(true));
        let (graph, mutes) = (EdgeStore::new(rand::random()), Mutes::default());
        let follows = MemoryStore { graph, mutes, nobody_mutes: nobody_mutes.clone() };
        let addr = MemoryStore::create(|ctx| {
            // Each message holds a permit, so the mailbox is never full.
            ctx.set_mailbox_capacity(MAX_CALLS + 1);
            follows
        });
        Self { addr, calls: Arc::new(Semaphore::new(MAX_CALLS)), nobody_mutes }
    }

    async fn call<M>(
        &self,
        message: impl FnOnce(OwnedSemaphorePermit) -> M,
    ) -> Result<M::Result, GraphError>
    where
        M: Message<Result: Send> + Send + 'static,
        MemoryStore: Handler<M>,
        Context<MemoryStore>: ToEnvelope<MemoryStore, M>,
    {
        let permit = self.calls.clone().acquire_owned().await;
        let permit = permit.expect("the semaphore is never closed");
        let answer = self.addr.send(message(permit)).await;
        answer.map_err(|error| GraphError::Unavailable(Box::new(error)))
    }

    async fn change(&self, edges: Vec<Follow>, change: EdgeOperation) -> Result<u64, GraphError> {
        let mut count = 0;
        let mut edges = edges.into_iter();
        loop {
            let chunk: Vec<Follow> = edges.by_ref().take(MAX_EDGES).collect();
            if chunk.is_empty() {
                return Ok(count);
            }
            let message = |_place| ChangeEdges { edges: chunk, change, _place };
            count += self.call(message).await?;
        }
    }

    async fn page(
        &self,
        user: User,
        direction: Direction,
        after: Option<String>,
        limit: usize,
    ) -> Result<Page, GraphError> {
        self.call(|_place| ReadPage { user, direction, after, limit, _place }).await?
    }
}

impl FollowGraph for MemoryFollows {
    fn follow(&self, edges: Vec<Follow>) -> GraphFuture<'_, u64> {
        self.change(edges, EdgeOperation::Add).boxed()
    }

    fn unfollow(&self, edges: Vec<Follow>) -> GraphFuture<'_, u64> {
        self.change(edges, EdgeOperation::Remove).boxed()
    }

    fn followers(
        &self,
        author: User,
        after: Option<String>,
        limit: usize,
    ) -> GraphFuture<'_, Page> {
        self.page(author, Direction::Followers, after, limit).boxed()
    }

    fn following(&self, user: User, after: Option<String>, limit: usize) -> GraphFuture<'_, Page> {
        self.page(user, Direction::Following, after, limit).boxed()
    }

    fn counts(&self, user: User) -> GraphFuture<'_, Counts> {
        self.call(|_place| CountEdges { user, _place }).boxed()
    }
}

impl Preferences for MemoryFollows {
    fn muted(&self, user: User) -> GraphFuture<'_, Vec<String>> {
        self.call(|_place| ReadMuted { user, _place }).boxed()
    }

    fn set_muted(&self, user: User, kinds: Vec<String>) -> GraphFuture<'_, ()> {
        self.call(|_place| SetMuted { user, kinds, _place }).boxed()
    }

    fn who_mutes(&self, kind: String, users: Vec<User>) -> GraphFuture<'_, Vec<bool>> {
        if self.nobody_mutes.load(Ordering::Acquire) {
            return ready(Ok(vec![false; users.len()])).boxed();
        }
        self.call(|_place| AskWhoMutes { kind, users, _place }).boxed()
    }
}

impl Handler<ChangeEdges> for MemoryStore {
    type Result = u64;

    fn handle(&mut self, message: ChangeEdges, _: &mut Self::Context) -> u64 {
        let changed = message.edges.iter().filter(|edge| match message.change {
            EdgeOperation::Add => self.graph.follow(edge),
            EdgeOperation::Remove => self.graph.unfollow(edge),
        });
        changed.count() as u64
    }
}

impl Handler<ReadPage> for MemoryStore {
    type Result = Result<Page, GraphError>;

    fn handle(&mut self, message: ReadPage, _: &mut Self::Context) -> Self::Result {
        let ReadPage { user, direction, after, limit, .. } = message;
        self.graph.page(&user, direction, after.as_deref(), limit)
    }
}

impl Handler<CountEdges> for MemoryStore {
    type Result = MessageResult<CountEdges>;

    fn handle(&mut self, message: CountEdges, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.graph.counts(&message.user))
    }
}

impl Handler<ReadMuted> for MemoryStore {
    type Result = MessageResult<ReadMuted>;

    fn handle(&mut self, message: ReadMuted, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.mutes.of(&message.user))
    }
}

impl Handler<SetMuted> for MemoryStore {
    type Result = ();

    fn handle(&mut self, message: SetMuted, _: &mut Self::Context) {
        self.mutes.set(&message.user, message.kinds);
        self.nobody_mutes.store(self.mutes.is_empty(), Ordering::Release);
    }
}

impl Handler<AskWhoMutes> for MemoryStore {
    type Result = MessageResult<AskWhoMutes>;

    fn handle(&mut self, message: AskWhoMutes, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.mutes.who(&message.kind, &message.users))
    }
}

#[cfg(test)]
mod tests {
    use super::MemoryFollows;
    use crate::follow::contract;

    #[actix_web::test]
    async fn the_graph_in_memory_keeps_every_promise() {
        contract::graph(&MemoryFollows::start()).await;
    }

    #[actix_web::test]
    async fn the_preferences_in_memory_keep_every_promise() {
        contract::preferences(&MemoryFollows::start()).await;
    }
}
