//! The fan-out router: delivers an author's event to the followers, chunk by chunk, with one
//! message per partition and chunk.
//!
//! A fan-out reads its next chunk only after the partitions have answered for the last one. So an
//! author with many followers delays no other author, and takes no more memory.

use std::{collections::BTreeMap, panic::AssertUnwindSafe, sync::Arc};

use actix::{Actor, AsyncContext, Context, Handler, fut::wrap_future};
use fanfare_core::{
    error::{FanOutError, PublishError},
    event::Event,
    fan_out::{Chunk, FanOutPublish, FannedOut},
    publish::SharedEvent,
    topic::Topic,
    user::User,
};
use futures_util::{FutureExt, future::join_all};
use tokio::sync::{Semaphore, oneshot};

use super::{FanOutMode, FanOutReport, FanOutToFollowers};
use crate::{
    actors::partition::{FanOutEvent, RecordFanOutMode},
    config,
    follow::FeedReader,
    instances::Instances,
    lifecycle::Lifecycle,
    publisher::Publisher,
};

/// The parts of a hub needed by its router.
pub(crate) struct RouterHost {
    pub config: config::FanOut,
    pub feeds: Arc<FeedReader>,
    pub instances: Arc<Instances>,
    pub publisher: Arc<Publisher>,
    pub lifecycle: Arc<Lifecycle>,
}

pub(crate) struct FanOutRouter {
    host: Arc<RouterHost>,
    running: Arc<Semaphore>,
}

impl FanOutRouter {
    /// A router running `fanout.max_running` fan-outs at once; the others wait in order.
    pub fn new(host: RouterHost) -> Self {
        let running = Arc::new(Semaphore::new(host.config.max_running));
        Self { host: Arc::new(host), running }
    }
}

impl Actor for FanOutRouter {
    type Context = Context<Self>;
}

impl Handler<FanOutToFollowers> for FanOutRouter {
    type Result = ();

    fn handle(&mut self, message: FanOutToFollowers, ctx: &mut Self::Context) {
        let (host, running) = (self.host.clone(), self.running.clone());
        ctx.spawn(wrap_future(async move {
            let _turn = running.acquire().await;
            let FanOutToFollowers { author, event, mode, permit, answer } = message;
            // The application's store may panic: this must end this fan-out only.
            let report = AssertUnwindSafe(host.run(author, event, mode)).catch_unwind().await;
            let internal = |_| Err(FanOutError::Partly(Box::new(PublishError::Internal.into())));
            let report = report.unwrap_or_else(internal);
            drop(permit);
            // The caller may be gone: the answer is then dropped.
            let _ = answer.send(report);
        }));
    }
}

impl RouterHost {
    async fn run(
        &self,
        author: User,
        event: Event,
        mode: FanOutMode,
    ) -> Result<FanOutReport, FanOutError> {
        if self.lifecycle.is_draining() {
            return Err(PublishError::Draining.into());
        }
        match self.record_mode(&author, &event, mode).await? {
            FanOutMode::Pull => self.pull(author, event).await,
            FanOutMode::Push | FanOutMode::Auto => self.push(author, event).await,
        }
    }

    /// Publishes once, to a topic of the followers' feeds.
    async fn pull(&self, author: User, event: Event) -> Result<FanOutReport, FanOutError> {
        let kind = event.event_type.clone().unwrap_or_else(|| "message".to_owned());
        let posts = author.posts();
        // Count before the publish: without the graph, the fan-out is refused as a whole.
        let followers = Some(self.feeds.graph.counts(author).await?.followers);
        self.publisher.publish_to(posts.clone(), event).await?;
        // The event is published: an instance without an answer does not undo it.
        let users = self.instances.feed_users_everywhere(&posts, &kind).await.ok();
        let muted =
            users.as_ref().map(|users| users.values().filter(|muted| **muted).count() as u64);
        let online = users.zip(muted).map(|(users, muted)| users.len() as u64 - muted);
        Ok(FanOutReport { mode: FanOutMode::Pull, followers, online, muted })
    }

