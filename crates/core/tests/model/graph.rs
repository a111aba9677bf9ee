//! The follow graph and the muted kinds, with their unacknowledged changes.

use std::collections::BTreeSet;

use fanfare_core::topic_manager::Ticket;

use super::expectation::Due;

pub const USERS: [&str; 2] = ["u", "v"];
pub const AUTHORS: [&str; 3] = ["a", "b", "c"];
pub const POSTS: [&str; 3] = ["posts:a", "posts:b", "posts:c"];
pub const NOTIFICATIONS: [&str; 2] = ["notifications:u", "notifications:v"];

/// The change made by a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    Follow { author: usize, is_followed: bool },
    Mute { before: BTreeSet<&'static str>, now: BTreeSet<&'static str> },
}

/// A change stored in the graph, on its way to the open streams.
#[derive(Debug)]
pub struct GraphCall {
    pub number: usize,
    pub user: usize,
    pub what: What,
    /// Managers without the change. With the model Redis, one call goes to all of them.
    pub untold: Vec<usize>,
    /// With the model Redis: the called instances without the change, each with the generation of
    /// the called connection.
    pub on_the_way: Vec<(usize, u64)>,
    /// Unanswered tickets, one per changed stream.
    pub tickets: BTreeSet<Ticket>,
}

impl GraphCall {
    pub fn is_done(&self) -> bool {
        self.untold.is_empty() && self.on_the_way.is_empty() && self.tickets.is_empty()
    }

    /// The topic of the affected events. The call travels on the link of this topic's partition.
    pub fn topic(&self) -> &'static str {
        match &self.what {
            What::Follow { author, .. } => POSTS[*author],
            What::Mute { .. } => NOTIFICATIONS[self.user],
        }
    }
}

#[derive(Debug, Default)]
pub struct ModelGraph {
    /// User and author.
    edges: BTreeSet<(usize, usize)>,
    muted: [BTreeSet<&'static str>; USERS.len()],
    pub calls: Vec<GraphCall>,
    last_call: usize,
}

impl ModelGraph {
    /// Adds an edge before the schedule begins, without a call.
    pub fn follow(&mut self, user: usize, author: usize) {
        self.edges.insert((user, author));
    }

    pub fn follows(&self, user: usize, author: usize) -> bool {
        self.edges.contains(&(user, author))
    }

    pub fn muted(&self, user: usize) -> &BTreeSet<&'static str> {
        &self.muted[user]
    }

    /// Whether a change of this user and author (without author: of the muted kinds) is in flight.
    pub fn is_busy(&self, user: usize, author: Option<usize>) -> bool {
        self.calls.iter().any(|call| {
            let same = match &call.what {
                What::Follow { author: other, .. } => author == Some(*other),
                What::Mute { .. } => author.is_none(),
            };
            call.user == user && same
        })
    }

    /// Stores a change. Its call reaches the streams later.
    pub fn take(&mut self, user: usize, what: What, managers: Vec<usize>) {
        match &what {
            What::Follow { author, is_followed: true } => {
                self.edges.insert((user, *author));
            }
            What::Follow { author, is_followed: false } => {
                self.edges.remove(&(user, *author));
            }
            What::Mute { now, .. } => self.muted[user] = now.clone(),
        }
        self.last_call += 1;
        self.calls.push(GraphCall {
            number: self.last_call,
            user,
            what,
            untold: managers,
            on_the_way: Vec::new(),
            tickets: BTreeSet::new(),
        });
    }

    pub fn wants_topic(&self, user: usize, topic: &str) -> Due {
        if topic == NOTIFICATIONS[user] {
            return Due::Must;
        }
        let Some(author) = POSTS.iter().position(|posts| *posts == topic) else { return Due::Not };
        match self.is_busy(user, Some(author)) {
            true => Due::May,
            false => Due::of(self.follows(user, author), false),
        }
    }

    pub fn wants_kind(&self, user: usize, event_type: Option<&str>) -> Due {
        let kind = event_type.unwrap_or("message");
        let is_heard = |muted: &BTreeSet<&str>| !muted.contains(kind);
        let now = is_heard(&self.muted[user]);
        let before = self.calls.iter().find_map(|call| match &call.what {
            What::Mute { before, .. } if call.user == user => Some(is_heard(before)),
            _ => None,
        });
        let before = before.unwrap_or(now);
        Due::of(now && before, now || before)
    }
}
