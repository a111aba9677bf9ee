//! Losses of the last events of a server: its successor began without them, as after a failover to a
//! replica. The successor gives out later sequences only, so all other events keep theirs, and
//! streams continue. Only streams perhaps without a lost event get a gap.

use std::collections::HashMap;

use crate::log::{Acknowledged, Era, PartitionHead};

/// The distance of sequences from one server to the next: the `INCRBY` in `publish.lua`.
const JUMP: u64 = 1 << 20;

/// The known losses, and the part of them told to streams.
#[derive(Debug, Default)]
pub(super) struct TailLosses {
    /// Highest lost sequence in the lineage. A cursor below may lack lost events.
    pub through: u64,
    /// The streams of this instance know of the losses up to this sequence.
    told_through: u64,
    /// The replica's position at the begin of each server in the lineage: its streams had all events
    /// up to there.
    had: HashMap<String, u64>,
}

/// A comparison of the sequences given out by a server with the lineage.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Tail {
    /// Its successor has all events, or has no part in it.
    Whole,
    /// The lineage has the loss already, or gets it by a request.
    Lost { is_recorded: bool },
    /// The lineage does not tell which events survive.
    Unknown,
}

impl Tail {
    /// For events up to `highest`, given out by `server`.
    pub fn of(head: &PartitionHead, server: &str, highest: u64) -> Self {
        let known = head.lineage.iter().position(|era| era.server == *server);
        let successor = match known {
            Some(0) => return Self::Whole,
            Some(place) => &head.lineage[place - 1],
            None if highest == 0 => return Self::Whole,
            None => return Self::Unknown,
        };
        match highest.checked_sub(successor.began_after) {
            None | Some(0) => Self::Whole,
            // The successor may have given out these sequences itself.
            Some(count) if count >= JUMP => Self::Unknown,
            Some(_) => Self::Lost { is_recorded: successor.lost_through >= highest },
        }
    }

    /// For an event confirmed to this instance.
    pub fn of_acknowledged(head: &PartitionHead, one: &Acknowledged) -> Self {
        let is_present = one.epoch == head.epoch || head.earlier_epochs.contains(&one.epoch);
        if is_present { Self::of(head, &one.server, one.sequence) } else { Self::Whole }
    }
}

impl TailLosses {
    /// A first head: no stream is attached yet.
    pub fn begin(&mut self, head: &PartitionHead) {
        let lost = head.lost_through();
        *self = Self { through: lost, told_through: lost, had: HashMap::new() };
    }

    /// A head of these sequences. `position` is the replica's position before it, with the server
    /// known until now. Returns whether streams of this instance may lack lost events.
    pub fn note(&mut self, head: &PartitionHead, server: Option<&str>, position: u64) -> bool {
        let new = head.lineage.iter().take_while(|era| Some(&*era.server) != server);
        for era in new {
            self.had.insert(era.server.clone(), position);
        }
        self.had.retain(|server, _| head.lineage.iter().any(|era| era.server == *server));
        self.through = head.lost_through();
        let is_untold = |era: &&Era| {
            let had = self.had.get(&era.server).copied().unwrap_or(0);
            era.lost_through > self.told_through.max(had)
        };
        let untold = head.lineage.iter().filter(is_untold).map(|era| era.lost_through).max();
        self.told_through = self.told_through.max(untold.unwrap_or(0));
        untold.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cursor::Epoch;

    fn head(lineage: &[(&str, u64, u64)]) -> PartitionHead {
        let era = |(server, began_after, lost_through): &(&str, u64, u64)| Era {
            server: (*server).to_owned(),
            began_after: *began_after,
            lost_through: *lost_through,
        };
        PartitionHead {
            epoch: Epoch::new(1),
            earlier_epochs: Vec::new(),
            epoch_began_after: Some(0),
            sequence: 5 + JUMP,
            lineage: lineage.iter().map(era).collect(),
        }
    }

    #[test]
    fn a_server_without_the_last_events_of_its_predecessor_has_lost_them() {
        let lineage = head(&[("b", 5, 0), ("a", 0, 0)]);
        assert_eq!(Tail::of(&lineage, "b", 9), Tail::Whole);
        assert_eq!(Tail::of(&lineage, "a", 5), Tail::Whole);
        assert_eq!(Tail::of(&lineage, "a", 7), Tail::Lost { is_recorded: false });
        assert_eq!(Tail::of(&lineage, "a", 5 + JUMP), Tail::Unknown);
        assert_eq!(Tail::of(&lineage, "other", 1), Tail::Unknown);
        let recorded = head(&[("b", 5, 7), ("a", 0, 0)]);
        assert_eq!(Tail::of(&recorded, "a", 7), Tail::Lost { is_recorded: true });
        assert_eq!(Tail::of(&recorded, "a", 8), Tail::Lost { is_recorded: false });
    }

    #[test]
    fn only_a_replica_without_a_lost_event_tells_its_streams_and_once() {
        let (whole, lost) = (head(&[("a", 0, 0)]), head(&[("b", 5, 7), ("a", 0, 0)]));
        for (position, is_told) in [(7, false), (6, true)] {
            let mut losses = TailLosses::default();
            losses.begin(&whole);
            assert_eq!(losses.note(&lost, Some("a"), position), is_told);
            assert!(!losses.note(&lost, Some("b"), 5 + JUMP));
            // Another instance had one more event.
            let more = head(&[("b", 5, 8), ("a", 0, 0)]);
            assert!(losses.note(&more, Some("b"), 5 + JUMP));
            assert!(!losses.note(&more, Some("b"), 5 + JUMP));
        }
    }
}
