//! Whether every client got what it had to get, and nothing else.

use std::collections::{BTreeMap, HashSet};

use super::{ModelTotals, PARTITIONS, World};
use crate::{client::ModelClient, expectation::Due, reference::CollapsedItem};

impl World {
    /// Compares what clients got with what was promised to them.
    pub fn check(mut self) -> ModelTotals {
        assert!(self.tickets.is_empty() && self.graph.calls.is_empty(), "unanswered changes");
        for number in 0..self.clients.len() {
            let client = &self.clients[number];
            assert!(client.has_begun, "client {number} has never been connected");
            self.check_order(number, client);
            self.check_counts(number, client);
            self.totals.superseded += self.check_promises(number, client);
            let client = &self.clients[number];
            let is_post =
                |index: &&usize| self.reference.records[**index].topic.starts_with("posts");
            let is_feed = client.expectation.feed_of().is_some();
            self.totals.posts += client.got.iter().filter(is_post).count() * usize::from(is_feed);
            self.totals.got += client.is_got.len();
            self.totals.gaps += client.gap_count;
            self.totals.shutdowns += client.shutdown_count;
        }
        self.totals
    }

    /// Where in what a client got it may have begun anew: after a gap of another epoch it
    /// gets again what was left.
    fn restarts<'a>(&self, client: &'a ModelClient) -> &'a [usize] {
        let loses_tails = self.redis.as_ref().is_some_and(|redis| redis.loses_tails);
        if loses_tails { &client.epoch_gaps_at } else { &[] }
    }

    /// Each partition in order, nothing twice, nothing unasked.
    fn check_order(&self, number: usize, client: &ModelClient) {
        let mut last = [(0, 0); PARTITIONS as usize];
        let mut run: HashSet<usize> = HashSet::new();
        for (place, index) in client.got.iter().enumerate() {
            if self.restarts(client).contains(&place) {
                last = Default::default();
                run.clear();
            }
            let record = &self.reference.records[*index];
            if client.blurred.contains(&record.number) {
                continue;
            }
            assert!(run.insert(*index), "client {number} got {index} twice: {client:?}");
            let last = &mut last[usize::from(record.partition)];
            let place = (record.era, record.sequence);
            assert!(
                *last < place,
                "client {number} got {index} out of order: {last:?} {record:?}\n{client:?}"
            );
            *last = place;
            assert_ne!(
                client.due[*index],
                Due::Not,
                "client {number} got {index} unasked: {record:?}\n{client:?}"
            );
        }
    }

    /// An event stands for itself and for those of its key since the one before that was
    /// told: for all that had to be told, and for none that must not.
    fn check_counts(&self, number: usize, client: &ModelClient) {
        let mut before: BTreeMap<CollapsedItem, usize> = BTreeMap::new();
        let is_blurred =
            |index: usize| client.blurred.contains(&self.reference.records[index].number);
        for (place, index) in client.got.iter().enumerate() {
            if self.restarts(client).contains(&place) {
                before.clear();
            }
            let count = client.told[place].count;
            let Some(item) = self.reference.collapses_with(*index) else {
                assert_eq!(count, 1, "client {number} got {index}, which collapses with nothing");
                continue;
            };
            if is_blurred(*index) {
                before.clear();
                continue;
            }
            let since = before.insert(item, *index).map_or(0, |before| before + 1);
            let between: Vec<usize> = (since..*index)
                .filter(|between| self.reference.collapses_with(*between) == Some(item))
                .collect();
            let may = between.iter().filter(|between| client.due[**between] != Due::Not).count();
            let must = between.iter().filter(|between| {
                self.is_due(client, **between) && !client.uncounted.contains(between)
            });
            // After another epoch's gap it may have had some of them before.
            let is_exact = client.epoch_gaps_at.is_empty() && client.blurred.is_empty();
            let must = if is_exact { must.count() } else { 0 };
            assert!(
                (must..=may).contains(&(count - 1)),
                "client {number} got {index} as {count} events, but {must} to {may} were merged \
                 into it, of {between:?}: {:?}\n{client:?}",
                self.reference.records[*index],
            );
        }
    }

    /// What had to be told was, or something else stood for it.
    fn check_promises(&self, number: usize, client: &ModelClient) -> usize {
        let mut superseded = 0;
        let untold = (0..client.due.len()).filter(|index| !client.is_got.contains(index));
        for index in untold.filter(|index| self.is_due(client, *index)) {
            let mut later = index + 1..self.reference.records.len();
            if later.clone().any(|later| self.reference.is_same_item(index, later)) {
                superseded += 1;
                continue;
            }
            let item = self.reference.collapses_with(index);
            let mut merged = || {
                later.any(|later| {
                    let is_blurred = client.blurred.contains(&self.reference.records[later].number);
                    (client.is_got.contains(&later) || is_blurred)
                        && self.reference.collapses_with(later) == item
                })
            };
            assert!(
                item.is_some() && merged() || client.uncounted.contains(&index),
                "client {number} lost {index}: {:?}\nclient: {client:?}\n\
                 {:?}",
                self.reference.records[index],
                self.settings,
            );
        }
        superseded
    }

    /// Whether an event has to be told and no gap has excused it.
    fn is_due(&self, client: &ModelClient, index: usize) -> bool {
        let record = &self.reference.records[index];
        let is_excused = client.excused.contains(&index)
            || client.dropped_in.contains(&record.partition)
            || record.era < client.epoch_gaps_through
            || (record.is_lost && !client.epoch_gaps_at.is_empty());
        let is_blurred = client.blurred.contains(&record.number);
        client.due[index] == Due::Must && !is_excused && !is_blurred
    }
}
