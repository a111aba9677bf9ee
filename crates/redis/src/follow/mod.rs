//! Follow graph and preferences in Redis, shared by all instances.
//!
//! Bounds of the queues between callers, `Nodes` and the task of `Keeper`:
//! - callers: 32 at once; further callers wait, `redis.timeout` at most;
//! - reports of trouble to the keeper: 64; more would say nothing new;
//! - locations of the shards: the latest only.
//!
//! A user's two sets lie in one slot, in small keys (`set.lua`). An edge is in two sets, maybe
//! on two nodes. The author's set of followers is authoritative. `edges` makes the follower's own
//! set agree with it, even if other instances change the same edge.

mod edges;
mod keeper;
mod keys;
mod nodes;
mod revocations;
mod scripts;
mod tickets;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use fanfare_core::{
    follow::{Counts, Direction, Follow, FollowGraph, GraphError, GraphFuture, Page, Preferences},
    user::User,
};
use futures_util::FutureExt;
use redis::{FromRedisValue, Value, from_redis_value};

use crate::{
    follow::{
        edges::EdgeChange,
        keeper::Keeper,
        keys::{Keys, shard},
        nodes::{CallFailure, FollowCall, Nodes},
        scripts::Script,
    },
    target::Target,
};

/// Users in one page: they keep Redis busy for some hundred microseconds.
const MAX_PAGE_USERS: usize = 1024;

/// Follow graph and preferences. All clones share one keeper and its connections.
#[derive(Clone)]
pub struct RedisFollows {
    nodes: Arc<Nodes>,
    keys: Arc<Keys>,
    /// Whether the sets of one call must lie in one slot.
    is_cluster: bool,
}

impl RedisFollows {
    /// Starts the keeper's task on this thread, without waiting for Redis. A call before the first
    /// connection fails with [`GraphError::BridgeDown`]. `timeout` bounds an answer, `probe` is the
    /// time between two probes.
    pub fn start(target: Target, prefix: String, timeout: Duration, probe: Duration) -> Self {
        let is_cluster = target.is_cluster();
        let (keeper, topology, troubles) = Keeper::new(target, timeout, probe);
        actix::spawn(keeper.run());
        let nodes = Arc::new(Nodes::new(topology, troubles, timeout));
        Self { nodes, keys: Arc::new(Keys::new(prefix)), is_cluster }
    }

    fn set_call(&self, user: &User, direction: Direction, words: &[&str]) -> FollowCall {
        FollowCall::script(shard(user), Script::Set, &self.keys.set(user, direction), words)
    }

    async fn page(
        &self,
        user: User,
        direction: Direction,
        after: Option<String>,
        limit: usize,
    ) -> Result<Page, GraphError> {
        let after = after.map(|after| last_name(&after).ok_or(GraphError::BadPage)).transpose()?;
        let limit = limit.clamp(1, MAX_PAGE_USERS);
        // One user more than the page: the last one only shows the need for a next page.
        let (after, count) = (after.unwrap_or_default(), (limit + 1).to_string());
        let call = self.set_call(&user, direction, &["page", &after, &count]);
        let mut names: Vec<String> = self.read_one(call).await?;
        let is_last = names.len() <= limit;
        names.truncate(limit);
        let next = names.last().filter(|_| !is_last).map(|name| page_after(name));
        let users = names.iter().map(|name| User::parse(name).map_err(broken));
        Ok(Page { users: users.collect::<Result<_, _>>()?, next })
    }

    async fn counts(&self, user: User) -> Result<Counts, GraphError> {
        let directions = [Direction::Followers, Direction::Following];
        let calls = directions.map(|direction| self.set_call(&user, direction, &["count"]));
        let mut answers = self.read(&calls).await?.into_iter();
        Ok(Counts { followers: next(&mut answers)?, following: next(&mut answers)? })
    }

    async fn who_mutes(&self, kind: &str, users: &[User]) -> Result<Vec<bool>, GraphError> {
        let mut by_shard: BTreeMap<u16, Vec<usize>> = BTreeMap::new();
        for (index, user) in users.iter().enumerate() {
            by_shard.entry(shard(user)).or_default().push(index);
        }
        let calls: Vec<FollowCall> = by_shard
            .iter()
            .map(|(shard, indexes)| {
                let mut command = redis::cmd("SMISMEMBER");
                command.arg(self.keys.muting(*shard, kind));
                for index in indexes {
                    command.arg(users[*index].as_str());
                }
                FollowCall { shard: *shard, command }
            })
            .collect();
        let answers = self.read(&calls).await?;
        let mut muted = vec![false; users.len()];
        for (indexes, answer) in by_shard.values().zip(answers) {
            for (index, is_muted) in indexes.iter().zip(from_answer::<Vec<bool>>(answer)?) {
                muted[*index] = is_muted;
            }
        }
        Ok(muted)
    }

