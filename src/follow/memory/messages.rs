//! The messages to the store in memory. Each holds one permit of the calls in flight.

use actix::Message;
use fanfare_core::{
    follow::{Counts, Direction, Follow, GraphError, Page},
    user::User,
};
use tokio::sync::OwnedSemaphorePermit;

use super::kept::{AnswerNeeded, TableChange};

/// An operation on edges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EdgeOperation {
    Add,
    Remove,
}

/// Adds or removes edges. Answers with the number of edges added or removed.
#[derive(Message)]
#[rtype(result = "Result<u64, GraphError>")]
pub(super) struct ChangeEdges {
    pub edges: Vec<Follow>,
    pub change: EdgeOperation,
    pub _place: OwnedSemaphorePermit,
}

/// Reads a page of a walk.
#[derive(Message)]
#[rtype(result = "Result<Page, GraphError>")]
pub(super) struct ReadPage {
    pub user: User,
    pub direction: Direction,
    pub after: Option<String>,
    pub limit: usize,
    pub _place: OwnedSemaphorePermit,
}

/// Counts a user's edges.
#[derive(Message)]
#[rtype(result = "Counts")]
pub(super) struct CountEdges {
    pub user: User,
    pub _place: OwnedSemaphorePermit,
}

/// Reads a user's muted kinds.
#[derive(Message)]
#[rtype(result = "Vec<String>")]
pub(super) struct ReadMuted {
    pub user: User,
    pub _place: OwnedSemaphorePermit,
}

/// Replaces a user's muted kinds.
#[derive(Message)]
#[rtype(result = "Result<u64, GraphError>")]
pub(super) struct SetMuted {
    pub user: User,
    pub kinds: Vec<String>,
    pub _place: OwnedSemaphorePermit,
}

/// Queries a kind for several users. Answers in their order: `true` for a user muting it.
#[derive(Message)]
#[rtype(result = "Vec<bool>")]
pub(super) struct AskWhoMutes {
    pub kind: String,
    pub users: Vec<User>,
    pub _place: OwnedSemaphorePermit,
}

/// Asks whether earlier changes are still needed to restore the store. The answer waits for changes
/// of the same things on their way to the disk.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct AskNeeded {
    pub changes: Vec<TableChange>,
    pub answer: AnswerNeeded,
}
