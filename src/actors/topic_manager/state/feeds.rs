//! The feeds of a worker: which streams are whose, so that who follows or mutes changes them
//! at once.

use std::{collections::HashMap, mem::take, time::Instant};

use smallvec::SmallVec;

use super::{ManagerState, Outcome, Ticket};
use crate::{
    actors::topic_manager::{
        frame::Frames,
        streams::{Outlet, SlotRef},
    },
    domain::topic::Topic,
    follow::User,
    subscription::{Change, FeedOf},
    wire::ShutdownReason,
};

/// The feeds of one user.
#[derive(Debug, Default)]
pub(super) struct Feeds {
    slots: SmallVec<[SlotRef; 1]>,
    /// Streams that are about to open.
    expected: Vec<Expected>,
    /// Number of the present reading again; 0 if there is none.
    rereading: u64,
}

/// A stream that is about to open.
#[derive(Debug)]
struct Expected {
    number: u64,
    /// What has changed since whom the user follows began to be read for it.
    changes: Vec<(Ticket, Change)>,
    /// Whether something may have changed that was not heard here.
    is_stale: bool,
}

impl<O: Outlet> ManagerState<O> {
    /// A stream of this user's feed is about to open: changes from here on reach it.
    pub fn expect_feed(&mut self, user: User) -> FeedOf {
        self.last_expected += 1;
        let number = self.last_expected;
        let expected = Expected { number, changes: Vec::new(), is_stale: false };
        self.feeds.entry(user.clone()).or_default().expected.push(expected);
        FeedOf { user, number }
    }

    /// A stream that was expected will not come.
    pub fn forget_expected(&mut self, feed: &FeedOf) {
        let changes = self.take_expected(feed).map(|expected| expected.changes);
        for (ticket, _) in changes.into_iter().flatten() {
            self.finished.push((ticket, Outcome::Ended));
        }
        self.drop_feeds_if_unused(&feed.user);
    }

    /// How many streams of a user's feed are open or about to open.
    pub fn feed_count(&self, user: &User) -> usize {
        self.feeds.get(user).map_or(0, |feeds| feeds.slots.len() + feeds.expected.len())
    }

    /// Changes every stream of a user's feed, open or about to open; a ticket is taken for
    /// each.
    pub fn change_feeds(
        &mut self,
        user: &User,
        change: &Change,
        tickets: &mut impl Iterator<Item = Ticket>,
        now: Instant,
    ) {
        let Some(feeds) = self.feeds.get_mut(user) else { return };
        for (expected, ticket) in feeds.expected.iter_mut().zip(tickets.by_ref()) {
            expected.changes.push((ticket, change.clone()));
        }
        for (reference, ticket) in feeds.slots.clone().into_iter().zip(tickets) {
            self.change(ticket, reference, change.clone(), now);
        }
    }

    /// The users, by a hash of their names, who have a feed here that wants a topic; and of
    /// each whether the kind is muted.
    pub fn feed_users(&self, topic: &Topic, kind: &str) -> Vec<(u64, bool)> {
        let Some(id) = self.topic_ids.get(topic) else { return Vec::new() };
        let slots = self.topics[*id].subscribers.iter();
        let feeds = slots.filter_map(|slot| {
            let wanted = &self.streams.get(*slot)?.wanted;
            Some((wanted.feed.as_ref()?.user.hash64(), wanted.mutes(kind)))
        });
        feeds.collect()
    }

    pub(super) fn open_feed(&mut self, feed: &FeedOf, reference: SlotRef, now: Instant) {
        let expected = self.take_expected(feed);
        self.feeds.entry(feed.user.clone()).or_default().slots.push(reference);
        let Some(Expected { changes, is_stale, .. }) = expected else { return };
        for (ticket, change) in changes {
            self.change(ticket, reference, change, now);
        }
        if is_stale {
            self.hold_to_reread(&feed.user, &[reference]);
        }
    }

    /// Changes may have been made that this instance was not told of: so what follows is read
    /// again, and until then no feed goes on.
    pub(super) fn reread_feeds(&mut self) {
        let mut users = Vec::new();
        for (user, feeds) in &mut self.feeds {
            feeds.expected.iter_mut().for_each(|expected| expected.is_stale = true);
            users.push((user.clone(), feeds.slots.clone()));
        }
        for (user, slots) in users {
            self.hold_to_reread(&user, &slots);
        }
    }

    fn hold_to_reread(&mut self, user: &User, slots: &[SlotRef]) {
        for reference in slots {
            if let Some(slot) = self.streams.get_mut(*reference) {
                slot.awaited += usize::from(!std::mem::replace(&mut slot.is_rereading, true));
            }
        }
        let Some(feeds) = self.feeds.get_mut(user).filter(|_| !slots.is_empty()) else { return };
        self.last_expected += 1;
        feeds.rereading = self.last_expected;
        self.to_reread.push(FeedOf { user: user.clone(), number: feeds.rereading });
    }

    /// Takes the feeds that are to be read again.
    pub fn take_to_reread(&mut self) -> Vec<FeedOf> {
        take(&mut self.to_reread)
    }

    /// A feed could not be read: it is tried once more, if it is still waited for.
    pub fn reread(&mut self, feed: &FeedOf) {
        if self.awaits_reread(feed) {
            self.to_reread.push(feed.clone());
        }
    }

    /// Whether the answer to a reading again is still waited for.
    fn awaits_reread(&self, feed: &FeedOf) -> bool {
        self.feeds.get(&feed.user).is_some_and(|feeds| feeds.rereading == feed.number)
    }

    /// What was read again: streams that have just that go on; the others end, and come back
    /// with what they have been sent, so that they miss nothing.
    pub fn on_reread(&mut self, feed: &FeedOf, topics: &[Topic], muted: &[String], now: Instant) {
        if !self.awaits_reread(feed) {
            return;
        }
        let Some(feeds) = self.feeds.get_mut(&feed.user) else { return };
        feeds.rereading = 0;
        for reference in feeds.slots.clone() {
            let Some(slot) = self.streams.get_mut(reference).filter(|slot| slot.is_rereading)
            else {
                continue;
            };
            let has = |topic: &Topic| slot.wanted.topics.binary_search(topic).is_ok();
            let is_same = slot.wanted.topics.len() == topics.len()
                && topics.iter().all(has)
                && slot.wanted.muted.as_deref().unwrap_or_default() == muted;
            if !is_same {
                slot.outlet.end(ShutdownReason::Drain, None, Frames::new());
                continue;
            }
            slot.is_rereading = false;
            slot.awaited -= 1;
            self.go_on(reference, now);
        }
    }

    pub(super) fn close_feed(&mut self, feed: &FeedOf, reference: SlotRef) {
        if let Some(feeds) = self.feeds.get_mut(&feed.user) {
            feeds.slots.retain(|other| *other != reference);
        }
        self.drop_feeds_if_unused(&feed.user);
    }

    fn take_expected(&mut self, feed: &FeedOf) -> Option<Expected> {
        let feeds = self.feeds.get_mut(&feed.user)?;
        let index = feeds.expected.iter().position(|one| one.number == feed.number)?;
        Some(feeds.expected.swap_remove(index))
    }

    fn drop_feeds_if_unused(&mut self, user: &User) {
        let is_unused = |feeds: &Feeds| feeds.slots.is_empty() && feeds.expected.is_empty();
        if self.feeds.get(user).is_some_and(is_unused) {
            self.feeds.remove(user);
        }
    }
}

/// All feeds of a worker.
pub(super) type FeedsByUser = HashMap<User, Feeds>;
