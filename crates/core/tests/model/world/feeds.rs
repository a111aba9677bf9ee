//! Feeds: they open after reading the follow graph page by page, and calls change them.

use std::collections::BTreeSet;

use fanfare_core::{
    access::Grant,
    subscription::{Change, FeedOf, ResolvedSubscription},
    topic::{Pattern, Topic},
    topic_manager::{ChangeOutcome, Ticket},
    user::User,
};
use rand::RngExt;

use super::{
    MANAGERS, PARTITIONS, World, any,
    changes::{Issued, IssuedChange},
};
use crate::graph::{AUTHORS, ModelGraph, NOTIFICATIONS, POSTS, USERS, What};

const KINDS: [&str; 3] = ["message", "x", "y"];

/// A feed's stream about to open.
pub(super) struct ExpectedSession {
    manager: usize,
    feed: FeedOf,
    page: GraphPage,
    muted: Option<BTreeSet<&'static str>>,
}

/// A feed in the middle of a reread.
pub(super) struct Reread {
    manager: usize,
    user: usize,
    page: GraphPage,
    muted: Option<BTreeSet<&'static str>>,
}

/// The topics read so far from a user's followed authors.
struct GraphPage {
    next_author: usize,
    topics: Vec<&'static str>,
}

impl GraphPage {
    /// Reads up to `count` further authors. False at the end.
    fn read(&mut self, graph: &ModelGraph, user: usize, count: usize) -> bool {
        let end = (self.next_author + count).min(AUTHORS.len());
        let authors = (self.next_author..end).filter(|author| graph.follows(user, *author));
        self.topics.extend(authors.map(|author| POSTS[author]));
        std::mem::replace(&mut self.next_author, end) < end
    }
}

fn user_named(user: usize) -> User {
    User::parse(USERS[user]).unwrap()
}

impl World {
    /// Takes one step to open a feed: expect it, read the authors, read the muted kinds, open it.
    pub(super) fn open_feed(&mut self, client: usize, user: usize) {
        let Some(mut expected) = self.expected[client].take() else {
            let manager = self.rng.random_range(0..MANAGERS);
            self.last_expected += 1;
            let feed = FeedOf { user: user_named(user), number: self.last_expected };
            self.managers[manager].state.expect_feed(&feed);
            let page = GraphPage { next_author: 0, topics: vec![NOTIFICATIONS[user]] };
            self.expected[client] = Some(ExpectedSession { manager, feed, page, muted: None });
            return;
        };
        let count = self.rng.random_range(1..3);
        if expected.page.read(&self.graph, user, count) {
            // Read the next page in a later step.
        } else if expected.muted.is_none() {
            expected.muted = Some(self.graph.muted(user).clone());
        } else {
            return self.open_expected(client, expected);
        }
        self.expected[client] = Some(expected);
    }

    fn open_expected(&mut self, client: usize, expected: ExpectedSession) {
        let ExpectedSession { manager, feed, page: GraphPage { topics, .. }, muted } = expected;
        let muted = muted.unwrap_or_default();
        let names = topics.iter().map(|topic| Topic::parse(topic).unwrap()).collect();
        let kinds = muted.iter().map(|kind| (*kind).to_owned()).collect();
        let (options, secret) = (self.options(client), self.rng.random());
        let limits = self.settings.limits();
        let wanted = ResolvedSubscription::feed(
            feed,
            names,
            kinds,
            options,
            limits,
            secret,
            &Grant::everything(),
        )
        .unwrap();
        self.open_stream(client, manager, wanted);
        self.totals.feeds += 1;
        self.promise_at_open(client, false, |record| {
            topics.contains(&record.topic)
                && !muted.contains(record.event_type.unwrap_or("message"))
        });
    }

    /// Starts the rereads requested by a manager.
    pub(super) fn take_rereads(&mut self, manager: usize) {
        while let Some(user) = self.managers[manager].state.next_to_reread() {
            let number = USERS.iter().position(|name| *name == user.as_str()).unwrap();
            let page = GraphPage { next_author: 0, topics: vec![NOTIFICATIONS[number]] };
            self.rereads.push(Reread { manager, user: number, page, muted: None });
        }
    }

    /// Takes one step of a reread. At its end, the graph is sometimes unavailable.
    pub(super) fn reread(&mut self) {
        if self.rereads.is_empty() {
            return;
        }
        let place = self.rng.random_range(0..self.rereads.len());
        let count = self.rng.random_range(1..3);
        let reread = &mut self.rereads[place];
        if reread.page.read(&self.graph, reread.user, count) {
            return;
        }
        if reread.muted.is_none() {
            reread.muted = Some(self.graph.muted(reread.user).clone());
            return;
        }
        let Reread { manager, user, page, muted } = self.rereads.swap_remove(place);
        let topics: Vec<Topic> =
            page.topics.iter().map(|topic| Topic::parse(topic).unwrap()).collect();
        let muted: Vec<String> = muted.into_iter().flatten().map(|kind| kind.to_owned()).collect();
        let read = self.rng.random_bool(0.95).then_some((&topics[..], &muted[..]));
        self.totals.rereads += 1;
        self.managers[manager].state.on_reread(&user_named(user), read, self.now);
    }

    /// A client disconnects before its feed has opened.
    pub(super) fn give_up(&mut self, client: usize) {
        if let Some(ExpectedSession { manager, feed, .. }) = self.expected[client].take() {
            self.managers[manager].state.forget_expected(&feed);
        }
    }

