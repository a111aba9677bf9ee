//! Changing edges. Each is in two sets, which may be on two nodes, so there is no moment at
//! which both change, and others may change the same edge meanwhile.
//!
//! The author's followers are what holds: they are changed first. Then the follower's own set
//! is made the same, and the author's is read again. If it says otherwise by now, the
//! follower's is changed again, until both agree. So whoever writes a follower's set last has
//! seen after it that it is right, or writes again.

use std::collections::HashMap;

use redis::{FromRedisValue, Value};

use super::{Call, RedisFollows, broken, nodes::Failure, not_changed};
use crate::follow::{Direction, Follow, GraphError, User};

/// Edges that are changed together.
const MAX_EDGES: usize = 1024;

/// Names in one call: Redis is busy with them for half a millisecond.
const MAX_NAMES: usize = 256;

/// How often others may change the same edges while they are changed here.
const MAX_ROUNDS: usize = 16;

/// What becomes of edges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Add,
    Remove,
}

impl Change {
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
        change: Change,
    ) -> Result<u64, GraphError> {
        let mut count = 0;
        for (index, edges) in edges.chunks_mut(MAX_EDGES).enumerate() {
            edges.sort_unstable();
            let mut edges: Vec<&Follow> = edges.iter().collect();
            edges.dedup();
            let changed = self.change_some(&edges, change).await;
            count += changed.map_err(|error| match error {
                // What came before is there.
                GraphError::BridgeDown if index > 0 => GraphError::Unconfirmed,
                error => error,
            })?;
        }
        Ok(count)
    }

    async fn change_some(&self, edges: &[&Follow], change: Change) -> Result<u64, GraphError> {
        let _place = self.nodes.place().await.map_err(not_changed)?;
        let changed = self.in_sets(edges, Direction::Followers, change.word()).await;
        let changed = changed.map_err(not_changed)?;
        self.agree(edges, change).await.map_err(|failure| match failure {
            Failure::Away | Failure::Lost => GraphError::Unconfirmed,
            Failure::Broken(error) => broken(error),
        })?;
        Ok(changed.into_iter().filter(|is_changed| *is_changed).count() as u64)
    }

    /// Has the followers' own sets agree with those of the authors.
    async fn agree(&self, edges: &[&Follow], change: Change) -> Result<(), Failure> {
        let (mut edges, mut change) = (edges.to_vec(), change);
        for _ in 0..MAX_ROUNDS {
            self.in_sets(&edges, Direction::Following, change.word()).await?;
            let holds = self.in_sets(&edges, Direction::Followers, "has").await?;
            let mut holds = holds.into_iter();
            edges.retain(|_| holds.next() != Some(change == Change::Add));
            if edges.is_empty() {
                return Ok(());
            }
            change = change.opposite();
        }
        Err(Failure::Lost)
    }

    /// Calls the script for each edge's set in one direction; its answers, by edge.
    async fn in_sets(
        &self,
        edges: &[&Follow],
        direction: Direction,
        word: &str,
    ) -> Result<Vec<bool>, Failure> {
        let mut sets: HashMap<&User, Vec<usize>> = HashMap::new();
        for (index, edge) in edges.iter().enumerate() {
            let Follow { follower, author } = edge;
            let owner = if direction == Direction::Followers { author } else { follower };
            sets.entry(owner).or_default().push(index);
        }
        let parts: Vec<(&User, &[usize])> = sets
            .iter()
            .flat_map(|(owner, indexes)| indexes.chunks(MAX_NAMES).map(|part| (*owner, part)))
            .collect();
        let call = |(owner, indexes): &(&User, &[usize])| {
            let names = indexes.iter().map(|index| {
                let Follow { follower, author } = edges[*index];
                let name = if direction == Direction::Followers { follower } else { author };
                name.as_str()
            });
            let words: Vec<&str> = std::iter::once(word).chain(names).collect();
            self.set_call(owner, direction, &words)
        };
        let calls: Vec<Call> = parts.iter().map(call).collect();
        let answers = self.nodes.call(&calls).await?;
        let mut by_edge = vec![false; edges.len()];
        for ((_, indexes), answer) in parts.iter().zip(answers) {
            for (index, is_so) in indexes.iter().zip(booleans(answer)?) {
                by_edge[*index] = is_so;
            }
        }
        Ok(by_edge)
    }
}

fn booleans(answer: Value) -> Result<Vec<bool>, Failure> {
    Vec::from_redis_value(answer).map_err(|error| Failure::Broken(error.into()))
}
