//! The flow control from a partition to a manager: one message in flight. It is a shared flag and
//! not an answer, since an answer would wake the partition's thread also without waiting
//! deliveries.

use std::sync::atomic::{AtomicU8, Ordering};

/// No message is in flight.
const TAKEN: u8 = 0;

/// A message is in flight.
const SENT: u8 = 1;

/// A message is in flight, and the partition has more deliveries.
const AWAITED: u8 = 2;

/// At most one message in flight from a partition to a manager.
#[derive(Debug, Default)]
pub(crate) struct InFlight(AtomicU8);

impl InFlight {
    /// For the partition: whether it may send a message now. After `false`, the manager notifies
    /// the partition later.
    pub fn begin(&self) -> bool {
        // One atomic step: with a read and a later write, the manager could take the message in
        // between, and nobody would notify the partition.
        let begin = |state| Some(if state == TAKEN { SENT } else { AWAITED });
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, begin) == Ok(TAKEN)
    }

    /// For the manager: the message is taken. Returns whether to notify the partition.
    pub fn end(&self) -> bool {
        self.0.swap(TAKEN, Ordering::AcqRel) == AWAITED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_message_is_in_flight_and_a_waiting_partition_is_notified() {
        let in_flight = InFlight::default();
        assert!(in_flight.begin());
        assert!(!in_flight.end(), "the partition does not wait");
        assert!(in_flight.begin());
        assert!(!in_flight.begin() && !in_flight.begin());
        assert!(in_flight.end());
        assert!(in_flight.begin());
    }
}
