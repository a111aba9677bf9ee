//! What a client wants, as far as anybody can tell: its list and the changes of it that are
//! under way; or, of a feed, whom its user follows.

use std::collections::BTreeSet;

use fanfare_core::topic_manager::Ticket;

use super::graph::ModelGraph;

/// What is promised of an event, or how sure it is that a client wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// It is told, or excused.
    Must,
    May,
    /// It is never told.
    Not,
}

impl Due {
    /// What is known if `all` or `any` of the possible states want something.
    pub fn of(all: bool, any: bool) -> Self {
        match (all, any) {
            (true, _) => Self::Must,
            (false, true) => Self::May,
            (false, false) => Self::Not,
        }
    }

    /// Of two things that must both be wanted.
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Not, _) | (_, Self::Not) => Self::Not,
            (Self::Must, Self::Must) => Self::Must,
            _ => Self::May,
        }
    }
}

/// Topics and patterns.
pub type List = BTreeSet<&'static str>;

/// A change of the list that is not acknowledged.
#[derive(Debug)]
pub struct AskedChange {
    pub ticket: Ticket,
    pub add: Vec<&'static str>,
    pub remove: Vec<&'static str>,
}

impl AskedChange {
    /// The list then: the same if it would be too long.
    fn apply(&self, list: &List, max_names: usize) -> List {
        let left = list.iter().filter(|one| !self.remove.contains(one));
        let changed: List = left.chain(&self.add).copied().collect();
        if changed.len() > max_names { list.clone() } else { changed }
    }
}

/// What a client wants.
#[derive(Debug)]
pub enum Expectation {
    List {
        /// As acknowledged: what the client connects with.
        list: List,
        asked: Vec<AskedChange>,
        max_names: usize,
    },
    /// The feed of a user.
    Feed { user: usize },
}

impl Expectation {
    pub fn of(list: List, max_names: usize) -> Self {
        Self::List { list, asked: Vec::new(), max_names }
    }

    /// Whether the client wants a topic: whatever has become of the changes under way.
    pub fn topic(&self, graph: &ModelGraph, topic: &str) -> Due {
        match self {
            Self::List { list, asked, max_names } => {
                let (mut all, mut any) = (covers(list, topic), covers(list, topic));
                let mut state: Option<List> = None;
                for asked in asked {
                    let next = asked.apply(state.as_ref().unwrap_or(list), *max_names);
                    all &= covers(&next, topic);
                    any |= covers(&next, topic);
                    state = Some(next);
                }
                Due::of(all, any)
            }
            Self::Feed { user } => graph.wants_topic(*user, topic),
        }
    }

    /// Whether its user has not muted a type.
    pub fn kind(&self, graph: &ModelGraph, event_type: Option<&str>) -> Due {
        match self {
            Self::List { .. } => Due::Must,
            Self::Feed { user } => graph.wants_kind(*user, event_type),
        }
    }

    /// Whose feed it is.
    pub fn feed_of(&self) -> Option<usize> {
        match self {
            Self::List { .. } => None,
            Self::Feed { user } => Some(*user),
        }
    }

    /// A change is acknowledged: the list follows.
    pub fn acknowledge(&mut self, ticket: Ticket) -> Option<&List> {
        let Self::List { list, asked, max_names } = self else { return None };
        let place = asked.iter().position(|asked| asked.ticket == ticket)?;
        *list = asked.remove(place).apply(list, *max_names);
        Some(list)
    }

    /// A change has come to nothing, or nobody can tell.
    pub fn forget(&mut self, ticket: Ticket) {
        if let Self::List { asked, .. } = self {
            asked.retain(|asked| asked.ticket != ticket);
        }
    }

    /// Nothing is asked of the stream that opens.
    pub fn forget_all(&mut self) {
        if let Self::List { asked, .. } = self {
            asked.clear();
        }
    }
}

/// Whether a list has a topic, or a pattern that matches it.
pub fn covers(list: &List, topic: &str) -> bool {
    list.iter().any(|name| matches(name, topic))
}

/// Patterns in a few lines: `*` is one segment, a last `**` one or more.
fn matches(name: &str, topic: &str) -> bool {
    let (mut names, mut segments) = (name.split(':'), topic.split(':'));
    loop {
        match (names.next(), segments.next()) {
            (None, None) => return true,
            (Some("**"), Some(_)) => return true,
            (Some(name), Some(segment)) if name == "*" || name == segment => {}
            _ => return false,
        }
    }
}
