//! What a partition has queued for one topic manager, and when it leaves.

use std::time::Instant;

use super::messages::Delivery;

/// Deliveries in order. What waits for a tick anyway waits for company, so that the manager's
/// thread is not woken for each event.
#[derive(Default)]
pub(super) struct Outgoing {
    deliveries: Vec<Delivery>,
    /// When they leave; none is at once.
    due: Option<Instant>,
}

impl Outgoing {
    /// Adds a delivery that leaves by then at the latest, or at once.
    pub fn push(&mut self, delivery: Delivery, due: Option<Instant>) {
        // At once comes before any moment.
        self.due = if self.deliveries.is_empty() { due } else { self.due.min(due) };
        self.deliveries.push(delivery);
    }

    /// When they leave; none is at once. More than so many do not wait: publishers may be
    /// waiting for their places.
    pub fn due(&self, max_held: usize) -> Option<Instant> {
        self.due.filter(|_| self.deliveries.len() <= max_held)
    }

    pub fn into_deliveries(self) -> Vec<Delivery> {
        self.deliveries
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_leaves_at_once_takes_along_what_waits() {
        let later = Instant::now() + Duration::from_secs(1);
        let mut outgoing = Outgoing::default();
        outgoing.push(Delivery::Relinked, Some(later));
        assert_eq!(outgoing.due(8), Some(later));
        assert_eq!(outgoing.due(0), None, "more than may wait");
        outgoing.push(Delivery::Restarted, None);
        outgoing.push(Delivery::Relinked, Some(later));
        assert_eq!(outgoing.due(8), None);
        assert_eq!(outgoing.into_deliveries().len(), 3);
    }
}
