//! Events lost by the store below a log, with their topics unknown; and the recovery of a log's
//! state from its store.

use super::{Missed, MissedReason, PartitionLog};
use crate::{history::RemovedTypes, topic::Topic};

/// The losses of this many unclean stops are kept apart; earlier ones count as one.
const MAX_RANGES: usize = 256;

/// Losses of a log's store. A stream not past them gets a gap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Losses {
    /// Streams before this sequence may miss a damaged event.
    pub damaged_through: u64,
    /// Sequences of unclean stops, ascending: after the last kept one, before the next one given
    /// out. Streams may have got events in between; the log has lost them.
    pub unclean: Vec<(u64, u64)>,
}

impl Losses {
    /// Notes an unclean stop: the last kept sequence, and the sequence to continue after.
    pub fn note_unclean(&mut self, kept: u64, next: u64) {
        self.unclean.push((kept, next));
        if self.unclean.len() > MAX_RANGES {
            // Streams this old get a gap.
            let (_, through) = self.unclean.remove(0);
            self.damaged_through = self.damaged_through.max(through);
        }
    }

    /// Adds the losses of a stream at this position to the events missed otherwise.
    pub(super) fn add_to(&self, missed: Option<Missed>, sequence: u64) -> Option<Missed> {
        match self.concern(sequence) {
            true => Some(Missed { reason: MissedReason::History, topics: Vec::new() }),
            false => missed,
        }
    }

    fn concern(&self, sequence: u64) -> bool {
        // The usual case first: nothing is lost, and the position is new.
        let after = |(_, next): &(u64, u64)| *next <= sequence;
        sequence < self.damaged_through
            || self
                .unclean
                .get(self.unclean.partition_point(after))
                .is_some_and(|(kept, _)| *kept < sequence)
    }
}

impl PartitionLog {
    pub fn losses(&self) -> &Losses {
        &self.losses
    }

    /// Sets the losses of the store.
    pub fn set_losses(&mut self, losses: Losses) {
        self.losses = losses;
    }

    /// Sets what is known of the time before all events here: the beginning of the log, and the
    /// last event gone from the store.
    pub fn begin_times(&mut self, began_at: u64, left_ms: u64, left: u64) {
        self.times.begin(began_at, left_ms, left);
    }

    /// The time of the log's beginning.
    pub fn began_at(&self) -> u64 {
        self.times.began_at()
    }

    /// Notes topics forgotten before, with a last sequence up to this one.
    pub fn forget_through(&mut self, sequence: u64) {
        self.forgotten_through = self.forgotten_through.max(sequence);
        self.evicted_through = self.evicted_through.max(sequence);
    }

    /// Adds the removals of a topic before, see [`crate::history::HistoryRing::restore_removals`].
    pub fn restore_removals(
        &mut self,
        topic: &Topic,
        last: u64,
        evicted_through: u64,
        types: &RemovedTypes,
    ) {
        let number = self.evictions + 1;
        let history = self.history_of(topic);
        history.restore_removals(last, evicted_through, types, number);
        self.note_evictions(topic);
        self.tidy();
    }

    /// One copy of a topic's name, if the log has the topic.
    pub fn shared_name(&self, name: &str) -> Option<Topic> {
        self.topics.get_key_value(name).map(|(topic, _)| topic.clone())
    }

    /// Bytes of the events in history and of their topics.
    pub fn kept_bytes(&self) -> usize {
        self.kept_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_streams_past_the_kept_events_or_before_a_damage_are_concerned() {
        let mut losses = Losses::default();
        assert!(!losses.concern(0));
        losses.note_unclean(10, 1000);
        losses.note_unclean(1005, 2000);
        let concerned = [0, 10, 11, 999, 1000, 1005, 1006, 1999, 2000, 2001];
        let concerned = concerned.map(|sequence| losses.concern(sequence));
        let expected = [false, false, true, true, false, false, true, true, false, false];
        assert_eq!(concerned, expected);
        losses.damaged_through = 5;
        assert!(losses.concern(4) && !losses.concern(5));
    }
}
