//! The feeds of a worker by user: follows and mutes change open feeds at once.

use std::{collections::HashMap, time::Instant};

use smallvec::SmallVec;

use crate::{
    sse::ShutdownReason,
    subscription::{Change, ChangeBy, FeedOf},
    topic::Topic,
    topic_manager::{
        ChangeOutcome, ManagerState, Ticket,
        frame::Frames,
        streams::{Outlet, SlotRef},
    },
    user::User,
};

/// The feeds of one user.
#[derive(Debug, Default)]
pub(super) struct Feeds {
    slots: SmallVec<[SlotRef; 1]>,
    /// Streams about to open.
    expected: Vec<ExpectedFeed>,
    rereading: Rereading,
}

/// The progress of rereading a user's followed authors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Rereading {
    #[default]
    None,
    Queued,
    Running,
    /// The running read is stale: repeat it.
    RunningInVain,
}

/// A stream about to open.
#[derive(Debug)]
struct ExpectedFeed {
    number: u64,
    /// Changes since the read of the user's followed authors began.
    changes: Vec<(Ticket, Change)>,
    /// Whether this instance may have missed a change.
    is_stale: bool,
}

impl<O: Outlet> ManagerState<O> {
    /// Announces a stream of this user's feed, before the read of its followed authors. The manager
    /// keeps all later changes for it. Feed numbers are unique, even across a rebuild of the
    /// manager.
    pub fn expect_feed(&mut self, feed: &FeedOf) {
        let expected = ExpectedFeed { number: feed.number, changes: Vec::new(), is_stale: false };
        self.feeds.entry(feed.user.clone()).or_default().expected.push(expected);
    }

    /// Forgets an expected stream, and ends its kept changes.
    pub fn forget_expected(&mut self, feed: &FeedOf) {
        let changes = self.take_expected(feed).map(|expected| expected.changes);
        for (ticket, _) in changes.into_iter().flatten() {
            self.finished.push((ticket, ChangeOutcome::Ended));
        }
        self.drop_feeds_if_unused(&feed.user);
    }

    /// The number of streams of a user's feed, open or about to open.
    pub fn feed_count(&self, user: &User) -> usize {
        self.feeds.get(user).map_or(0, |feeds| feeds.slots.len() + feeds.expected.len())
    }

    /// Changes every stream of a user's feed, open or about to open. Takes one ticket per stream.
    pub fn change_feeds(
        &mut self,
        user: &User,
        change: &Change,
        tickets: &mut impl Iterator<Item = Ticket>,
        now: Instant,
    ) {
        let Some(feeds) = self.feeds.get_mut(user) else { return };
        let change = &Change { by: ChangeBy::FollowGraph, ..change.clone() };
        for (expected, ticket) in feeds.expected.iter_mut().zip(tickets.by_ref()) {
            expected.changes.push((ticket, change.clone()));
        }
        for (reference, ticket) in feeds.slots.clone().into_iter().zip(tickets) {
            self.change(ticket, reference, change.clone(), now);
        }
    }

    /// The users with a feed subscribed to a topic: a hash of each name, and `true` if the user has
    /// muted the kind. A user with several feeds appears several times.
    pub fn feed_users(&self, topic: &Topic, kind: &str) -> Vec<(u64, bool)> {
        let Some(id) = self.topic_ids.get(topic) else { return Vec::new() };
        let slots = self.topics[*id].subscribers.iter();
        let feeds = slots.filter_map(|slot| {
            let subscription = &self.streams.get(slot)?.subscription;
            Some((subscription.feed_of()?.user.hash64(), subscription.mutes(kind)))
        });
        feeds.collect()
    }

    pub(super) fn open_feed(&mut self, feed: &FeedOf, reference: SlotRef, now: Instant) {
        let expected = self.take_expected(feed);
        self.feeds.entry(feed.user.clone()).or_default().slots.push(reference);
        let Some(ExpectedFeed { changes, is_stale, .. }) = expected else {
            // The changes since the read began are lost, for example by a rebuild of the manager.
            // End the stream: the client reconnects, and the hub reads its feed again.
            if let Some(slot) = self.streams.get(reference) {
                slot.outlet.end(ShutdownReason::Drain, None, Frames::new());
            }
            return;
        };
        for (ticket, change) in changes {
            self.change(ticket, reference, change, now);
        }
        if is_stale {
            self.hold_to_reread(&feed.user, &[reference]);
        }
    }

    /// Rereads all feeds: this instance may have missed follows and mutes. Their streams get no
    /// events until their reread is done.
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
                // Count a reread once per stream, even if it is requested again while it runs.
                slot.awaited += u32::from(!std::mem::replace(&mut slot.is_rereading, true));
                // Bounds the events gathering meanwhile.
                slot.is_held = true;
            }
        }
        let Some(feeds) = self.feeds.get_mut(user).filter(|_| !slots.is_empty()) else { return };
        feeds.rereading = match feeds.rereading {
            Rereading::None => {
                self.to_reread.push_back(user.clone());
                Rereading::Queued
            }
            Rereading::Queued => Rereading::Queued,
            // The running read may have begun before the missed change.
            Rereading::Running | Rereading::RunningInVain => Rereading::RunningInVain,
        };
    }

    /// Takes the next user with a feed to reread.
    pub fn next_to_reread(&mut self) -> Option<User> {
        while let Some(user) = self.to_reread.pop_front() {
            if let Some(feeds) = self.feeds.get_mut(&user) {
                feeds.rereading = Rereading::Running;
                return Some(user);
            }
        }
        None
    }

    /// Handles a finished reread: followed topics and muted kinds, or `None` after a failure.
    /// Streams with exactly this feed continue. All others end, and resume after their last id
    /// without loss.
    pub fn on_reread(&mut self, user: &User, read: Option<(&[Topic], &[String])>, now: Instant) {
        let Some(feeds) = self.feeds.get_mut(user) else { return };
        if feeds.rereading != Rereading::Running {
            // A change may be missing in this read.
            feeds.rereading = Rereading::Queued;
            return self.to_reread.push_back(user.clone());
        }
        feeds.rereading = Rereading::None;
        for reference in feeds.slots.clone() {
            let slot = self.streams.get_mut(reference).filter(|slot| slot.is_rereading);
            let Some(slot) = slot else { continue };
            if !read.is_some_and(|(topics, muted)| slot.subscription.is_feed_of(topics, muted)) {
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

    /// Takes an expected stream; `None` if this manager does not expect it.
    fn take_expected(&mut self, feed: &FeedOf) -> Option<ExpectedFeed> {
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
