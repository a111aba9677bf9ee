//! Changing edges. An edge is in two sets, maybe on two nodes: they never change together, and
//! others may change the same edge in between.
//!
//! The author's set of followers is authoritative and changes first. Then the follower's own set is
//! made equal, and the author's set is read again. If it differs by now, the follower's set changes
//! again, until both agree. So the last writer of a follower's set has verified it afterwards, or
//! writes again.

use std::collections::HashMap;

use fanfare_core::{
    follow::{Direction, Follow, GraphError},
    user::User,
};
use redis::{FromRedisValue, Value};

use crate::follow::{
    FollowCall, RedisFollows, broken, keys::shard, nodes::CallFailure, not_changed, scripts::Script,
};

/// Edges changed together.
const MAX_EDGES: usize = 1024;

/// Names in one call: Redis is busy with them for a millisecond at most.
const MAX_NAMES: usize = 256;

/// How often others may change the same edges while they are changed here.
const MAX_ROUNDS: usize = 16;

/// An operation on edges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EdgeChange {
    Add,
    Remove,
}

impl EdgeChange {
    fn word(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Remove => "remove",
        }
    }

    fn opposite(self) -> Self {
        match self {
            Self::Add => Self::Remove,
            Self::Remove => Self::Add,
        }
    }
}

impl RedisFollows {
    /// Changes edges; how many were otherwise.
    pub(super) async fn change(
        &self,
        mut edges: Vec<Follow>,
        change: EdgeChange,
    ) -> Result<u64, GraphError> {
        let mut count = 0;
        for (index, edges) in edges.chunks_mut(MAX_EDGES).enumerate() {
            edges.sort_unstable();
            let mut edges: Vec<&Follow> = edges.iter().collect();
            edges.dedup();
            let changed = self.change_some(&edges, change).await;
            count += changed.map_err(|error| match error {
                // The earlier edges are stored.
                GraphError::BridgeDown if index > 0 => GraphError::Unconfirmed,
                error => error,
            })?;
        }
        Ok(count)
    }

    async fn change_some(&self, edges: &[&Follow], change: EdgeChange) -> Result<u64, GraphError> {
        let _place = self.nodes.place().await.map_err(not_changed)?;
        let changed = self.in_sets(edges, Direction::Followers, change.word()).await;
        let changed = changed.map_err(not_changed)?;
        self.agree(edges, change).await.map_err(|failure| match failure {
            CallFailure::Away | CallFailure::Lost => GraphError::Unconfirmed,
            CallFailure::Broken(error) => broken(error),
        })?;
        Ok(changed.into_iter().filter(|is_changed| *is_changed).count() as u64)
    }

    /// Has the followers' own sets agree with those of the authors.
    async fn agree(&self, edges: &[&Follow], change: EdgeChange) -> Result<(), CallFailure> {
        let (mut edges, mut change) = (edges.to_vec(), change);
        for _ in 0..MAX_ROUNDS {
            self.in_sets(&edges, Direction::Following, change.word()).await?;
            let holds = self.in_sets(&edges, Direction::Followers, "has").await?;
            let mut holds = holds.into_iter();
            edges.retain(|_| holds.next() != Some(change == EdgeChange::Add));
            if edges.is_empty() {
                return Ok(());
            }
            change = change.opposite();
        }
        Err(CallFailure::Lost)
    }

    /// Calls the script for each edge's set in one direction; its answers, by edge.
    async fn in_sets(
        &self,
        edges: &[&Follow],
        direction: Direction,
        word: &str,
    ) -> Result<Vec<bool>, CallFailure> {
        let calls = self.group(edges, direction);
        let made: Vec<FollowCall> =
            calls.iter().map(|parts| self.sets_call(parts, edges, direction, word)).collect();
        let answers = self.nodes.call(&made).await?;
        let mut by_edge = vec![false; edges.len()];
        for (parts, answer) in calls.iter().zip(answers) {
            let indexes = parts.iter().flat_map(|part| &part.edges);
            for (index, is_so) in indexes.zip(booleans(answer)?) {
                by_edge[*index] = is_so;
            }
        }
        Ok(by_edge)
    }

    /// Groups edges by set, and sets into as few calls as possible.
    fn group<'a>(&self, edges: &[&'a Follow], direction: Direction) -> Vec<Vec<Part<'a>>> {
        let mut sets: HashMap<&User, Vec<usize>> = HashMap::new();
        for (index, edge) in edges.iter().enumerate() {
            sets.entry(ends(edge, direction).0).or_default().push(index);
        }
        let mut calls: Vec<Vec<Part<'a>>> = Vec::new();
        // By shard, the call with room.
        let mut open: HashMap<u16, (usize, usize)> = HashMap::new();
        for (owner, indexes) in sets {
            let together = if self.is_cluster { shard(owner) } else { 0 };
            for part in indexes.chunks(MAX_NAMES) {
                let (call, names) = open.entry(together).or_insert((calls.len(), 0));
                if *names + part.len() > MAX_NAMES {
                    (*call, *names) = (calls.len(), 0);
                }
                if *call == calls.len() {
                    calls.push(Vec::new());
                }
                *names += part.len();
                calls[*call].push(Part { owner, edges: part.to_vec() });
            }
        }
        calls
    }

    fn sets_call(
        &self,
        parts: &[Part<'_>],
        edges: &[&Follow],
        direction: Direction,
        word: &str,
    ) -> FollowCall {
        let keys: Vec<String> =
            parts.iter().flat_map(|part| self.keys.set(part.owner, direction)).collect();
        let counts: Vec<String> = parts.iter().map(|part| part.edges.len().to_string()).collect();
        let mut words = vec![word];
        for (part, count) in parts.iter().zip(&counts) {
            words.push(count);
            let names = part.edges.iter().map(|index| ends(edges[*index], direction).1.as_str());
            words.extend(names);
        }
        let any = parts.first().map_or(0, |part| shard(part.owner));
        FollowCall::script(any, Script::Set, &keys, &words)
    }
}

/// Edges of one set, by their indexes.
struct Part<'a> {
    owner: &'a User,
    edges: Vec<usize>,
}

/// The owner of the set, and the name in it.
fn ends(edge: &Follow, direction: Direction) -> (&User, &User) {
    match direction {
        Direction::Followers => (&edge.author, &edge.follower),
        Direction::Following => (&edge.follower, &edge.author),
    }
}

fn booleans(answer: Value) -> Result<Vec<bool>, CallFailure> {
    Vec::from_redis_value(answer).map_err(|error| CallFailure::Broken(error.into()))
}
