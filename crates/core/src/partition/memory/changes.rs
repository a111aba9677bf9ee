//! Changes of interest: streams attached, with the pages of their replays, and detached.

use std::time::Instant;

use super::MemoryPartition;
use crate::{
    ids::ManagerId,
    partition::{Delivery, InterestChange},
};

/// Events visited for replays in one turn for long work: about two milliseconds.
const MAX_VISITS_A_TURN: usize = 4096;

/// The same for the changes of a message: some ten microseconds.
const MAX_VISITS_A_MESSAGE: usize = 256;

/// The cost of a change without its replay, in visits.
const VISITS_OF_A_CHANGE: usize = 8;

impl<P: Clone> MemoryPartition<P> {
    /// Takes changes, to apply them in order: short ones at once, the rest from the first long one
    /// on in later turns. A delivery answers each attach.
    pub fn change_interest(
        &mut self,
        manager: ManagerId,
        changes: Vec<InterestChange>,
        now: Instant,
    ) {
        self.changes.extend(changes.into_iter().map(|change| (manager, change)));
        self.apply_changes(MAX_VISITS_A_MESSAGE, InterestChange::is_short, now);
    }

    /// Whether changes are left for later turns.
    pub fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }

    /// Applies queued changes, as many as a turn allows. Returns whether more are left.
    pub fn continue_changes(&mut self, now: Instant) -> bool {
        self.apply_changes(MAX_VISITS_A_TURN, |_| true, now);
        self.has_changes()
    }

    fn apply_changes(
        &mut self,
        max_visits: usize,
        may_apply: fn(&InterestChange) -> bool,
        now: Instant,
    ) {
        let mut visits = 0;
        while visits < max_visits
            && let Some((manager, change)) = self.changes.pop_front_if(|(_, next)| may_apply(next))
        {
            visits += change.name_count() + VISITS_OF_A_CHANGE;
            self.apply_change(manager, change, now);
            visits += self.log.take_visits();
        }
    }

    fn apply_change(&mut self, manager: ManagerId, change: InterestChange, now: Instant) {
        match change {
            InterestChange::Attach { stream, interest, from, max_bytes } => {
                let replay = self.log.page(&interest, from, max_bytes, now);
                if replay.next.is_some() {
                    self.replaying.insert((manager, stream));
                } else {
                    self.replaying.remove(&(manager, stream));
                    self.routing.listeners.attach(manager, &interest);
                }
                self.routing.queue(manager, Delivery::Attached { stream, replay });
            }
            InterestChange::Detach { stream, interest } => {
                if !self.replaying.remove(&(manager, stream)) {
                    self.routing.listeners.detach(manager, &interest);
                }
            }
            InterestChange::DetachAll => self.forget_streams(manager),
        }
    }

    fn forget_streams(&mut self, manager: ManagerId) {
        self.replaying.retain(|(other, _)| *other != manager);
        self.routing.listeners.remove_manager(manager);
        self.routing.drop_outgoing(manager);
    }

    /// Forgets a manager and its streams.
    pub fn remove_manager(&mut self, manager: ManagerId) {
        self.changes.retain(|(other, _)| *other != manager);
        self.forget_streams(manager);
    }
}
