//! The seam between the store in memory and the log on disk: each change is kept before it is made.

use std::collections::HashMap;

use fanfare_core::{
    follow::{Follow, GraphError},
    user::User,
};
use futures_util::future::BoxFuture;

/// One change of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TableChange {
    Follow(Follow),
    Unfollow(Follow),
    /// All muted kinds of a user.
    Mute {
        user: User,
        kinds: Vec<String>,
    },
}

impl TableChange {
    /// The changed thing: changes of different things may come in any order.
    pub(super) fn subject(&self) -> Subject {
        match self {
            Self::Follow(edge) | Self::Unfollow(edge) => Subject::Edge(edge.clone()),
            Self::Mute { user, .. } => Subject::Mutes(user.clone()),
        }
    }
}

/// An edge, or the mutes of a user.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Subject {
    Edge(Follow),
    Mutes(User),
}

/// Gets the answer of [`MemoryFollows::ask_needed`](super::MemoryFollows::ask_needed) in the turn of
/// the store, before any later change is kept.
pub(crate) type AnswerNeeded = Box<dyn FnOnce(Vec<bool>) + Send>;

/// Keeps changes on disk.
pub(crate) trait KeepChanges: Send + Sync {
    /// Sets about the bytes of all changes needed to restore the store.
    fn set_needed_bytes(&self, bytes: u64);

    /// Resolves once all changes are kept.
    ///
    /// # Errors
    /// None of them is kept; after [`GraphError::LogFailed`], some may be.
    fn keep(&self, changes: &[TableChange]) -> BoxFuture<'static, Result<(), GraphError>>;
}

/// Subjects with a change on its way to the disk.
#[derive(Default)]
pub(super) struct InFlight(HashMap<Subject, usize>);

impl InFlight {
    pub fn add(&mut self, changes: &[TableChange]) {
        for change in changes {
            *self.0.entry(change.subject()).or_default() += 1;
        }
    }

    pub fn remove(&mut self, changes: &[TableChange]) {
        for change in changes {
            let subject = change.subject();
            if let Some(count) = self.0.get_mut(&subject) {
                *count -= 1;
                if *count == 0 {
                    self.0.remove(&subject);
                }
            }
        }
    }

    pub fn is_free_of(&self, changes: &[TableChange]) -> bool {
        self.0.is_empty() || !changes.iter().any(|change| self.0.contains_key(&change.subject()))
    }
}
