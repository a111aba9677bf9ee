//! The grants of open streams: their end, their renewal, and the streams ended before.

use std::{sync::Arc, time::Instant};

use crate::{
    access::{Grant, Revocation},
    ids::StreamId,
    sse::ShutdownReason,
    subscription::Change,
    topic::Topic,
    topic_manager::{
        ManagerState, Ticket,
        frame::Frames,
        questions::Asking,
        streams::{Outlet, Slot, SlotRef},
    },
    user::User,
};

/// The grant of a stream told of its end, asked about, or renewed.
#[derive(Debug)]
pub struct SlotGrant {
    pub(super) grant: Arc<Grant>,
    /// The moment of its only valid entry on the wheel.
    pub(super) due: Option<Instant>,
    /// The end told to the client.
    told: Option<Instant>,
    /// The question to the application, after the end.
    pub(super) asking: Asking,
}

impl SlotGrant {
    fn new(grant: &Arc<Grant>) -> Self {
        Self { grant: grant.clone(), due: None, told: None, asking: Asking::default() }
    }
}

/// The streams to end or list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// The stream with this number and secret.
    Client { stream: StreamId, secret: u64 },
    /// All streams of this user, of this topic, of both, or all.
    Of { user: Option<String>, topic: Option<Topic> },
    /// The streams of revoked tokens.
    Revoked(Revocation),
}

/// The outcome of a renewal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Renewal {
    /// The new grant is in force. The stream has lost these topics.
    Done(Vec<String>),
    /// The new grant is in force. Once the change of this renewal's ticket is, the stream has lost
    /// these topics.
    Pending(Vec<String>),
    /// The grant is of another user.
    Forbidden,
    /// No such stream is open.
    Ended,
}

impl<O: Outlet> ManagerState<O> {
    /// Watches the end of a new stream's grant. The stream needs a [`SlotGrant`] only after this
    /// first moment.
    pub(super) fn begin_grant(&mut self, reference: SlotRef) {
        let Some(slot) = self.streams.get(reference) else { return };
        let grant = &slot.subscription.grant;
        let Some(end) = grant.ends_at() else { return };
        let at = if grant.asked().is_some() { end } else { self.renew_at(end) };
        self.grants.schedule(at, (reference, at));
    }

    /// The moment to tell a client the end of its grant.
    fn renew_at(&self, end: Instant) -> Instant {
        end.checked_sub(self.spec.renew_before).unwrap_or(self.spec.start)
    }

    /// Puts the next moment of a stream's grant on the wheel.
    fn watch(&mut self, reference: SlotRef) {
        let Some(slot) = self.streams.get(reference) else { return };
        let Some(end) = slot.grant().ends_at() else { return };
        let renew_at = self.renew_at(end);
        let Some(slot) = self.streams.get_mut(reference) else { return };
        let Some(held) = &mut slot.grant else { return };
        // The hub itself renews a grant by the application.
        let is_told = held.told == Some(end) || held.grant.asked().is_some();
        let next = if is_told { held.asking.earliest(end) } else { renew_at };
        if held.due.is_none_or(|due| next < due) {
            held.due = Some(next);
            self.grants.schedule(next, (reference, next));
        }
    }

    /// Ends the streams with an ended grant, and tells the others.
    pub(super) fn on_grants_due(&mut self, now: Instant) {
        for (reference, at) in self.grants.expire(now) {
            let Some(slot) = self.streams.get_mut(reference) else { continue };
            // Without a held grant, this is the first moment of the stream's only grant.
            let first = || Box::new(SlotGrant::new(&slot.subscription.grant));
            let is_first = slot.grant.is_none();
            let held = slot.grant.get_or_insert_with(first);
            if !is_first && held.due != Some(at) {
                continue;
            }
            held.due = None;
            let Some(end) = held.grant.ends_at() else { continue };
            if end <= now {
                self.on_grant_ended(reference, end, now);
                continue;
            }
            if held.grant.asked().is_some() {
                self.watch(reference);
                continue;
            }
            let is_soon = end.checked_sub(self.spec.renew_before).is_none_or(|at| at <= now);
            if is_soon && slot.is_open {
                held.told = Some(end);
                slot.outlet.renew(end - now);
            } else if is_soon {
                // `connected` comes first; `go_on` asks again.
                held.due = Some(end);
                self.grants.schedule(end, (reference, end));
                continue;
            }
            self.watch(reference);
        }
    }

    /// Tells an opened stream a near end of its grant.
    pub(super) fn watch_opened(&mut self, reference: SlotRef) {
        if self.streams.get(reference).is_some_and(|slot| slot.grant.is_some()) {
            self.watch(reference);
        }
    }

    /// Replaces the grant of a stream, from its user. Topics not granted any more are removed.
    pub fn renew(
        &mut self,
        ticket: Ticket,
        reference: SlotRef,
        grant: &Arc<Grant>,
        now: Instant,
    ) -> Renewal {
        let max_topics = self.spec.limits.max_topics;
        let Some(slot) = self.streams.get_mut(reference) else { return Renewal::Ended };
        if slot.user() != grant.user() {
            return Renewal::Forbidden;
        }
        let removed = slot.subscription.lost_with(grant);
        let held = slot.grant.get_or_insert_with(|| Box::new(SlotGrant::new(grant)));
        held.grant = grant.clone();
        held.asking.end();
        let names: Vec<String> = removed.iter().map(|name| name.as_str().to_owned()).collect();
        let change = Change { remove: removed, ..Change::default() };
        let is_busy = slot.awaited > 0
            || slot.replay.is_some()
            || slot.changes.as_ref().is_some_and(|all| !all.has_room(&change, max_topics));
        if names.is_empty() {
            self.watch(reference);
            return Renewal::Done(names);
        }
        if is_busy {
            // A replay would go on with the lost topics. The client returns without them.
            slot.outlet.end(ShutdownReason::Token, None, Frames::new());
            return Renewal::Done(names);
        }
        self.watch(reference);
        self.change(ticket, reference, change, now);
        Renewal::Pending(names)
    }

    /// Ends streams without their pending output. Returns their numbers: each is ended once its
    /// connection has closed it.
    pub fn end_streams(&mut self, which: &Which, reason: ShutdownReason) -> Vec<StreamId> {
        let ended: Vec<&Slot<O>> = self.find(which).collect();
        for slot in &ended {
            slot.outlet.end(reason, None, Frames::new());
        }
        ended.into_iter().map(|slot| slot.stream).collect()
    }

    /// The open streams.
    pub fn find<'a>(&'a self, which: &'a Which) -> impl Iterator<Item = &'a Slot<O>> {
        let all = self.streams.iter();
        all.filter(move |slot| match which {
            Which::Client { stream, secret } => {
                slot.stream == *stream && slot.subscription.secret == *secret
            }
            Which::Of { user, topic } => {
                let is_user = |wanted: &str| slot.user().is_some_and(|one| one.as_str() == wanted);
                user.as_deref().is_none_or(is_user)
                    && topic.as_ref().is_none_or(|topic| slot.subscription.wants(topic))
            }
            Which::Revoked(revocation) => revocation.covers(slot.grant()),
        })
    }
}

impl<O> Slot<O> {
    /// The grant in force.
    pub fn grant(&self) -> &Arc<Grant> {
        self.grant.as_ref().map_or(&self.subscription.grant, |held| &held.grant)
    }

    /// The user of the stream.
    pub fn user(&self) -> Option<&User> {
        let of_feed = self.subscription.feed_of().map(|feed| &feed.user);
        self.grant().user().or(of_feed)
    }
}
