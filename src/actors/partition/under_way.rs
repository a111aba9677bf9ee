//! Whether a manager still has to take what a partition has sent it: known to both without a
//! message, which would wake the partition's thread for nothing if it has no more to send.

use std::sync::atomic::{AtomicU8, Ordering};

/// All is taken.
const TAKEN: u8 = 0;

/// A message is not taken yet.
const SENT: u8 = 1;

/// A message is not taken yet, and the partition wants to be told when it is.
const AWAITED: u8 = 2;

/// One message at a time from a partition to a manager.
#[derive(Debug, Default)]
pub(crate) struct UnderWay(AtomicU8);

impl UnderWay {
    /// For the partition: whether it may send a message now. Otherwise it will be told.
    pub fn begin(&self) -> bool {
        let begin = |state| Some(if state == TAKEN { SENT } else { AWAITED });
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, begin) == Ok(TAKEN)
    }

    /// For the manager: the message is taken. Returns whether the partition has to be told.
    pub fn end(&self) -> bool {
        self.0.swap(TAKEN, Ordering::AcqRel) == AWAITED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_message_is_under_way_and_who_waits_is_told() {
        let under_way = UnderWay::default();
        assert!(under_way.begin());
        assert!(!under_way.end(), "nobody waits");
        assert!(under_way.begin());
        assert!(!under_way.begin() && !under_way.begin());
        assert!(under_way.end());
        assert!(under_way.begin());
    }
}
