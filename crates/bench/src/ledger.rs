//! The ledger of one stream and topic: checks that every number arrives once and in order. Pure.

/// Most holes remembered. A hole distinguishes a late number from a repeated one. Over the limit
/// the oldest hole is dropped, and late numbers in it count as repeated.
const MAX_HOLES: usize = 64;

/// The numbers of one topic in their order of arrival; the first is 0.
#[derive(Debug, Default)]
pub(super) struct TopicRecord {
    /// One more than the highest number received.
    next: u64,
    /// Count of missing numbers below `next`.
    missing: u64,
    twice: u64,
    out_of_order: u64,
    /// Ranges of missing numbers below `next`, in order: first number, and one past the last.
    holes: Vec<(u64, u64)>,
}

/// The result of a ledger.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub(super) struct Loss {
    /// Missing, although the hub confirmed the event.
    pub lost: u64,
    pub twice: u64,
    pub out_of_order: u64,
}

impl std::ops::AddAssign for Loss {
    fn add_assign(&mut self, other: Self) {
        self.lost += other.lost;
        self.twice += other.twice;
        self.out_of_order += other.out_of_order;
    }
}

impl TopicRecord {
    /// Records a number. True if it is new, as far as the remembered holes show.
    pub fn on_number(&mut self, number: u64) -> bool {
        if number < self.next {
            return self.on_late(number);
        }
        if number > self.next {
            self.missing += number - self.next;
            if self.holes.len() == MAX_HOLES {
                self.holes.remove(0);
            }
            self.holes.push((self.next, number));
        }
        self.next = number + 1;
        true
    }

    fn on_late(&mut self, number: u64) -> bool {
        let is_in = |&(first, end): &(u64, u64)| first <= number && number < end;
        let Some(at) = self.holes.iter().position(is_in) else {
            self.twice += 1;
            return false;
        };
        self.out_of_order += 1;
        self.missing -= 1;
        let (first, end) = self.holes.remove(at);
        let rest = [(first, number), (number + 1, end)];
        let rest = rest.into_iter().filter(|(first, end)| first < end);
        self.holes.splice(at..at, rest);
        true
    }

    /// The result after `published` numbers. Up to `unconfirmed` of them may be missing, because
    /// the hub did not confirm them.
    pub fn loss(&self, published: u64, unconfirmed: u64) -> Loss {
        let missing = self.missing + published.saturating_sub(self.next);
        Loss {
            lost: missing.saturating_sub(unconfirmed),
            twice: self.twice,
            out_of_order: self.out_of_order,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn loss(numbers: &[u64], published: u64, unconfirmed: u64) -> (u64, u64, u64) {
        let mut ledger = TopicRecord::default();
        numbers.iter().for_each(|number| _ = ledger.on_number(*number));
        let Loss { lost, twice, out_of_order } = ledger.loss(published, unconfirmed);
        (lost, twice, out_of_order)
    }

    #[test]
    fn every_number_once_and_in_order_is_no_loss() {
        assert_eq!(loss(&[0, 1, 2], 3, 0), (0, 0, 0));
        assert_eq!(loss(&[], 0, 0), (0, 0, 0));
    }

    #[test]
    fn missing_numbers_are_lost_wherever_they_were() {
        assert_eq!(loss(&[1, 2, 5], 8, 0), (5, 0, 0));
        assert_eq!(loss(&[], 4, 0), (4, 0, 0));
    }

    #[test]
    fn what_was_not_confirmed_may_be_missing() {
        assert_eq!(loss(&[0, 2], 4, 2), (0, 0, 0));
        assert_eq!(loss(&[0, 1, 2, 3], 4, 2), (0, 0, 0));
        assert_eq!(loss(&[0], 4, 2), (1, 0, 0));
    }

    #[test]
    fn a_number_that_comes_late_is_out_of_order_and_one_that_comes_again_is_twice() {
        assert_eq!(loss(&[0, 3, 1, 2, 4], 5, 0), (0, 0, 2));
        assert_eq!(loss(&[0, 1, 1, 0], 2, 0), (0, 2, 0));
        assert_eq!(loss(&[0, 3, 1, 1], 4, 0), (1, 1, 1));
    }

    proptest! {
        #[test]
        fn a_permutation_loses_nothing(numbers in Just((0..60_u64).collect::<Vec<_>>()).prop_shuffle()) {
            let (lost, twice, _) = loss(&numbers, 60, 0);
            prop_assert_eq!((lost, twice), (0, 0));
        }
    }
}
