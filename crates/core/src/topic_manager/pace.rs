//! The bound on changes of an open stream per second. Each added or removed name costs the log's
//! subscriptions and reads, so names count, not changes.

use std::time::Instant;

use crate::{
    subscription::Change,
    topic_manager::{
        ChangeOutcome, ManagerSpec, ManagerState, Ticket,
        streams::{Outlet, SlotRef},
    },
};

/// The names changed by a stream and not paid off yet.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct ChangeDebt {
    /// The moment it is paid off, in microseconds since the manager's start.
    paid_us: u64,
}

impl ChangeDebt {
    /// Adds the names of a change. `false` while the debt is over the bound; it then stays the same.
    ///
    /// The bound is checked before the addition: a change of any allowed size passes at some time.
    fn charge(&mut self, name_count: usize, spec: &ManagerSpec, now: Instant) -> bool {
        let per_second = u64::from(spec.max_changes_per_second);
        if per_second == 0 {
            return true;
        }
        let time_us = |names: usize| (names as u64).saturating_mul(1_000_000) / per_second;
        let now_us = now.saturating_duration_since(spec.start).as_micros() as u64;
        if self.paid_us > now_us.saturating_add(time_us(spec.limits.max_topics)) {
            return false;
        }
        self.paid_us = self.paid_us.max(now_us).saturating_add(time_us(name_count));
        true
    }
}

impl<O: Outlet> ManagerState<O> {
    /// [`Self::change`], at the pace allowed to a client: as many names at once as a stream may have
    /// topics, then `max_changes_per_second`.
    pub fn change_paced(
        &mut self,
        ticket: Ticket,
        reference: SlotRef,
        change: Change,
        now: Instant,
    ) {
        let name_count = change.add.len() + change.remove.len();
        let slot = self.streams.get_mut(reference);
        let is_paced = slot.is_none_or(|slot| slot.change_debt.charge(name_count, &self.spec, now));
        if !is_paced {
            return self.finished.push((ticket, ChangeOutcome::TooFast));
        }
        self.change(ticket, reference, change, now);
    }
}
