//! The events expected by a client: from its list and the list's changes in flight, or, for a feed,
//! from the follow graph.

use std::collections::BTreeSet;

use fanfare_core::{cursor::Cursor, topic::Topic, topic_manager::Ticket};

use super::{graph::ModelGraph, settings::PARTITIONS};

/// The expected delivery of an event to a client. A change in flight makes it uncertain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// The client gets the event, or a gap excuses it.
    Must,
    May,
    /// The client never gets the event.
    Not,
}

impl Due {
    /// From the possible states of a subscription: whether all of them, or any, want the event.
    pub fn of(all: bool, any: bool) -> Self {
        match (all, any) {
            (true, _) => Self::Must,
            (false, true) => Self::May,
            (false, false) => Self::Not,
        }
    }

    /// For two conditions, both necessary.
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

/// An unacknowledged change of the list.
#[derive(Debug)]
pub struct AskedChange {
    pub ticket: Ticket,
    pub add: Vec<&'static str>,
    pub remove: Vec<&'static str>,
}

impl AskedChange {
    /// The list after the change; unchanged if it would become too long.
    fn apply(&self, list: &List, max_names: usize) -> List {
        let left = list.iter().filter(|one| !self.remove.contains(one));
        let changed: List = left.chain(&self.add).copied().collect();
        if changed.len() > max_names { list.clone() } else { changed }
    }
}

/// A client's subscription as known to the client.
#[derive(Debug)]
pub enum Expectation {
    List {
        /// The acknowledged list. The client connects with it.
        list: List,
        /// The list of the client's first connect.
        first: List,
        /// Topics of an earlier stream the client will add again. Its ids keep their positions.
        owed: List,
        asked: Vec<AskedChange>,
        max_names: usize,
    },
    Feed {
        user: usize,
    },
}

impl Expectation {
    pub fn of(list: List, max_names: usize) -> Self {
        Self::List { first: list.clone(), list, owed: List::new(), asked: Vec::new(), max_names }
    }

    /// Whether the client wants a topic, under every outcome of the changes in flight.
    pub fn topic(&self, graph: &ModelGraph, topic: &str) -> Due {
        match self {
            Self::List { list, owed, asked, max_names, .. } => {
                let list: List = list.union(owed).copied().collect();
                let (mut all, mut any) = (covers(&list, topic), covers(&list, topic));
                let mut state: Option<List> = None;
                for asked in asked {
                    let next = asked.apply(state.as_ref().unwrap_or(&list), *max_names);
                    all &= covers(&next, topic);
                    any |= covers(&next, topic);
                    state = Some(next);
                }
                Due::of(all, any)
            }
            Self::Feed { user } => graph.wants_topic(*user, topic),
        }
    }

    /// Whether the client's user leaves a type unmuted. Always true for a list.
    pub fn kind(&self, graph: &ModelGraph, event_type: Option<&str>) -> Due {
        match self {
            Self::List { .. } => Due::Must,
            Self::Feed { user } => graph.wants_kind(*user, event_type),
        }
    }

    /// The user of a feed.
    pub fn feed_of(&self) -> Option<usize> {
        match self {
            Self::List { .. } => None,
            Self::Feed { user } => Some(*user),
        }
    }

    /// Applies an acknowledged change to the list.
    pub fn acknowledge(&mut self, ticket: Ticket) -> Option<&List> {
        let Self::List { list, owed, asked, max_names, .. } = self else { return None };
        let place = asked.iter().position(|asked| asked.ticket == ticket)?;
        *list = asked.remove(place).apply(list, *max_names);
        owed.retain(|topic| !list.contains(topic));
        Some(list)
    }

    /// Whether the client will add topics again.
    pub fn owes(&self) -> bool {
        matches!(self, Self::List { owed, .. } if !owed.is_empty())
    }

    /// The client returns with the list of its first connect, and will add the other topics again:
    /// those in a partition of their own, named by its id, as far as the limit allows. Returns their
    /// number.
    pub fn return_to_first(&mut self, last_id: &str) -> usize {
        let Self::List { list, first, owed, max_names, .. } = self else { return 0 };
        let parsed = |name: &str| Topic::parse(name).ok().map(|topic| topic.partition(PARTITIONS));
        let attached: BTreeSet<Option<u16>> = first.iter().map(|name| parsed(name)).collect();
        let Ok(cursor) = last_id.parse::<Cursor>() else { return 0 };
        let left: Vec<&'static str> = list.union(owed).copied().collect();
        let is_owed = |name: &&str| {
            let partition = parsed(name);
            let is_named = partition.is_some_and(|number| cursor.positions.get(number).is_some());
            // A pattern is in every partition.
            is_named && !attached.contains(&partition) && !attached.contains(&None)
        };
        let room = max_names.saturating_sub(first.len());
        *owed = left.into_iter().filter(is_owed).take(room).collect();
        list.clone_from(first);
        owed.len()
    }

    /// Drops a change without effect, or with an unknown outcome.
    pub fn forget(&mut self, ticket: Ticket) {
        if let Self::List { asked, .. } = self {
            asked.retain(|asked| asked.ticket != ticket);
        }
    }

    /// Drops all changes: a new stream begins without any.
    pub fn forget_all(&mut self) {
        if let Self::List { asked, .. } = self {
            asked.clear();
        }
    }
}

/// Whether a list has the topic or a matching pattern.
pub fn covers(list: &List, topic: &str) -> bool {
    list.iter().any(|name| matches(name, topic))
}

/// A second, simple implementation of patterns: `*` is one segment, a last `**` one or more.
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
