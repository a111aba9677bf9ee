//! Changes of edges. An edge is in two sets, maybe on two nodes. The two never change atomically,
//! and another caller may change the same edge in between.
//!
//! The author's set of followers is authoritative:
//! 1. change the author's set,
//! 2. change the follower's own set in the same way,
//! 3. read the author's set again: if it differs, change the follower's set again and repeat.
//!
//! So the last writer of a follower's set has verified it afterwards, or writes again.

use std::collections::HashMap;

use fanfare_core::{
    follow::{Direction, Follow, GraphError},
    user::User,
};
use redis::{FromRedisValue, Value};

use crate::follow::{
    FollowCall, RedisFollows, broken, keys::shard, nodes::CallFailure, not_changed, scripts::Script,
};

/// Edges changed together, by one caller's permit.
const MAX_EDGES: usize = 1024;

/// Names in one script call: they keep Redis busy for a millisecond at most.
const MAX_NAMES: usize = 256;

/// Rounds of one change. Each further round means a concurrent change of the same edges.
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
    /// Changes edges, in any order. Returns the number of edges not yet in the wanted state.
    ///
    /// # Errors
    /// [`GraphError::BridgeDown`] if no edge has changed, [`GraphError::Unconfirmed`] if some may
    /// have.
    pub(super) async fn change(
        &self,
        mut edges: Vec<Follow>,
        change: EdgeChange,
    ) -> Result<u64, GraphError> {
        let mut count = 0;
        for (index, edges) in edges.chunks_mut(MAX_EDGES).enumerate() {
            // The script answers per name. A repeated edge would count twice, so it goes first.
            edges.sort_unstable();
            let mut edges: Vec<&Follow> = edges.iter().collect();
            edges.dedup();
            let changed = self.change_some(&edges, change).await;
            count += changed.map_err(|error| match error {
                // The earlier edges are stored, so this error must not read "nothing changed".
                GraphError::BridgeDown if index > 0 => GraphError::Unconfirmed,
                error => error,
            })?;
        }
        Ok(count)
    }

    /// Changes the authors' sets, then makes the followers' own sets agree.
    async fn change_some(&self, edges: &[&Follow], change: EdgeChange) -> Result<u64, GraphError> {
        let _place = self.nodes.place().await.map_err(not_changed)?;
        let changed = self.in_sets(edges, Direction::Followers, change.word()).await;
        let changed = changed.map_err(not_changed)?;
        // From here on the authors' sets are changed: no failure may report an unchanged graph.
        self.agree(edges, change).await.map_err(|failure| match failure {
            CallFailure::Away | CallFailure::Lost => GraphError::Unconfirmed,
            CallFailure::Broken(error) => broken(error),
        })?;
        Ok(changed.into_iter().filter(|is_changed| *is_changed).count() as u64)
    }

    /// Makes the followers' own sets agree with the authors' sets.
    async fn agree(&self, edges: &[&Follow], change: EdgeChange) -> Result<(), CallFailure> {
        let (mut edges, mut change) = (edges.to_vec(), change);
        for _ in 0..MAX_ROUNDS {
            self.in_sets(&edges, Direction::Following, change.word()).await?;
            let holds = self.in_sets(&edges, Direction::Followers, "has").await?;
            // Keep only the edges changed meanwhile. Their authors' sets have the opposite state,
            // so the next round applies the opposite change.
            let mut holds = holds.into_iter();
            edges.retain(|_| holds.next() != Some(change == EdgeChange::Add));
            if edges.is_empty() {
                return Ok(());
            }
            change = change.opposite();
        }
        Err(CallFailure::Lost)
    }

    /// Calls the script for each edge's set in one direction. Returns its answers in the order of
    /// the edges.
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

    /// Groups edges by set, and sets by call. In a Redis Cluster, the sets of one call are in one
    /// shard. A call has up to `MAX_NAMES` names; a larger set has several calls.
    fn group<'a>(&self, edges: &[&'a Follow], direction: Direction) -> Vec<Vec<Part<'a>>> {
        let mut sets: HashMap<&User, Vec<usize>> = HashMap::new();
        for (index, edge) in edges.iter().enumerate() {
            sets.entry(ends(edge, direction).0).or_default().push(index);
        }
        let mut calls: Vec<Vec<Part<'a>>> = Vec::new();
        // For each shard: the call with room, and its number of names.
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

/// Edges of one set in one call, by their indexes.
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