    /// Publishes to each follower's own topic.
    async fn push(&self, author: User, event: Event) -> Result<FanOutReport, FanOutError> {
        let (mut followers, mut online, mut muted) = (0, 0, 0);
        let kind = event.event_type.clone().unwrap_or_else(|| "message".to_owned());
        let id: Option<Arc<str>> = event.id.as_ref().map(|id| format!("{author} {id}").into());
        let mut fan_out = None;
        let (mut after, mut is_first) = (None, true);
        loop {
            let page = self.read_chunk(&author, after, &kind).await;
            let handed_over = match page {
                Ok((chunk, next)) => {
                    followers += chunk.follower_count() as u64;
                    muted += chunk.muted_count as u64;
                    // Encode the body once, for all followers. Their number is not known yet; the
                    // first chunk's is a lower bound.
                    let fan_out = fan_out.get_or_insert_with(|| {
                        let event = SharedEvent::new(event.clone(), chunk.follower_count());
                        Arc::new(FanOutPublish { id: id.clone(), event: Arc::new(event) })
                    });
                    self.hand_over(fan_out, chunk.topics, is_first).await.map(|one| (one, next))
                }
                Err(error) if is_first => return Err(error),
                Err(error) => Err(FanOutError::Partly(Box::new(error))),
            };
            let (online_here, next) = handed_over?;
            online += online_here;
            if next.is_none() {
                let (followers, online, muted) = (Some(followers), Some(online), Some(muted));
                return Ok(FanOutReport { mode: FanOutMode::Push, followers, online, muted });
            }
            (after, is_first) = (next, false);
        }
    }

    /// Reads a chunk of followers, and the start of the next one, if any.
    async fn read_chunk(
        &self,
        author: &User,
        after: Option<String>,
        kind: &str,
    ) -> Result<(Chunk, Option<String>), FanOutError> {
        let page = self.feeds.graph.followers(author.clone(), after, self.config.chunk).await?;
        let muted = self.feeds.preferences.who_mutes(kind.to_owned(), page.users.clone()).await?;
        Ok((Chunk::new(&page.users, &muted, self.publisher.partition_count()), page.next))
    }

    /// Hands a chunk to its partitions. Returns the number of online followers in it. The first
    /// chunk may be refused as a whole; later chunks wait without a limit.
    async fn hand_over(
        &self,
        fan_out: &Arc<FanOutPublish>,
        topics: BTreeMap<u16, Vec<Topic>>,
        is_first: bool,
    ) -> Result<u64, FanOutError> {
        let mut answers = Vec::new();
        // In the order of the partitions: no two fan-outs wait for each other's permits.
        for (partition, topics) in topics {
            // A refusal is clean only before the first hand-over. After it, followers may have the
            // event, and giving up would leave the others without it.
            let may_refuse = is_first && answers.is_empty();
            let permit =
                match self.publisher.fan_out_permits(partition, topics.len(), may_refuse).await {
                    Ok(permit) => Some(permit),
                    Err(error) if may_refuse => return Err(error.into()),
                    Err(error) => return Err(FanOutError::Partly(Box::new(error.into()))),
                };
            let (answer, answered) = oneshot::channel();
            let fan_out = fan_out.clone();
            // The permits bound the mailbox.
            let addr = self.publisher.partition(partition);
            addr.do_send(FanOutEvent { fan_out, topics, permit, answer });
            answers.push(async { answered.await.unwrap_or(Err(PublishError::Unconfirmed)) });
        }
        let answers = join_all(answers).await;
        let was_taken = |answer: &Result<FannedOut, PublishError>| match answer {
            Ok(_) => true,
            Err(PublishError::Unconfirmed | PublishError::LogFailed | PublishError::Internal) => {
                true
            }
            Err(_) => false,
        };
        // The caller must know: repeat a partial fan-out with its id, or any fan-out after a clean
        // refusal.
        let may_be_partly = !is_first || answers.iter().any(was_taken);
        let fanned_out: Result<Vec<FannedOut>, PublishError> = answers.into_iter().collect();
        match fanned_out {
            Ok(fanned_out) => Ok(fanned_out.iter().map(|one| one.online as u64).sum()),
            Err(error) if may_be_partly => Err(FanOutError::Partly(Box::new(error.into()))),
            Err(error) => Err(error.into()),
        }
    }

    /// The mode of this fan-out. A repeated fan-out (same author and id) keeps its first mode:
    /// `auto` could otherwise change with the followers, and deliver the event a second time.
    async fn record_mode(
        &self,
        author: &User,
        event: &Event,
        mode: FanOutMode,
    ) -> Result<FanOutMode, FanOutError> {
        let mode = match mode {
            FanOutMode::Auto => {
                let counts = self.feeds.graph.counts(author.clone()).await?;
                let is_many = counts.followers > self.config.pull_above as u64;
                if is_many { FanOutMode::Pull } else { FanOutMode::Push }
            }
            mode => mode,
        };
        let Some(id) = &event.id else { return Ok(mode) };
        let (posts, name) = (author.posts(), format!("{author} {id}"));
        let addr = self.publisher.partition(posts.partition(self.publisher.partition_count()));
        let (publisher, is_pull) = (event.publisher, mode == FanOutMode::Pull);
        let record = RecordFanOutMode { posts, name, publisher, is_pull };
        let recorded = addr.send(record).await.unwrap_or(Err(PublishError::Draining));
        Ok(if recorded? { FanOutMode::Pull } else { FanOutMode::Push })
    }
}
