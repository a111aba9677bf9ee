//! Who follows whom and has muted what, and which changes of it are not acknowledged.

use std::collections::BTreeSet;

use fanfare_core::topic_manager::Ticket;

use super::expectation::Due;

pub const USERS: [&str; 2] = ["u", "v"];
pub const AUTHORS: [&str; 3] = ["a", "b", "c"];
pub const POSTS: [&str; 3] = ["posts:a", "posts:b", "posts:c"];
pub const NOTIFICATIONS: [&str; 2] = ["notifications:u", "notifications:v"];

/// What a call changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    Follow { author: usize, is_followed: bool },
    Mute { before: BTreeSet<&'static str>, now: BTreeSet<&'static str> },
}

/// A change that the graph has taken and that streams are being told.
#[derive(Debug)]
pub struct GraphCall {
    pub number: usize,
    pub user: usize,
    pub what: What,
    /// Managers that have not heard of it; with ModelRedis they hear all at once.
    pub untold: Vec<usize>,
    /// With ModelRedis, instances that have not, and by which connection they are to.
    pub on_the_way: Vec<(usize, u64)>,
    /// What it waits for.
    pub tickets: BTreeSet<Ticket>,
}

impl GraphCall {
    pub fn is_done(&self) -> bool {
        self.untold.is_empty() && self.on_the_way.is_empty() && self.tickets.is_empty()
    }

    /// The topic whose partition's link tells of it: that of the events that it concerns.
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
    /// At the beginning.
    pub fn follow(&mut self, user: usize, author: usize) {
        self.edges.insert((user, author));
    }

    pub fn follows(&self, user: usize, author: usize) -> bool {
        self.edges.contains(&(user, author))
    }

    pub fn muted(&self, user: usize) -> &BTreeSet<&'static str> {
        &self.muted[user]
    }

    /// Whether something of the kind is under way already.
    pub fn is_busy(&self, user: usize, author: Option<usize>) -> bool {
        self.calls.iter().any(|call| {
            let same = match &call.what {
                What::Follow { author: other, .. } => author == Some(*other),
                What::Mute { .. } => author.is_none(),
            };
            call.user == user && same
        })
    }

    /// Takes a change; streams are told later.
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
