//! Follow graph and preferences of a single hub, in memory. One actor owns them. With a log on disk,
//! each change is kept there before it is made; without, they are lost with the process.
//!
//! | from | to | message | bound |
//! |---|---|---|---|
//! | callers | store | `ChangeEdges`, `ReadPage`, `CountEdges`, `ReadMuted`, `SetMuted`, `AskWhoMutes` | one per call, or one per 1,024 edges; [`MAX_CALLS`] permits, further callers wait |
//! | log on disk | store | `AskNeeded` | one: the log asks about one page at a time |

mod graph;
mod kept;
mod messages;
mod mutes;
mod tables;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use actix::{
    Actor, ActorFutureExt, Addr, Context, Handler, Message, MessageResult, ResponseActFuture,
    WrapFuture, dev::ToEnvelope,
};
use fanfare_core::{
    follow::{Counts, Direction, Follow, FollowGraph, GraphError, GraphFuture, Page, Preferences},
    user::User,
};
use futures_util::{FutureExt, future::ready};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use self::{
    kept::InFlight,
    messages::{
        AskNeeded, AskWhoMutes, ChangeEdges, CountEdges, EdgeOperation, ReadMuted, ReadPage,
        SetMuted,
    },
};
pub(crate) use self::{
    kept::{KeepChanges, TableChange},
    tables::Tables,
};

/// Calls in flight to the actor.
const MAX_CALLS: usize = 256;

/// Edges in one message: between two messages the actor handles other calls.
const MAX_EDGES: usize = 1024;

struct MemoryStore {
    tables: Tables,
    nobody_mutes: Arc<AtomicBool>,
    /// The log on disk.
    kept: Option<Arc<dyn KeepChanges>>,
    in_flight: InFlight,
    /// A question waiting for changes in flight.
    waiting: Option<AskNeeded>,
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
    /// Starts the actor on this thread, with these tables. Further changes are kept by `kept`.
    pub fn start(tables: Tables, kept: Option<Arc<dyn KeepChanges>>) -> Self {
        let nobody_mutes = Arc::new(AtomicBool::new(tables.mutes.is_empty()));
        let follows = MemoryStore {
            tables,
            nobody_mutes: nobody_mutes.clone(),
            kept,
            in_flight: InFlight::default(),
            waiting: None,
        };
        follows.report_needed();
        let addr = MemoryStore::create(|ctx| {
            // Each message holds a permit or is the log's only one, so the mailbox is never full.
            ctx.set_mailbox_capacity(MAX_CALLS + 2);
            follows
        });
        Self { addr, calls: Arc::new(Semaphore::new(MAX_CALLS)), nobody_mutes }
    }

    /// Asks whether earlier changes are still needed. A stopped store drops `answer`.
    #[cfg(feature = "log")]
    pub fn ask_needed(&self, changes: Vec<TableChange>, answer: kept::AnswerNeeded) {
        let _ = self.addr.try_send(AskNeeded { changes, answer });
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
            count += self.call(message).await??;
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
        let changed = self.call(|_place| SetMuted { user, kinds, _place });
        changed.map(|answer| answer?.map(drop)).boxed()
    }

    fn who_mutes(&self, kind: String, users: Vec<User>) -> GraphFuture<'_, Vec<bool>> {
        if self.nobody_mutes.load(Ordering::Acquire) {
            return ready(Ok(vec![false; users.len()])).boxed();
        }
        self.call(|_place| AskWhoMutes { kind, users, _place }).boxed()
    }
}

impl MemoryStore {
    /// Keeps changes, then makes them. Answers with the number of effective ones.
    fn change(
        &mut self,
        mut changes: Vec<TableChange>,
        permit: OwnedSemaphorePermit,
    ) -> ResponseActFuture<Self, Result<u64, GraphError>> {
        let Some(kept) = self.kept.clone() else {
            let count = self.apply(&changes);
            return Box::pin(actix::fut::ready(Ok(count)));
        };
        if self.in_flight.is_free_of(&changes) {
            changes.retain(|change| !self.tables.is_made(change));
        }
        if changes.is_empty() {
            return Box::pin(actix::fut::ready(Ok(0)));
        }
        self.in_flight.add(&changes);
        let made = kept.keep(&changes).into_actor(self).map(move |result, store, _| {
            store.in_flight.remove(&changes);
            let count = result.map(|()| store.apply(&changes));
            store.report_needed();
            store.answer_waiting();
            drop(permit);
            count
        });
        Box::pin(made)
    }

    fn apply(&mut self, changes: &[TableChange]) -> u64 {
        let effective = changes.iter().filter(|change| self.tables.apply(change));
        let count = effective.count() as u64;
        self.nobody_mutes.store(self.tables.mutes.is_empty(), Ordering::Release);
        count
    }

    fn report_needed(&self) {
        if let Some(kept) = &self.kept {
            kept.set_needed_bytes(self.tables.needed_bytes());
        }
    }

    fn answer_waiting(&mut self) {
        if let Some(asked) = self.waiting.take_if(|asked| self.in_flight.is_free_of(&asked.changes))
        {
            let needed = asked.changes.iter().map(|change| self.tables.needs(change)).collect();
            (asked.answer)(needed);
        }
    }
}

impl Handler<ChangeEdges> for MemoryStore {
    type Result = ResponseActFuture<Self, Result<u64, GraphError>>;

    fn handle(&mut self, message: ChangeEdges, _: &mut Self::Context) -> Self::Result {
        let ChangeEdges { edges, change, _place } = message;
        let change = match change {
            EdgeOperation::Add => TableChange::Follow,
            EdgeOperation::Remove => TableChange::Unfollow,
        };
        self.change(edges.into_iter().map(change).collect(), _place)
    }
}

impl Handler<AskNeeded> for MemoryStore {
    type Result = ();

    fn handle(&mut self, message: AskNeeded, _: &mut Self::Context) {
        self.waiting = Some(message);
        self.answer_waiting();
    }
}

impl Handler<ReadPage> for MemoryStore {
    type Result = Result<Page, GraphError>;

    fn handle(&mut self, message: ReadPage, _: &mut Self::Context) -> Self::Result {
        let ReadPage { user, direction, after, limit, .. } = message;
        self.tables.graph.page(&user, direction, after.as_deref(), limit)
    }
}

impl Handler<CountEdges> for MemoryStore {
    type Result = MessageResult<CountEdges>;

    fn handle(&mut self, message: CountEdges, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.tables.graph.counts(&message.user))
    }
}

impl Handler<ReadMuted> for MemoryStore {
    type Result = MessageResult<ReadMuted>;

    fn handle(&mut self, message: ReadMuted, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.tables.mutes.of(&message.user))
    }
}

impl Handler<SetMuted> for MemoryStore {
    type Result = ResponseActFuture<Self, Result<u64, GraphError>>;

    fn handle(&mut self, message: SetMuted, _: &mut Self::Context) -> Self::Result {
        let SetMuted { user, mut kinds, _place } = message;
        // The order of the stored kinds.
        kinds.sort_unstable();
        kinds.dedup();
        self.change(vec![TableChange::Mute { user, kinds }], _place)
    }
}

impl Handler<AskWhoMutes> for MemoryStore {
    type Result = MessageResult<AskWhoMutes>;

    fn handle(&mut self, message: AskWhoMutes, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.tables.mutes.who(&message.kind, &message.users))
    }
}

#[cfg(test)]
mod tests;