    /// Makes read-only calls. A read may be repeated after any failure, so every failure except an
    /// unexpected answer is `BridgeDown`.
    async fn read(&self, calls: &[FollowCall]) -> Result<Vec<Value>, GraphError> {
        let made = async {
            let _place = self.nodes.place().await?;
            self.nodes.call(calls).await
        };
        made.await.map_err(|failure| match failure {
            CallFailure::Away | CallFailure::Lost => GraphError::BridgeDown,
            CallFailure::Broken(error) => broken(error),
        })
    }

    async fn read_one<T: FromRedisValue>(&self, call: FollowCall) -> Result<T, GraphError> {
        next(&mut self.read(&[call]).await?.into_iter())
    }
}

impl FollowGraph for RedisFollows {
    fn follow(&self, edges: Vec<Follow>) -> GraphFuture<'_, u64> {
        self.change(edges, EdgeChange::Add).boxed()
    }

    fn unfollow(&self, edges: Vec<Follow>) -> GraphFuture<'_, u64> {
        self.change(edges, EdgeChange::Remove).boxed()
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
        self.counts(user).boxed()
    }
}

impl Preferences for RedisFollows {
    fn muted(&self, user: User) -> GraphFuture<'_, Vec<String>> {
        let mut command = redis::cmd("SMEMBERS");
        command.arg(self.keys.mutes(&user));
        let call = FollowCall { shard: shard(&user), command };
        async {
            let mut kinds: Vec<String> = self.read_one(call).await?;
            kinds.sort_unstable();
            Ok(kinds)
        }
        .boxed()
    }

    fn set_muted(&self, user: User, kinds: Vec<String>) -> GraphFuture<'_, ()> {
        let shard = shard(&user);
        let base = self.keys.muting(shard, "");
        let kinds = kinds.iter().map(String::as_str);
        let words: Vec<&str> = [base.as_str(), user.as_str()].into_iter().chain(kinds).collect();
        let call = FollowCall::script(shard, Script::Mute, &[self.keys.mutes(&user)], &words);
        async move {
            let made = async {
                let _place = self.nodes.place().await?;
                self.nodes.call(&[call]).await
            };
            made.await.map_err(not_changed)?;
            Ok(())
        }
        .boxed()
    }

    fn who_mutes(&self, kind: String, users: Vec<User>) -> GraphFuture<'_, Vec<bool>> {
        async move { self.who_mutes(&kind, &users).await }.boxed()
    }
}

/// The error of a failed first change: after `Away`, Redis has changed nothing.
fn not_changed(failure: CallFailure) -> GraphError {
    match failure {
        CallFailure::Away => GraphError::BridgeDown,
        CallFailure::Lost => GraphError::Unconfirmed,
        CallFailure::Broken(error) => broken(error),
    }
}

fn broken(error: impl std::error::Error + Send + Sync + 'static) -> GraphError {
    tracing::error!(%error, "followers: unexpected answer of Redis");
    GraphError::Unavailable(Box::new(error))
}

fn next<T: FromRedisValue>(answers: &mut impl Iterator<Item = Value>) -> Result<T, GraphError> {
    from_answer(answers.next().unwrap_or(Value::Nil))
}

fn from_answer<T: FromRedisValue>(answer: Value) -> Result<T, GraphError> {
    from_redis_value(answer).map_err(broken)
}

/// The position after this name, for the next page. In hexadecimal, so it fits into URLs.
fn page_after(name: &str) -> String {
    name.bytes().map(|byte| format!("{byte:02x}")).collect()
}

/// The name in a position of [`page_after`]. `None` if the position is invalid.
fn last_name(page: &str) -> Option<String> {
    let digits = page.as_bytes().chunks(2);
    let byte = |pair: &[u8]| {
        let digits = str::from_utf8(pair).ok().filter(|digits| digits.len() == 2)?;
        u8::from_str_radix(digits, 16).ok()
    };
    let name = String::from_utf8(digits.map(byte).collect::<Option<_>>()?).ok()?;
    User::parse(&name).is_ok().then_some(name)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_page_begins_after_a_name_or_nowhere() {
        for name in ["a", "{é}:用户", "x".repeat(242).as_str()] {
            let page = super::page_after(name);
            assert!(page.bytes().all(|byte| byte.is_ascii_hexdigit()), "{page}");
            assert_eq!(super::last_name(&page).as_deref(), Some(name));
        }
        for page in ["", "6", "616", "é", "+1", "ff", "20", "no"] {
            assert_eq!(super::last_name(page), None, "{page}");
        }
    }
}
