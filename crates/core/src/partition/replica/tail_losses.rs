//! Losses of the last events of a server: its successor began without them, as after a failover to a
//! replica. The successor gives out later sequences only, so all other events keep theirs, and
//! streams continue. Only streams perhaps without a lost event get a gap.

use std::collections::HashMap;

use crate::log::{Acknowledged, Acknowledgements, Era, PartitionHead, SERVER_JUMP, TailLoss};

/// The known losses, and the part of them told to streams.
#[derive(Debug, Default)]
pub(super) struct TailLosses {
    /// Each with the first sequence of the successor.
    known: Vec<(u64, TailLoss)>,
    /// The streams of this instance know of the losses up to this sequence.
    told_through: u64,
    /// The replica's position at the begin of each server in the lineage: its streams had all events
    /// up to there.
    had: HashMap<String, u64>,
}

impl TailLosses {
    /// A first head: no stream is attached yet.
    pub fn begin(&mut self, head: &PartitionHead) {
        let told_through = lost_through(&head.lineage).unwrap_or(0);
        *self = Self { known: known(head), told_through, had: HashMap::new() };
    }

    /// A head of these sequences. `position` is the replica's position before it, with the server
    /// known until now. Returns whether streams of this instance may lack lost events.
    pub fn note(&mut self, head: &PartitionHead, server: Option<&str>, position: u64) -> bool {
        let new = head.lineage.iter().take_while(|era| Some(&*era.server) != server);
        for era in new {
            self.had.insert(era.server.clone(), position);
        }
        self.had.retain(|server, _| head.lineage.iter().any(|era| era.server == *server));
        self.known = known(head);
        let is_untold = |era: &&Era| {
            let had = self.had.get(&era.server).copied().unwrap_or(0);
            era.lost.is_some_and(|lost| lost.through > self.told_through.max(had))
        };
        let untold = lost_through(head.lineage.iter().filter(is_untold));
        self.told_through = self.told_through.max(untold.unwrap_or(0));
        untold.is_some()
    }

    /// The last record of a loss: a number rising with each record.
    pub fn recorded_at(&self) -> u64 {
        self.known.iter().map(|(_, lost)| lost.recorded_at).max().unwrap_or(0)
    }

    /// Whether a client with this position may lack lost events: it was before them, or it came past
    /// them before they were known.
    pub fn may_concern(&self, position: u64) -> bool {
        self.known.iter().any(|(first, lost)| {
            position < lost.through || (*first..lost.recorded_at).contains(&position)
        })
    }

    /// The same for a client in want of the events since this time, in milliseconds since 1970.
    pub fn may_concern_since(&self, unix_ms: u64) -> bool {
        self.known.iter().any(|(_, lost)| unix_ms <= lost.recorded_ms)
    }
}

fn known(head: &PartitionHead) -> Vec<(u64, TailLoss)> {
    let eras = head.lineage.iter();
    eras.filter_map(|era| Some((era.began_after + SERVER_JUMP, era.lost?))).collect()
}

fn lost_through<'a>(eras: impl IntoIterator<Item = &'a Era>) -> Option<u64> {
    eras.into_iter().filter_map(|era| era.lost).map(|lost| lost.through).max()
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
            Some(count) if count >= SERVER_JUMP => Self::Unknown,
            Some(_) => {
                let is_recorded = successor.lost.is_some_and(|lost| lost.through >= highest);
                Self::Lost { is_recorded }
            }
        }
    }
}

/// The publishes of this instance confirmed by Redis. A later server decides about each of them.
#[derive(Debug, Clone, Default)]
pub(super) struct AcknowledgedTails {
    open: Acknowledgements,
    /// A server of the lineage has them, or their loss is recorded.
    settled: Acknowledgements,
}

