//! The pushes due on a link, by their announcements: a missing push is noticed before any newer one.
//!
//! Every call of the publish script first announces its events, with their topics, to all instances.
//! Then it pushes each event to the instances with its channels. `previous` in a push shows a hole
//! in one topic; an announcement shows it before the next event of any topic.

use std::collections::VecDeque;

/// The pushes due on the present link.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    /// All events up to this sequence are announced, or older than an answer of this link. `None`
    /// before the first answer: until then, subscriptions may be unconfirmed.
    announced: Option<u64>,
    /// Announced events of subscribed topics, not arrived yet; ascending.
    due: VecDeque<u64>,
}

/// Whether all pushes have arrived so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) enum Arrival {
    Whole,
    /// A push or an announcement is missing.
    Missing,
}

impl Arrivals {
    /// The events from `first` to `last` follow, among them the `due` ones.
    pub fn announce(&mut self, first: u64, last: u64, due: impl Iterator<Item = u64>) -> Arrival {
        let Some(announced) = self.announced.filter(|announced| *announced < last) else {
            // Repeated, or of a link without an answer.
            return Arrival::Whole;
        };
        let is_whole = self.due.is_empty() && first == announced + 1;
        self.announced = Some(last);
        self.due.clear();
        self.due.extend(due);
        Self::arrival(is_whole)
    }

    /// An event has arrived.
    pub fn arrive(&mut self, sequence: u64) -> Arrival {
        let Some(announced) = self.announced else { return Arrival::Whole };
        if sequence > announced {
            self.announced = Some(sequence);
            self.due.clear();
            return Arrival::Missing;
        }
        let before = self.due.len();
        while self.due.pop_front_if(|due| *due < sequence).is_some() {}
        let is_whole = self.due.len() == before;
        self.due.pop_front_if(|due| *due == sequence);
        Self::arrival(is_whole)
    }

    /// An answer with this head has arrived, and so all pushes up to it. The answer to an own request
    /// comes after the subscriptions of the link: from there on, every push counts.
    pub fn answer(&mut self, head: u64, is_own: bool) -> Arrival {
        let Some(announced) = self.announced else {
            self.announced = is_own.then_some(head);
            return Arrival::Whole;
        };
        let is_due = self.due.front().is_some_and(|due| *due <= head);
        self.announced = Some(announced.max(head));
        if is_due {
            self.due.clear();
        }
        Self::arrival(announced >= head && !is_due)
    }

    fn arrival(is_whole: bool) -> Arrival {
        if is_whole { Arrival::Whole } else { Arrival::Missing }
    }
}

#[cfg(test)]
mod tests {
    use super::{Arrival::*, *};

    /// After an answer at 10, the events 11 to 13, of them 11 and 13 subscribed.
    fn announced() -> Arrivals {
        let mut arrivals = Arrivals::default();
        assert_eq!(arrivals.announce(9, 10, [9].into_iter()), Whole);
        assert_eq!(arrivals.answer(10, true), Whole);
        assert_eq!(arrivals.announce(11, 13, [11, 13].into_iter()), Whole);
        arrivals
    }

    #[test]
    fn announced_pushes_in_order_are_whole() {
        let mut arrivals = announced();
        // A second push of the same event, on the channel of all topics.
        for sequence in [11, 11, 13, 13, 11] {
            assert_eq!(arrivals.arrive(sequence), Whole);
        }
        assert_eq!(arrivals.announce(14, 14, [].into_iter()), Whole);
        assert_eq!(arrivals.answer(14, false), Whole);
    }

    #[test]
    fn a_missing_push_shows_at_the_next_event_announcement_or_answer() {
        assert_eq!(announced().arrive(13), Missing);
        let mut arrivals = announced();
        assert_eq!(arrivals.arrive(11), Whole);
        assert_eq!(arrivals.announce(14, 14, [14].into_iter()), Missing);
        assert_eq!(arrivals.arrive(14), Whole);
        assert_eq!(announced().answer(11, false), Missing);
        // An answer may come before newer pushes.
        let mut arrivals = announced();
        assert_eq!(arrivals.answer(10, false), Whole);
        assert_eq!(arrivals.arrive(11), Whole);
    }

    #[test]
    fn a_missing_announcement_shows_like_a_missing_push() {
        assert_eq!(announced().arrive(14), Missing);
        let mut arrivals = announced();
        let _ = (arrivals.arrive(11), arrivals.arrive(13));
        assert_eq!(arrivals.announce(15, 15, [].into_iter()), Missing);
        assert_eq!(arrivals.announce(16, 16, [].into_iter()), Whole);
        assert_eq!(arrivals.answer(17, false), Missing);
        assert_eq!(arrivals.answer(17, false), Whole);
    }
}
