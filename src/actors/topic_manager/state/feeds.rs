//! The feeds of a worker: which streams are whose, so that who follows or mutes changes them
//! at once.

use std::{collections::HashMap, time::Instant};

use smallvec::SmallVec;

use super::{ManagerState, Outcome, Ticket};
use crate::{
    actors::topic_manager::{
        frame::Frames,
        streams::{Outlet, SlotRef},
    },
    follow::User,
    subscription::{Change, FeedOf},
    wire::ShutdownReason,
};

/// The feeds of one user.
#[derive(Debug, Default)]
pub(super) struct Feeds {
    slots: SmallVec<[SlotRef; 1]>,
    /// Streams that are about to open: what has changed since whom the user follows began
    /// to be read for them.
    expected: Vec<(u64, Vec<(Ticket, Change)>)>,
}

impl<O: Outlet> ManagerState<O> {
    /// A stream of this user's feed is about to open: changes from here on reach it. No two
    /// have the same number, even if this manager is one that was built anew.
    pub fn expect_feed(&mut self, feed: &FeedOf) {
        let feeds = self.feeds.entry(feed.user.clone()).or_default();
        feeds.expected.push((feed.number, Vec::new()));
    }

    /// A stream that was expected will not come.
    pub fn forget_expected(&mut self, feed: &FeedOf) {
        for (ticket, _) in self.take_expected(feed).into_iter().flatten() {
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
        for ((_, changes), ticket) in feeds.expected.iter_mut().zip(tickets.by_ref()) {
            changes.push((ticket, change.clone()));
        }
        for (reference, ticket) in feeds.slots.clone().into_iter().zip(tickets) {
            self.change(ticket, reference, change.clone(), now);
        }
    }

    /// The users, by a hash of their names, who have a feed here that wants a topic; and of
    /// each whether the kind is muted.
    pub fn feed_users(&self, topic: &crate::domain::topic::Topic, kind: &str) -> Vec<(u64, bool)> {
        let Some(id) = self.topic_ids.get(topic) else { return Vec::new() };
        let slots = self.topics[*id].subscribers.iter();
        let feeds = slots.filter_map(|slot| {
            let wanted = &self.streams.get(*slot)?.wanted;
            Some((wanted.feed.as_ref()?.user.hash64(), wanted.mutes(kind)))
        });
        feeds.collect()
    }

    pub(super) fn open_feed(&mut self, feed: &FeedOf, reference: SlotRef, now: Instant) {
        match self.take_expected(feed) {
            Some(changes) => changes.into_iter().for_each(|(ticket, change)| {
                self.change(ticket, reference, change, now);
            }),
            // What has changed since is not known: the client comes back, and whom its user
            // follows is read again.
            None => {
                if let Some(slot) = self.streams.get(reference) {
                    slot.outlet.end(ShutdownReason::Drain, None, Frames::new());
                }
            }
        }
        self.feeds.entry(feed.user.clone()).or_default().slots.push(reference);
    }

    pub(super) fn close_feed(&mut self, feed: &FeedOf, reference: SlotRef) {
        if let Some(feeds) = self.feeds.get_mut(&feed.user) {
            feeds.slots.retain(|other| *other != reference);
        }
        self.drop_feeds_if_unused(&feed.user);
    }

    /// The changes that were kept for a stream; none if it was not expected here.
    fn take_expected(&mut self, feed: &FeedOf) -> Option<Vec<(Ticket, Change)>> {
        let feeds = self.feeds.get_mut(&feed.user)?;
        let index = feeds.expected.iter().position(|(number, _)| *number == feed.number)?;
        Some(feeds.expected.swap_remove(index).1)
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