impl AcknowledgedTails {
    /// A new link names the publishes.
    pub fn begin(&mut self, all: &Acknowledgements) {
        let is_settled = |one: &&Acknowledged| self.settled.contains(one);
        let (settled, new): (Vec<_>, Vec<_>) = all.iter().partition(is_settled);
        let mut kept = Acknowledgements::default();
        settled.into_iter().for_each(|one| kept.note(one.clone()));
        self.settled = kept;
        new.into_iter().for_each(|one| self.open.note(one.clone()));
    }

    /// The publishes not settled yet, of the head's sequences.
    pub fn open_in(&self, head: &PartitionHead) -> impl Iterator<Item = &Acknowledged> {
        let is_present = |epoch| head.epoch == epoch || head.earlier_epochs.contains(&epoch);
        self.open.iter().filter(move |one| is_present(one.epoch))
    }

    /// A head has settled all of them.
    pub fn settle(&mut self) {
        let open = std::mem::take(&mut self.open);
        open.iter().for_each(|one| self.settled.note(one.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cursor::Epoch;

    fn head(lineage: &[(&str, u64, u64)]) -> PartitionHead {
        let era = |(server, began_after, through): &(&str, u64, u64)| {
            let (recorded_at, recorded_ms) = (began_after + SERVER_JUMP + 3, 1000);
            let lost = TailLoss { through: *through, recorded_at, recorded_ms };
            let server = (*server).to_owned();
            Era { server, began_after: *began_after, lost: (*through > 0).then_some(lost) }
        };
        PartitionHead {
            epoch: Epoch::new(1),
            earlier_epochs: Vec::new(),
            epoch_began_after: Some(0),
            sequence: 5 + SERVER_JUMP,
            lineage: lineage.iter().map(era).collect(),
        }
    }

    #[test]
    fn a_server_without_the_last_events_of_its_predecessor_has_lost_them() {
        let lineage = head(&[("b", 5, 0), ("a", 0, 0)]);
        assert_eq!(Tail::of(&lineage, "b", 9), Tail::Whole);
        assert_eq!(Tail::of(&lineage, "a", 5), Tail::Whole);
        assert_eq!(Tail::of(&lineage, "a", 7), Tail::Lost { is_recorded: false });
        assert_eq!(Tail::of(&lineage, "a", 5 + SERVER_JUMP), Tail::Unknown);
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
            assert!(!losses.note(&lost, Some("b"), 5 + SERVER_JUMP));
            // Another instance had one more event.
            let more = head(&[("b", 5, 8), ("a", 0, 0)]);
            assert!(losses.note(&more, Some("b"), 5 + SERVER_JUMP));
            assert!(!losses.note(&more, Some("b"), 5 + SERVER_JUMP));
        }
    }

    #[test]
    fn a_client_before_the_loss_or_past_it_before_its_record_is_told() {
        let mut losses = TailLosses::default();
        losses.begin(&head(&[("b", 5, 7), ("a", 0, 0)]));
        let first = 5 + SERVER_JUMP;
        let told = [0, 6, first, first + 2].map(|position| losses.may_concern(position));
        let untold = [7, first - 1, first + 3].map(|position| losses.may_concern(position));
        assert_eq!((told, untold), ([true; 4], [false; 3]));
        assert!(losses.may_concern_since(1000) && !losses.may_concern_since(1001));
    }

    #[test]
    fn a_settled_publish_does_not_open_again() {
        let one = |server: &str, sequence| Acknowledged {
            epoch: Epoch::new(1),
            sequence,
            server: server.to_owned(),
        };
        let (mut all, mut tails) = (Acknowledgements::default(), AcknowledgedTails::default());
        let present = head(&[("a", 0, 0)]);
        all.note(one("a", 3));
        tails.begin(&all);
        assert_eq!(tails.open_in(&present).count(), 1);
        tails.settle();
        all.note(one("b", 9));
        tails.begin(&all);
        assert_eq!(tails.open_in(&present).collect::<Vec<_>>(), [&one("b", 9)]);
        // An unsettled one stays beside later ones.
        all.note(one("c", 20));
        tails.begin(&all);
        assert_eq!(tails.open_in(&present).count(), 2);
    }
}