    /// A user follows or unfollows an author, or mutes other kinds.
    pub(super) fn change_graph(&mut self) {
        let user = self.rng.random_range(0..USERS.len());
        let author = self.rng.random_range(0..AUTHORS.len());
        let is_follow = self.rng.random_bool(0.75);
        if self.graph.is_busy(user, is_follow.then_some(author)) {
            return;
        }
        let what = match is_follow {
            true => What::Follow { author, is_followed: !self.graph.follows(user, author) },
            false => {
                let before = self.graph.muted(user).clone();
                let now = KINDS.into_iter().filter(|_| self.rng.random_bool(0.3)).collect();
                What::Mute { before, now }
            }
        };
        self.graph.take(user, what, (0..MANAGERS).collect());
        for client in self.clients_of(user) {
            self.revise(client);
        }
    }

    fn clients_of(&self, user: usize) -> Vec<usize> {
        let clients = self.clients.iter().enumerate();
        let its = clients.filter(|(_, client)| client.expectation.feed_of() == Some(user));
        its.map(|(number, _)| number).collect()
    }

    /// Passes a change of the graph to a manager.
    pub(super) fn tell_of_graph(&mut self) {
        self.repeat_calls();
        let calls = self.graph.calls.iter().enumerate();
        let untold = calls.filter(|(_, call)| !call.untold.is_empty());
        let untold: Vec<usize> = untold.map(|(place, _)| place).collect();
        if untold.is_empty() {
            return;
        }
        let place = any(&mut self.rng, &untold);
        if self.redis.is_some() {
            return self.tell_instances(place);
        }
        let call = &mut self.graph.calls[place];
        let manager = call.untold.swap_remove(self.rng.random_range(0..call.untold.len()));
        let number = call.number;
        self.tell_manager(number, manager);
    }

    /// Calls all connected instances. Any other instance rereads its feeds after its reconnect,
    /// before it gets an event published in between.
    fn tell_instances(&mut self, place: usize) {
        let Some(redis) = &mut self.redis else { return };
        let call = &mut self.graph.calls[place];
        let partition = Topic::parse(call.topic()).unwrap().partition(PARTITIONS);
        let log = &mut redis.partitions[usize::from(partition)];
        let own = self.rng.random_range(0..MANAGERS);
        // Muted kinds concern all partitions. The model does not cover such a call with some of an
        // instance's links down, so it waits for this link on every instance.
        let is_mute = matches!(call.what, What::Mute { .. });
        let must_be_up = (0..MANAGERS).filter(|instance| is_mute || *instance == own);
        if must_be_up.into_iter().all(|instance| log.lines[instance].is_up) {
            call.untold.clear();
            call.on_the_way = log.call(call.number);
        }
    }

    /// Repeats calls in flight on a lost connection: their caller got no answer.
    fn repeat_calls(&mut self) {
        let Some(redis) = &self.redis else { return };
        for call in &mut self.graph.calls {
            let partition = Topic::parse(call.topic()).unwrap().partition(PARTITIONS);
            let lines = &redis.partitions[usize::from(partition)].lines;
            let is_lost = |(instance, generation): &(usize, u64)| {
                !lines[*instance].is_up || lines[*instance].generation != *generation
            };
            if call.on_the_way.iter().any(is_lost) {
                call.on_the_way.clear();
                call.untold = (0..MANAGERS).collect();
                self.totals.repeated_calls += 1;
            }
        }
    }

    pub(super) fn tell_manager(&mut self, number: usize, manager: usize) {
        let mut calls = self.graph.calls.iter_mut();
        let Some(call) = calls.find(|call| call.number == number) else { return };
        call.on_the_way.retain(|(instance, _)| *instance != manager);
        let posts = |author: &usize| Pattern::parse(POSTS[*author]).unwrap();
        let change = match &call.what {
            What::Follow { author, is_followed: true } => {
                Change { add: vec![posts(author)], ..Change::default() }
            }
            What::Follow { author, is_followed: false } => {
                Change { remove: vec![posts(author)], ..Change::default() }
            }
            What::Mute { now, .. } => {
                let muted = Some(now.iter().map(|kind| (*kind).to_owned()).collect());
                Change { muted, ..Change::default() }
            }
        };
        let state = &mut self.managers[manager].state;
        let user = user_named(call.user);
        let first = self.last_ticket + 1;
        self.last_ticket += state.feed_count(&user) as Ticket;
        for ticket in first..=self.last_ticket {
            self.tickets.insert(ticket, Issued { manager, waiting: IssuedChange::Call });
            call.tickets.insert(ticket);
        }
        state.change_feeds(&user, &change, &mut (first..=self.last_ticket), self.now);
        self.end_calls();
    }

    pub(super) fn on_call_answered(&mut self, ticket: Ticket, outcome: &ChangeOutcome) {
        assert!(!matches!(outcome, ChangeOutcome::TooMany(_)));
        self.graph.calls.iter_mut().for_each(|call| {
            call.tickets.remove(&ticket);
        });
        self.end_calls();
    }

    /// Ends the calls applied by all streams: the caller gets its acknowledgement.
    fn end_calls(&mut self) {
        let before = self.graph.calls.len();
        self.graph.calls.retain(|call| !call.is_done());
        self.totals.calls += before - self.graph.calls.len();
    }
}
